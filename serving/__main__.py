"""``python -m serving``: the parent process, which keeps the workers alive and decides which model
they serve, until it is told to stop."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from recsys.config import ConfigError, load_config
from recsys.logs import log_to_output
from recsys.merchandising.placements import placements_in_force
from recsys.merchandising.served_model import remember_served
from recsys.schedule import load_log_format, load_zone
from recsys.settings import Settings, load_settings
from serving import coordination, shared
from serving.config import ServiceEnvironment, ServingConfig, read_environment
from serving.coordination import Channel, Message, spawn

logger = logging.getLogger("serving.parent")

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

    @property
    def name(self) -> str:
        return f"worker {self.slot} (pid {self.process.pid})"

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


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
        self._running: Message | None = None  # trials and broken, as workers have them
        self._stopping = asyncio.Event()
        self._memory = shared.create()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises `PortInUseError`."""
        host, port = self._environment.host, self._environment.port
        listening = await asyncio.to_thread(bind, host, port)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        workers = self._config.workers
        logger.info("Serving on http://%s:%s | workers=%s", host, port, workers)
        with listening:
            slots = range(workers)
            keepers = [asyncio.create_task(self._keep_alive(slot, listening)) for slot in slots]
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
            handed_down = (listening.fileno(), theirs.fileno(), self._memory)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "serving.worker", str(slot), *map(str, handed_down)),
                pass_fds=handed_down,
            )
            unless_started.pop_all()
        worker = self._workers[slot] = Worker(slot, process, await Channel.over(ours))
        spawn(self._let_join(worker))
        return worker

    async def _let_join(self, worker: Worker) -> None:
        """Have a new worker load the served model, then let it accept requests. One at a time: the
        first one chooses (the model served last, else the current best) for the others."""
        async with self._deciding:
            alone = not any(other.ready for other in self._workers.values())
            loaded = worker.channel.expect(coordination.READY)
            told = {"model_id": self._model_id, "choose": alone, "running": self._running}
            worker.channel.send(coordination.LOAD, **told)
            try:
                message = await asyncio.wait_for(loaded, _seconds_to_load(self._running))
            except ConnectionError:
                return
            except TimeoutError:
                # Nobody else could join or reload while one hangs.
                message = {"problem": "it took too long"}
            if message.get("problem"):
                logger.error("%s cannot load the model | %s", worker.name, message["problem"])
                worker.kill()
                return
            before, self._running = self._running, message["running"]
            self._model_id = message["model_id"]
            worker.ready = True
            worker.channel.send(coordination.GO)
            logger.info("%s joined | model_id=%s", worker.name, self._model_id)
            if before is not None and before["broken"] != self._running["broken"]:
                # The others have a model that this one could not load: nobody serves it then.
                ready = [other for other in self._workers.values() if other.ready]
                await self._switch(ready, self._running["trials"])

    async def _listen_to(self, worker: Worker) -> None:
        while (message := await worker.channel.receive()) is not None:
            if message["kind"] in (coordination.RELOAD, coordination.FOLLOW):
                spawn(self._answer(worker, message))
        worker.ready = False

    async def _answer(self, asked: Worker, message: Message) -> None:
        """Do it in all workers or in none, and tell the worker that was asked how it went."""
        async with self._deciding:
            started = time.monotonic()
            outcome: Message = {"previous_model_id": self._model_id}
            workers = [worker for worker in self._workers.values() if worker.ready]
            if message["kind"] == coordination.RELOAD:
                outcome["problem"] = await self._swap(workers, message["model_id"])
            else:
                outcome["broken"] = await self._switch(workers, message["trials"])
        asked.channel.send(
            coordination.ANSWER,
            request=message["request"],
            workers=len(workers),
            seconds=time.monotonic() - started,
            **outcome,
        )

    async def _switch(self, workers: list[Worker], trials: Message) -> dict[str, str]:
        """Have the models of experiments loaded everywhere, then let these run everywhere. Returns
        the models that some worker could not load: nobody serves these. A worker that does not
        answer is replaced by one that will."""
        seconds = _seconds_to_load({"trials": trials})
        prepare, prepared = coordination.PREPARE_TRIALS, coordination.PREPARED_TRIALS
        answers = await _ask(workers, prepare, prepared, seconds, trials=trials)
        broken: dict[str, str] = {}
        for worker, future in answers:
            if future.done() and future.exception() is None:
                broken |= future.result()["broken"]
            else:
                await self._replace(worker)
        # Whoever starts from here on comes up with these.
        self._running = {"trials": trials, "broken": broken}
        commit, committed = coordination.COMMIT_TRIALS, coordination.COMMITTED
        await self._commit(workers, commit, committed, **self._running)
        return broken

    async def _swap(self, workers: list[Worker], model_id: str) -> str | None:
        """Prepare everywhere, then commit everywhere. Returns why it did not happen, or None. A
        worker that does not confirm the swap is replaced by one that will."""
        prepare, prepared = coordination.PREPARE, coordination.PREPARED
        seconds = coordination.RELOAD_SECONDS
        answers = await _ask(workers, prepare, prepared, seconds, model_id=model_id)
        problems = sorted(filter(None, {_problem(*answer) for answer in answers}))
        if not problems:
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
        self._model_id = model_id
        commit, committed = coordination.COMMIT, coordination.COMMITTED
        await self._commit(workers, commit, committed, model_id=model_id)
        logger.info("All workers serve the model | model_id=%s", model_id)
        return None

    async def _commit(
        self, workers: list[Worker], commit: str, committed: str, **values: Any
    ) -> None:
        there = [worker for worker in workers if worker.ready]
        for worker, future in await _ask(there, commit, committed, _ACCEPTED_SECONDS, **values):
            if not future.done() or future.exception() is not None:
                await self._replace(worker)

    async def _replace(self, worker: Worker) -> None:
        """End a worker that does not do what all do; another one takes its place."""
        logger.error("%s did not take over what all serve, ending it", worker.name)
        worker.ready = False
        worker.kill()
        await worker.process.wait()

    async def _stop_workers(self) -> None:
        logger.info("Stopping")
        workers = list(self._workers.values())
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()
        ended = [asyncio.create_task(worker.process.wait()) for worker in workers]
        if ended:
            await asyncio.wait(ended, timeout=_STOP_SECONDS)
        for worker in workers:
            worker.kill()
            await worker.process.wait()


