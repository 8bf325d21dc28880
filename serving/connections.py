"""What a connection may cost before there is a request: bytes of headers, seconds, places.

uvicorn reads headers of any length, for any time, from any number of connections.
"""

import asyncio
import time
from typing import Any

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Twice what browsers and proxies send at most (nginx: 32 KB).
MAX_HEAD_BYTES = 65_536
# From the connection, or the first byte of a further request, to the end of the headers.
HEAD_SECONDS = 10.0
# Connections of one worker that have not sent their headers: a shop's backend has none.
MAX_WAITING = 512
_LOOK_SECONDS = 1.0
_LAST_SECONDS = 0.5

_TOO_LARGE = (431, "Request Header Fields Too Large", f"At most {MAX_HEAD_BYTES} bytes of headers.")
_TOO_SLOW = (408, "Request Timeout", f"The headers took longer than {HEAD_SECONDS:g} seconds.")


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

    def _refuse(self, status: int, title: str, detail: str) -> None:
        """Answer with a problem document if a request has begun, and hang up."""
        self._waiting.pop(self, None)
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if not self._in_head:
            self.transport.close()
            return
        self.transport.write(_answer(status, title, detail))
        # With bytes unread, closing at once would take the answer away again.
        self.loop.call_later(_LAST_SECONDS, self.transport.close)


def _answer(status: int, title: str, detail: str) -> bytes:
    content: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    body = to_json(content | {"detail": detail})
    return (
        f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    ).encode() + body
