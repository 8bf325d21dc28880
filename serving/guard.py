"""What every connection and every request passes first: limits, deadlines, headers, counting.
uvicorn reads headers of any length, for any time, from any number of connections; Starlette's
middleware classes would cost a request more than the rest together."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, cast

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.config import ServingConfig
from serving.coordination import RELOAD_SECONDS
from serving.problems import MEDIA_TYPE, TITLES, is_export, problem_response, response_to
from serving.shared import ClientLimit, Counters

MAX_HEAD_BYTES = 65_536  # twice what browsers and proxies send at most (nginx: 32 KB)
# From the connection, or the first byte of a further request, to the end of the headers.
HEAD_SECONDS = 10.0
MAX_WAITING = 512  # connections of a worker without all headers: a shop's backend has none
_LOOK_SECONDS = 1.0
_LAST_SECONDS = 0.5
_TOO_LARGE = (431, f"At most {MAX_HEAD_BYTES} bytes of headers.")
_TOO_SLOW = (408, f"The headers took longer than {HEAD_SECONDS:g} seconds.")

MAX_CLIENT_BYTES_MINUTE = 100_000_000
"""Bytes of bodies that a client may send in a minute, over all workers: 60 of the largest batches
of interactions a second would be a shop with a million orders an hour."""
_TOO_MANY_BYTES = f"At most {MAX_CLIENT_BYTES_MINUTE} bytes a minute are taken from one client."

OPERATIONS = frozenset(
    {"/health", "/metrics", "/stats", "/model_info", "/reload_model", "/canary"}
    | {"/rules", "/rules/preview"}
)
"""Paths with an allowance of their own: shop traffic at its limit must not make a load balancer or
a deployment believe that the service is gone."""

LOADING_PATHS = frozenset({"/reload_model", "/canary"})
_LOADING = RELOAD_SECONDS + 20  # seconds: whoever asked for it must hear how it ended

EXPORT_SECONDS = 120.0
"""What is kept of a customer lies in many files."""

_HANG_UP = {"Connection": "close"}
_LATER = {"Retry-After": "10"}
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


_PICTURES = [
    (name, value.replace(b"img-src 'self'", b"img-src https: 'self'")) for name, value in _HEADERS
]
"""Of the demo page, which shows pictures where the shop has them."""


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
        self._app, self._config, self._counters = app, config, counters
        self._requests, self._received = requests, received
        self._too_large = f"The body is larger than {config.max_body_bytes} bytes."
        many = config.requests_per_client_minute
        self._too_many = f"At most {many} requests a minute are answered for one client."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, path, status, received = time.perf_counter(), scope["path"], 0, 0
        client = (scope.get("client") or ("",))[0]
        headers = dict(scope["headers"])
        said = headers.get(b"content-length", b"")
        length = int(said) if said.isdigit() else None
        waiting = bool(length) or b"transfer-encoding" in headers
        # Load balancers ask with HEAD; every GET route answers, without the body, but for exports.
        head_only = scope["method"] == "HEAD" and not is_export(path)
        scope = {**scope, "method": "GET"} if head_only else scope

        async def receive_all() -> Message:
            nonlocal waiting, received
            message = await receive()
            waiting = message.get("more_body", False)
            if length is None:
                size = len(message.get("body", b""))
                received += size
                self._take(client, size, received)
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].extend(_PICTURES if path == "/demo" else _HEADERS)
            elif head_only:
                message = {**message, "body": b""}
            await send(message)

        try:
            limit = self._deadline(path)
            if not self._requests.allows(f"watch {client}" if path in OPERATIONS else client):
                raise HTTPException(429, self._too_many, _LATER)
            self._take(client, length or 0, length or 0)
            await _Within(limit, self._app(scope, receive_all, send_with_headers))
        except (TimeoutError, HTTPException) as error:
            if status:
                raise
            await _refusal(error, waiting)(scope, receive, send_with_headers)
        finally:
            elapsed = (time.perf_counter() - started) * 1000
            self._counters.count(path, status or 500, elapsed)

    def _deadline(self, path: str) -> float:
        if path in LOADING_PATHS:
            return _LOADING
        return EXPORT_SECONDS if is_export(path) else self._config.request_timeout_seconds

    def _take(self, client: str, size: int, total: int) -> None:
        """Count `size` bytes of a body of `total` so far. Raises the one kind of error that FastAPI
        lets through while it reads a body."""
        if total > self._config.max_body_bytes:
            raise HTTPException(413, self._too_large, _HANG_UP)
        if size and not self._received.allows(client, size):
            raise HTTPException(429, _TOO_MANY_BYTES, _LATER | _HANG_UP)


class _Within:
    """Awaits `work`; raises `TimeoutError` where it takes longer than `seconds`. The deadline is
    set when the work waits for something first, which most answers never do: `asyncio.timeout`
    alone would take a tenth of the time of those."""

    def __init__(self, seconds: float, work: Awaitable[None]) -> None:
        self._seconds, self._work = seconds, cast(Coroutine[Any, Any, None], work)

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            waits_for = self._work.send(None)
        except StopIteration:
            return
        yield from self._rest(waits_for).__await__()

    async def _rest(self, waits_for: Any) -> None:
        async with asyncio.timeout(self._seconds):
            await _Resumed(self._work, waits_for)


class _Resumed:
    """Awaits `work` that has begun, and waits for `waits_for`."""

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._work, self._waits_for = work, waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        waits_for = self._waits_for
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 - passed on
                resume = functools.partial(self._work.throw, error)
            else:
                resume = functools.partial(self._work.send, sent)
            try:
                waits_for = resume()
            except StopIteration:
                return


def _refusal(error: TimeoutError | HTTPException, waiting: bool) -> JSONResponse:
    if isinstance(error, HTTPException):
        return response_to(error)
    if waiting:  # whose fault it is: the caller has not sent all of the body that it announced
        return problem_response(408, "The body of the request did not arrive in time.", _HANG_UP)
    detail = "The request took too long and was given up."
    return problem_response(503, detail, {"Retry-After": "5"})


class _OneWrite:
    """A transport that sends the head of an answer together with what follows in the same turn of
    the loop: uvicorn writes them one after the other, and each costs the system a packet."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send `data` now, or at the end of this turn if it is a head."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/"):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)