async def _ask(
    workers: list[Worker], kind: str, answer: str, seconds: float, **values: Any
) -> list[tuple[Worker, asyncio.Future[Message]]]:
    """Send all `workers` a message, and wait so long at most for the `answer` of each."""
    answers = [(worker, worker.channel.expect(answer)) for worker in workers]
    for worker in workers:
        worker.channel.send(kind, **values)
    if answers:
        await asyncio.wait([future for _, future in answers], timeout=seconds)
    return answers


def _seconds_to_load(running: Message | None) -> float:
    """That a worker has for loading everything: each model may take as long as one."""
    models = len(running["trials"]["models"]) if running else 0
    return coordination.RELOAD_SECONDS * (1 + models)


def _problem(worker: Worker, prepared: asyncio.Future[Message]) -> str | None:
    if not prepared.done():
        prepared.cancel()
        seconds = coordination.RELOAD_SECONDS
        return f"{worker.name} did not load the model within {seconds:g} seconds"
    if prepared.exception() is not None:
        return f"{worker.name} died while it loaded the model"
    problem = prepared.result().get("problem")
    return None if problem is None else f"{worker.name}: {problem}"


def bind(host: str, port: int) -> socket.socket:
    """The listening socket, after waiting for the workers of a parent that was killed. Raises
    `PortInUseError` if something else keeps the port."""
    until = time.monotonic() + _BIND_PATIENCE_SECONDS
    while True:
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            if time.monotonic() > until:
                what = f"cannot listen on {host}:{port}: {error.strerror}"
                todo = "set RECSYS_SERVICE_PORT to a free port, or end what listens there"
                raise PortInUseError(f"{what}; {todo}") from error
            time.sleep(0.25)
        else:
            return listening


def main() -> int:
    """Serve on RECSYS_SERVICE_HOST:RECSYS_SERVICE_PORT; with ``--check`` only read the settings.
    Returns the exit status."""
    try:
        settings = load_settings()
        log_to_output(load_log_format(settings), load_zone(settings))
        config = load_config(settings, ServingConfig)
        if sys.argv[1:] == ["--check"]:
            return 0
        placements_in_force(settings)  # a mistake is told once, not by every worker
        asyncio.run(Parent(settings, config, read_environment()).run())
    except (ConfigError, PortInUseError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
