"""One worker process: ``python -m serving.worker SLOT LISTENING CONTROL MEMORY``.

The last three are file descriptors that the parent hands down."""

import asyncio
import itertools
import logging
import os
import socket
import sys
from typing import Any

# Before NumPy is loaded: requests run beside each other, BLAS threads would only fight.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import uvicorn

from recsys.errors import InputError
from recsys.logs import log_to_output
from recsys.schedule import load_log_format, load_zone
from recsys.settings import Settings, load_settings
from serving import coordination
from serving.app import WorkerPlace, create_app
from serving.config import read_environment
from serving.coordination import Channel, Followed, Message, Reloaded, ReloadError, spawn
from serving.engine import Coordinator, Engine, find_entry, start_trials, start_with_any
from serving.guard import LimitedProtocol
from serving.trials import Trials, trials_at_start

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 15
_NO_PARENT_STATUS = 3
# How long a request may have to wait for the interpreter while a thread writes the log; Python's
# own 5 ms, again and again within one batch, are most of the slowest answers.
_SWITCH_SECONDS = 0.0005


class ParentLink(Coordinator):
    """This worker's conversation with the parent; the coordinator of the routes."""

    def __init__(self, settings: Settings, connection: socket.socket) -> None:
        super().__init__(settings)
        self._connection = connection
        self._channel: Channel
        self._numbers = itertools.count(1)
        self.server: uvicorn.Server | None = None

    async def join(self, engine: Engine) -> None:
        """Load the model that the parent names and wait until it says go."""
        self.engine = engine
        self._channel = await Channel.over(self._connection)
        while (message := await self._channel.receive()) is not None:
            if message["kind"] == coordination.LOAD:
                problem = await asyncio.to_thread(self._load, message)
                model_id, (trials, _, _, broken) = self.engine.model_id, self.engine.in_trial
                running = {"trials": trials.as_message(), "broken": broken}
                told = {"model_id": model_id, "problem": problem, "running": running}
                self._channel.send(coordination.READY, **told)
            elif message["kind"] == coordination.GO:
                spawn(self._listen())
                return
        raise ConnectionError("the parent is gone")

    async def _reload(self, model_id: str | None) -> Reloaded:
        try:
            wanted = await asyncio.to_thread(find_entry, self.settings, model_id)
        except (InputError, OSError) as error:
            raise ReloadError(str(error)) from error
        outcome = await self._ask(coordination.RELOAD, model_id=wanted.model_id)
        if outcome["problem"]:
            raise ReloadError(outcome["problem"])
        told = (outcome[key] for key in ("previous_model_id", "workers", "seconds"))
        return Reloaded(wanted.model_id, *told)

    async def _switch(self, trials: Trials) -> Followed:
        outcome = await self._ask(coordination.FOLLOW, trials=trials.as_message())
        return Followed(*(outcome[key] for key in ("broken", "workers", "seconds")))

    async def _ask(self, kind: str, **values: Any) -> Message:
        """Ask the parent, and wait for its answer."""
        request = next(self._numbers)
        answer = self._channel.expect(coordination.ANSWER, request)
        self._channel.send(kind, request=request, **values)
        try:
            return await answer
        except ConnectionError as error:
            raise ReloadError("the service is stopping") from error

    def _load(self, message: Message) -> str | None:
        """Load what the parent names; why that failed, None if it did not."""
        problem = self._load_model(message)
        if problem is None and (running := message["running"]) is not None:
            start_trials(self.engine, Trials.of_message(running["trials"]), running["broken"])
        elif problem is None:
            start_trials(self.engine, trials_at_start(self.settings))
        return problem

    def _load_model(self, message: Message) -> str | None:
        model_id = message["model_id"]
        problem = None
        if model_id is not None:
            problem = self.engine.try_to_prepare(model_id, starting=True)
            if problem is None:
                self.engine.commit(model_id)
                return None
            logger.error("The served model cannot be loaded | reason=%s", problem)
        if message["choose"]:
            # Nobody serves: any model is better than none.
            start_with_any(self.settings, self.engine)
            return None
        return problem

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            self._obey(message["kind"], message)
        logger.error("The parent is gone, stopping")
        if self.server is not None:
            self.server.should_exit = True

    def _obey(self, kind: str, message: Message) -> None:
        if kind == coordination.PREPARE:
            spawn(self._prepare(message["model_id"]))
        elif kind == coordination.COMMIT:
            self.engine.commit(message["model_id"])
            self._channel.send(coordination.COMMITTED)
        elif kind == coordination.PREPARE_TRIALS:
            spawn(self._prepare_trials(Trials.of_message(message["trials"])))
        elif kind == coordination.COMMIT_TRIALS:
            self.engine.commit_trials(Trials.of_message(message["trials"]), message["broken"])
            self._channel.send(coordination.COMMITTED)
        elif kind == coordination.ABORT:
            self.engine.abort()

    async def _prepare(self, model_id: str) -> None:
        problem = await asyncio.to_thread(self.engine.try_to_prepare, model_id)
        self._channel.send(coordination.PREPARED, problem=problem)

    async def _prepare_trials(self, trials: Trials) -> None:
        broken = await asyncio.to_thread(self.engine.prepare_trials, trials)
        self._channel.send(coordination.PREPARED_TRIALS, broken=broken)


def main(arguments: list[str]) -> int:
    """Serve until the parent ends it. Returns the exit status."""
    settings = load_settings()
    log_to_output(load_log_format(settings), load_zone(settings))
    sys.setswitchinterval(_SWITCH_SECONDS)
    slot, listening, control, memory = map(int, arguments)
    link = ParentLink(settings, socket.socket(fileno=control))
    serving = uvicorn.Config(
        create_app(settings, read_environment(), WorkerPlace(slot, memory, link)),
        http=LimitedProtocol,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    link.server = server = uvicorn.Server(serving)
    server.run(sockets=[socket.socket(fileno=listening)])
    return 0 if server.started else _NO_PARENT_STATUS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