class LimitedProtocol(HttpToolsProtocol):
    """One connection. Those that have yet to send all headers of a request are in `_waiting`, with
    the time that they have until then, the oldest first. One server a process."""

    _waiting: dict["LimitedProtocol", float] = {}  # noqa: RUF012 - of the process, on purpose
    _looking: asyncio.TimerHandle | None = None

    _refused = False
    _in_head = False
    _in_body = False
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _OneWrite(transport, self.loop)  # type: ignore[assignment]
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._in_body and self._head_bytes + len(data) > MAX_HEAD_BYTES:
            end = data.find(b"\r\n\r\n")
            if end < 0 or self._head_bytes + end > MAX_HEAD_BYTES:
                self._in_head = True
                self._refuse(*_TOO_LARGE)
                return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self not in self._waiting:
                self._wait()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What follows a body (trailers) is read by nobody, and could be of any length.
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body, self._head_bytes = False, True, 0
        self._waiting.pop(self, None)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _wait(self) -> None:
        waiting = self._waiting
        waiting[self] = time.monotonic() + HEAD_SECONDS
        if len(waiting) > MAX_WAITING:
            next(iter(waiting))._refuse(*_TOO_SLOW)
        if LimitedProtocol._looking is None:
            LimitedProtocol._looking = self.loop.call_later(_LOOK_SECONDS, self._look, self.loop)

    @classmethod
    def _look(cls, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        for connection in [one for one, until in cls._waiting.items() if until < now]:
            connection._refuse(*_TOO_SLOW)
        cls._looking = loop.call_later(_LOOK_SECONDS, cls._look, loop) if cls._waiting else None

    def _refuse(self, status: int, detail: str) -> None:
        """Answer with a problem document if a request has begun, and hang up."""
        self._waiting.pop(self, None)
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if not self._in_head:
            self.transport.close()
            return
        body = bytes(problem_response(status, detail).body)
        head = (
            f"HTTP/1.1 {status} {TITLES[status]}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        # With bytes unread, closing at once would take the answer away again.
        self.loop.call_later(_LAST_SECONDS, self.transport.close)
