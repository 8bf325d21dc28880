"""What every request passes first: limits, a deadline, headers, counting.

A plain ASGI layer: Starlette's middleware classes would cost more than the rest together.
"""

import asyncio
import time
from collections.abc import Iterable

from fastapi.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.config import ServingConfig
from serving.problems import problem_response
from serving.shared import ClientLimit, Counters

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (b"cache-control", b"no-store"),
]
_DOCS_PATHS = ("/docs", "/redoc")
_DOCS_HEADERS = [header for header in _HEADERS if header[0] != b"content-security-policy"]


class Guard:
    """Wraps the application `app`."""

    def __init__(
        self, app: ASGIApp, config: ServingConfig, limit: ClientLimit, counters: Counters
    ) -> None:
        self._app = app
        self._config = config
        self._limit = limit
        self._counters = counters
        self._too_large = f"The body is larger than {config.max_body_bytes} bytes."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path = scope["path"]
        headers = _DOCS_HEADERS if path in _DOCS_PATHS else _HEADERS
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].extend(headers)
            await send(message)

        try:
            async with asyncio.timeout(self._config.request_timeout_seconds):
                await self._answer(scope, receive, send_with_headers)
        except TimeoutError:
            if status:
                raise
            late = problem_response(
                503, "The request took too long and was given up.", headers={"Retry-After": "5"}
            )
            await late(scope, receive, send_with_headers)
        finally:
            elapsed = (time.perf_counter() - started) * 1000
            self._counters.count(path, status or 500, elapsed)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if not self._limit.allows(client[0] if client else ""):
            refused = problem_response(
                429,
                f"At most {self._config.requests_per_client_minute} requests a minute are "
                "answered for one client.",
                headers={"Retry-After": "10"},
            )
            await refused(scope, receive, send)
            return
        length = _content_length(scope["headers"])
        if length is None:
            receive = self._counted(receive)
        elif length > self._config.max_body_bytes:
            refused = problem_response(413, self._too_large, headers={"Connection": "close"})
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _counted(self, receive: Receive) -> Receive:
        """`receive` for a body that does not say how long it is."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._config.max_body_bytes:
                # The one kind of error that FastAPI lets through while it reads a body.
                raise HTTPException(413, self._too_large, {"Connection": "close"})
            return message

        return counted


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
