"""Messages between parent and worker: one JSON object a line, over a socket pair."""

import asyncio
import json
import socket
from typing import Any

Message = dict[str, Any]

# From the parent.
LOAD = "load"  # model_id: load it, then say READY
GO = "go"  # start to accept requests
PREPARE = "prepare"  # model_id
COMMIT = "commit"  # model_id, share: of the users, None for all
END_CANARY = "end_canary"
ABORT = "abort"
ANSWER = "answer"  # request, and the outcome of a reload

# From a worker.
READY = "ready"  # model_id: loaded, waiting for GO
PREPARED = "prepared"  # problem: None, or why not
COMMITTED = "committed"
RELOAD = "reload"  # request, model_id, share: somebody asked this worker for it
ASK_END_CANARY = "ask_end_canary"  # request


class Channel:
    """One end of the conversation."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, connection: socket.socket) -> "Channel":
        """Take over one socket of a pair."""
        connection.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=connection))

    def send(self, kind: str, **values: Any) -> None:
        """Send without waiting; to an end that is gone nothing happens."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"kind": kind, **values}).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message, None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: Message = json.loads(line)
        return message

    def close(self) -> None:
        self._writer.close()
