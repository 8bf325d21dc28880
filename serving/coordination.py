"""How a model comes into service everywhere, or nowhere: what parent and workers say to each other
(one JSON object a line over a socket pair), and the note of what is served."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

RELOAD_SECONDS = 120.0
"""That every worker has for loading a model and for taking it into service: a large catalogue with
its index takes 15."""

Message = dict[str, Any]
_LONGEST = 2**24  # bytes of a message: a problem can tell of each of thousands of models
_running: set[asyncio.Task[None]] = set()

# From the parent.
LOAD = "load"  # model_id and trials: load them, then say READY
GO = "go"  # start to accept requests
PREPARE = "prepare"  # model_id
COMMIT = "commit"  # model_id
ABORT = "abort"
PREPARE_TRIALS = "prepare_trials"  # trials: experiments and the models of their sides
COMMIT_TRIALS = "commit_trials"  # trials, broken: models that one of the workers could not load
ANSWER = "answer"  # request, and the outcome of what was asked

# From a worker.
READY = "ready"  # model_id, trials: loaded, waiting for GO
PREPARED = "prepared"  # problem: None, or why not
COMMITTED = "committed"
PREPARED_TRIALS = "prepared_trials"  # broken: models that are not sound, and why
RELOAD = "reload"  # request, model_id: somebody asked this worker for it
FOLLOW = "follow"  # request, trials: what the state says now


@dataclass(frozen=True)
class Reloaded:
    """All `workers` serve `model_id` now."""

    model_id: str
    previous_model_id: str | None
    workers: int
    seconds: float


@dataclass(frozen=True)
class Followed:
    """All `workers` run the same experiments; models that are `broken`, with the reason, are
    replaced by what is deployed."""

    broken: Mapping[str, str]
    workers: int
    seconds: float


class ReloadError(Exception):
    """The model did not come into service; every worker serves what it served before."""


class Channel:
    """One end of the conversation."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._expected: dict[tuple[str, int], asyncio.Future[Message]] = {}
        self._gone = False

    @classmethod
    async def over(cls, connection: socket.socket) -> "Channel":
        """Take over one socket of a pair."""
        connection.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=connection, limit=_LONGEST))

    def send(self, kind: str, **values: Any) -> None:
        """Send without waiting; to an end that is gone nothing happens."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"kind": kind, **values}).encode() + b"\n")

    def expect(self, kind: str, request: int = 0) -> asyncio.Future[Message]:
        """A future of the next message of `kind`; it fails with `ConnectionError` when the other
        end is gone."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        if self._gone:
            future.set_exception(ConnectionError("the other end is gone"))
        self._expected[kind, request] = future
        return future

    async def receive(self) -> Message | None:
        """The next message that nobody expects, None when the other end is gone."""
        with contextlib.suppress(ConnectionError):
            while (line := await self._reader.readline()).endswith(b"\n"):
                message: Message = json.loads(line)
                place = message["kind"], message.get("request", 0)
                future = self._expected.pop(place, None)
                if future is None:
                    return message
                if not future.done():
                    future.set_result(message)
        self._gone = True
        for future in self._expected.values():
            if not future.done():
                future.set_exception(ConnectionError("the other end is gone"))
        self._writer.close()
        return None


def spawn(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` beside everything else. asyncio itself keeps no reference to a task."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
