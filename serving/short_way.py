"""A shorter way through FastAPI, for requests that come by the thousand a second."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JSON = (b"content-type", b"application/json")


class ShortWay:
    """Answers POST requests to `routes` of the form ``async def route(body: Model, service:
    Running) -> Response`` beside FastAPI, the application `app`.

    That looks for the route, opens contexts, decodes the body, collects headers, cookies and query,
    and then validates: half the time of a short request. Here the validator reads the bytes.
    Whatever is no valid body of type ``application/json`` gets FastAPI's answer."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes: dict[str, tuple[Callable[[bytes], Any], Callable[..., Any]]] = {}
        for route in routes:
            assert isinstance(route, APIRoute)
            field = route.body_field
            model = field.field_info.annotation if field else None
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                raise TypeError(f"{route}: expected a route whose body is one model, not {model}")
            validate = model.__pydantic_validator__.validate_json
            self._routes[route.path] = validate, route.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = self._routes.get(scope.get("path", ""))
        if known is None or scope.get("method") != "POST" or _JSON not in scope["headers"]:
            await self._app(scope, receive, send)
            return
        validate, route = known
        unread, pieces, more = list[Message](), list[bytes](), True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        # Whoever hung up before the end of the body has not asked for anything.
        sent = b"".join(pieces) if message["type"] == "http.request" else b""
        try:
            body = validate(sent)
        except ValidationError:
            unread.append({**message, "body": sent})
        else:
            response: Response = await route(body, scope["app"].state.service)
            await response(scope, receive, send)
            return

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)
