"""The parent process: keeps the workers alive and decides which model they serve."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from recsys.settings import Settings
from serving import coordination, shared
from serving.config import ServiceEnvironment, ServingConfig
from serving.coordination import Channel, Message, remember_served

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_BIND_PATIENCE_SECONDS = 5.0
_STOP_SECONDS = 20.0
_SHORTEST_LIFE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 10.0
_ACCEPTED_SECONDS = 10.0


class PortInUseError(Exception):
    """Something else listens on the port."""


@dataclass(eq=False)
class Worker:
    """One running worker process; `ready` while it serves requests."""

    slot: int
    process: asyncio.subprocess.Process
    channel: Channel
    ready: bool = False
    gone: bool = False
    waiting: dict[str, asyncio.Future[Message]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"worker {self.slot} (pid {self.process.pid})"

    def expect(self, kind: str) -> asyncio.Future[Message]:
        """A future of the worker's next message of `kind`; it fails when the worker dies."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        if self.gone:
            future.set_exception(ConnectionError("the worker died"))
        self.waiting[kind] = future
        return future


class Parent:
    """Runs the workers until it is told to stop."""

    def __init__(
        self, settings: Settings, config: ServingConfig, environment: ServiceEnvironment
    ) -> None:
        self._settings, self._config, self._environment = settings, config, environment
        self._workers: dict[int, Worker] = {}
        # Held while a worker joins and while a reload runs: nobody joins with a model that is
        # just being replaced.
        self._deciding = asyncio.Lock()
        self._model_id: str | None = None
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._memory = shared.create()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises `PortInUseError`."""
        listening = await asyncio.to_thread(bind, self._environment)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        logger.info(
            "Serving on http://%s:%s | workers=%s",
            self._environment.host,
            self._environment.port,
            self._config.workers,
        )
        with listening:
            keepers = [
                asyncio.create_task(self._keep_alive(slot, listening))
                for slot in range(self._config.workers)
            ]
            await self._stopping.wait()
            await self._stop_workers()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep_alive(self, slot: int, listening: socket.socket) -> None:
        """Start the worker of `slot` again whenever it ends; ever more slowly if at once."""
        pause = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                worker = await self._start(slot, listening)
            except OSError as error:  # no process or memory to be had at the moment
                logger.error("A worker cannot be started, trying again | error=%s", error)
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS)
                continue
            with contextlib.suppress(ConnectionError):
                await self._listen_to(worker)
            status = await worker.process.wait()
            if self._stopping.is_set():
                return
            quick = time.monotonic() - began < _SHORTEST_LIFE_SECONDS
            pause = min(2 * pause + 0.5, _LONGEST_PAUSE_SECONDS) if quick else 0.0
            logger.error("%s ended, starting it again | status=%s", worker.name, status)
            await asyncio.sleep(pause)

    async def _start(self, slot: int, listening: socket.socket) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "serving.worker",
                str(slot),
                str(listening.fileno()),
                str(theirs.fileno()),
                str(self._memory),
                pass_fds=(listening.fileno(), theirs.fileno(), self._memory),
            )
            unless_started.pop_all()
        worker = Worker(slot, process, await Channel.over(ours))
        self._workers[slot] = worker
        self._spawn(self._let_join(worker))
        return worker

    async def _let_join(self, worker: Worker) -> None:
        """Have a new worker load the served model, then let it accept requests.

        One at a time: the first one chooses (the model served last, else the current best),
        the others load what it chose.
        """
        async with self._deciding:
            alone = not any(other.ready for other in self._workers.values())
            loaded = worker.expect(coordination.READY)
            worker.channel.send(coordination.LOAD, model_id=self._model_id, choose=alone)
            try:
                message = await asyncio.wait_for(loaded, coordination.RELOAD_SECONDS)
            except ConnectionError:
                return
            except TimeoutError:
                # Nobody else could join or reload while one hangs.
                message = {"problem": "it took too long"}
            if message.get("problem"):
                logger.error("%s cannot load the model | %s", worker.name, message["problem"])
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()
                return
            self._model_id = message["model_id"]
            worker.ready = True
            worker.channel.send(coordination.GO)
            logger.info("%s joined | model_id=%s", worker.name, self._model_id)

    async def _listen_to(self, worker: Worker) -> None:
        while (message := await worker.channel.receive()) is not None:
            if message["kind"] in (coordination.RELOAD, coordination.ASK_END_CANARY):
                self._spawn(self._answer(worker, message))
                continue
            future = worker.waiting.pop(message["kind"], None)
            if future is not None and not future.done():
                future.set_result(message)
        worker.ready, worker.gone = False, True
        for future in worker.waiting.values():
            if not future.done():
                future.set_exception(ConnectionError(f"{worker.name} died"))
        worker.channel.close()

    async def _answer(self, asked: Worker, message: Message) -> None:
        """Do it in all workers or in none, and tell the worker that was asked how it went."""
        problem = None
        async with self._deciding:
            started, previous = time.monotonic(), self._model_id
            workers = [worker for worker in self._workers.values() if worker.ready]
            if message["kind"] == coordination.RELOAD:
                problem = await self._swap(workers, message["model_id"], message["share"])
            else:
                for worker in workers:
                    worker.channel.send(coordination.END_CANARY)
        asked.channel.send(
            coordination.ANSWER,
            request=message["request"],
            problem=problem,
            previous_model_id=previous,
            workers=len(workers),
            seconds=time.monotonic() - started,
        )

    async def _swap(self, workers: list[Worker], model_id: str, share: float | None) -> str | None:
        """Prepare everywhere, then commit everywhere. Returns why it did not happen, or None."""
        problems = await self._prepare(workers, model_id)
        if not problems and share is None:
            try:
                # The decision: whoever starts from here on comes up with the new model.
                await asyncio.to_thread(remember_served, self._settings, model_id)
            except OSError as error:
                problems = [f"the decision could not be written down: {error}"]
        if problems:
            for worker in workers:
                worker.channel.send(coordination.ABORT)
            logger.error("Reload refused | model_id=%s, %s", model_id, "; ".join(problems))
            return "; ".join(problems)
        if share is None:
            self._model_id = model_id
        await self._commit(workers, model_id, share)
        logger.info("All workers serve the model | model_id=%s", model_id)
        return None

    async def _prepare(self, workers: list[Worker], model_id: str) -> list[str]:
        prepared = [worker.expect(coordination.PREPARED) for worker in workers]
        for worker in workers:
            worker.channel.send(coordination.PREPARE, model_id=model_id)
        await asyncio.wait(prepared, timeout=coordination.RELOAD_SECONDS)
        problems = {
            self._problem(worker, future) for worker, future in zip(workers, prepared, strict=True)
        }
        return sorted(problem for problem in problems if problem)

    def _problem(self, worker: Worker, future: asyncio.Future[Message]) -> str | None:
        if not future.done():
            future.cancel()
            return (
                f"{worker.name} did not load the model within "
                f"{coordination.RELOAD_SECONDS:g} seconds"
            )
        if future.exception() is not None:
            return f"{worker.name} died while it loaded the model"
        problem = future.result().get("problem")
        return None if problem is None else f"{worker.name}: {problem}"

    async def _commit(self, workers: list[Worker], model_id: str, share: float | None) -> None:
        """Swap in all workers. One that does not answer is replaced by one that will."""
        committed = [worker.expect(coordination.COMMITTED) for worker in workers]
        for worker in workers:
            worker.channel.send(coordination.COMMIT, model_id=model_id, share=share)
        await asyncio.wait(committed, timeout=_ACCEPTED_SECONDS)
        for worker, future in zip(workers, committed, strict=True):
            if not future.done() or future.exception() is not None:
                logger.error("%s did not confirm the swap, ending it", worker.name)
                worker.ready = False
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()
                    await worker.process.wait()

    async def _stop_workers(self) -> None:
        logger.info("Stopping")
        processes = [worker.process for worker in self._workers.values()]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        ended = [asyncio.create_task(process.wait()) for process in processes]
        if ended:
            await asyncio.wait(ended, timeout=_STOP_SECONDS)
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def bind(environment: ServiceEnvironment) -> socket.socket:
    """The listening socket, after waiting for the workers of a parent that was killed.

    Raises `PortInUseError` if something else keeps the port.
    """
    until = time.monotonic() + _BIND_PATIENCE_SECONDS
    family = socket.AF_INET6 if ":" in environment.host else socket.AF_INET
    while True:
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((environment.host, environment.port))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            if time.monotonic() > until:
                raise PortInUseError(
                    f"cannot listen on {environment.host}:{environment.port}: {error.strerror}; "
                    "set RECSYS_SERVICE_PORT to a free port, or end what listens there"
                ) from error
            time.sleep(0.25)
        else:
            return listening
