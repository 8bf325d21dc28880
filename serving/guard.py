"""What every request passes first: limits, a deadline, headers, counting.

A plain ASGI layer: Starlette's middleware classes would cost more than the rest together.
"""

import asyncio
import time
from collections.abc import Iterable

from fastapi.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.config import ServingConfig
from serving.coordination import RELOAD_SECONDS
from serving.problems import problem_response
from serving.shared import ClientLimit, Counters

MAX_CLIENT_BYTES_MINUTE = 100_000_000
"""Bytes of bodies that a client may send in a minute, over all workers: 60 of the largest batches
of interactions a second would be a shop with a million orders an hour."""

OPERATIONS = frozenset({"/health", "/metrics", "/stats", "/model_info", "/reload_model", "/canary"})
"""Paths with an allowance of their own: shop traffic at its limit must not make a load balancer or
a deployment believe that the service is gone."""

LOADING_PATHS = frozenset({"/reload_model", "/canary"})
_LOADING = RELOAD_SECONDS + 20
"""Seconds: loading has a limit of its own, and whoever asked for it must hear how it ended."""

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


class Guard:
    """Wraps the application `app`."""

    def __init__(
        self,
        app: ASGIApp,
        config: ServingConfig,
        requests: ClientLimit,
        received: ClientLimit,
        counters: Counters,
    ) -> None:
        self._app = app
        self._config = config
        self._requests = requests
        self._received = received
        self._counters = counters
        self._too_large = f"The body is larger than {config.max_body_bytes} bytes."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        path = scope["path"]
        status = 0
        body_is_there = False
        head_only = scope["method"] == "HEAD"
        if head_only:
            # Load balancers ask with HEAD; every GET route answers, without the body.
            scope = {**scope, "method": "GET"}

        async def receive_all() -> Message:
            nonlocal body_is_there
            message = await receive()
            body_is_there = not message.get("more_body", False)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].extend(_HEADERS)
            elif head_only:
                message = {**message, "body": b""}
            await send(message)

        try:
            limit = _LOADING if path in LOADING_PATHS else self._config.request_timeout_seconds
            async with asyncio.timeout(limit):
                await self._answer(scope, receive_all, send_with_headers)
        except TimeoutError:
            if status:
                raise
            late = _too_late(body_is_there or not _has_body(scope["headers"]))
            await late(scope, receive, send_with_headers)
        finally:
            elapsed = (time.perf_counter() - started) * 1000
            self._counters.count(path, status or 500, elapsed)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = scope.get("client")
        client = address[0] if address else ""
        if not self._requests.allows(f"watch {client}" if scope["path"] in OPERATIONS else client):
            await _refused(
                f"At most {self._config.requests_per_client_minute} requests a minute are "
                "answered for one client."
            )(scope, receive, send)
            return
        length = _content_length(scope["headers"])
        if length is None:
            receive = self._counted(receive, client)
        elif length > self._config.max_body_bytes:
            refused = problem_response(413, self._too_large, headers={"Connection": "close"})
            await refused(scope, receive, send)
            return
        elif length and not self._received.allows(client, length):
            await _refused(_TOO_MANY_BYTES, {"Connection": "close"})(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _counted(self, receive: Receive, client: str) -> Receive:
        """`receive` for a body that does not say how long it is."""
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            # The one kind of error that FastAPI lets through while it reads a body.
            if received > self._config.max_body_bytes:
                raise HTTPException(413, self._too_large, {"Connection": "close"})
            if size and not self._received.allows(client, size):
                raise HTTPException(429, _TOO_MANY_BYTES, {"Connection": "close"})
            return message

        return counted


_TOO_MANY_BYTES = f"At most {MAX_CLIENT_BYTES_MINUTE} bytes a minute are taken from one client."


def _refused(detail: str, headers: dict[str, str] | None = None) -> Response:
    return problem_response(429, detail, headers={"Retry-After": "10", **(headers or {})})


def _too_late(body_is_there: bool) -> Response:
    if body_is_there:
        detail = "The request took too long and was given up."
        return problem_response(503, detail, headers={"Retry-After": "5"})
    # Whose fault it is: the caller has not sent all of the body that it announced.
    detail = "The body of the request did not arrive in time."
    return problem_response(408, detail, headers={"Connection": "close"})


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    names = dict(headers)
    return b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0"


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
