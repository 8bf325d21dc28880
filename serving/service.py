"""What the routes work with: one object a worker process, made at start, closed at the end."""

import asyncio
import functools
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from mmap import mmap
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

from fastapi import Depends, Request

from recsys.config import load_config
from recsys.data.config import DataConfig
from recsys.data.sources import id_rules
from recsys.errors import InputError
from recsys.experiments.definitions import HOLDOUT, Side
from recsys.ids import IdRules
from recsys.merchandising.live_events import live_database
from recsys.merchandising.placements import Placement
from recsys.merchandising.recommending import Recommended, Snapshot
from recsys.merchandising.rule_warnings import RuleWarning, warnings_of
from recsys.privacy import PrivacyConfig
from recsys.pseudonyms import load_pseudonyms
from recsys.request_log import Answered, RequestLog
from recsys.schedule import load_log_format, load_zone
from recsys.settings import Settings
from serving.config import ServiceEnvironment, ServingConfig
from serving.engine import Coordinator, Engine
from serving.forgotten import FollowedForgotten
from serving.impressions import FollowedImpressions
from serving.interactions import Intake, LiveEvents
from serving.problems import ProblemError
from serving.rules import FollowedPlacements, FollowedRules
from serving.served import Recorder
from serving.shared import ChangeSign, Counters

logger = logging.getLogger(__name__)

SLOW_THREADS = 2
NO_MODEL = (
    "No model is being served yet: none was trained and deployed, or none of them can be loaded, "
    "and the service's log says why."
)

Result = TypeVar("Result")


class Service:
    """The parts of a running worker, without a model yet; interactions before `earliest` are
    nobody's. Worker 0 (`slot`) does what one process has to do for all."""

    def __init__(
        self,
        settings: Settings,
        config: ServingConfig,
        environment: ServiceEnvironment,
        coordinator: Coordinator,
        memory: mmap,
        slot: int,
    ) -> None:
        self.settings, self.config, self.environment = settings, config, environment
        self.coordinator, self.slot = coordinator, slot
        self.forgotten = FollowedForgotten(settings)
        self.rules = rules = FollowedRules(settings)
        self.places = places = FollowedPlacements(settings)
        self.impressions = impressions = FollowedImpressions(settings, lambda: places.current)
        self.engine = Engine(
            *(settings, config),
            lambda: places.current.placements,
            lambda: rules.current,
            lambda: impressions.current,
        )
        self.counters = Counters(memory, slot)
        self.live = LiveEvents(
            live_database(settings), config.live_interaction_days, ChangeSign(memory)
        )
        self.intake = Intake(settings, config, self.live, self.counters)
        self.ids = _read_or(IdRules(), lambda: id_rules(settings))
        data = _read_or(DataConfig(), lambda: load_config(settings, DataConfig))
        self.earliest = data.earliest_time
        log_file = settings.logs / "service" / "recommender.log"
        self.zone = load_zone(settings)
        self.requests = RequestLog(
            *(settings.service_db, log_file, self.zone),
            functools.cache(lambda: load_pseudonyms(settings).of),
            load_config(settings, PrivacyConfig).pseudonymous_logs,
            load_log_format(settings),
        )
        self.served = Recorder(settings, config, self.ids, self.counters, places)
        self.started_at = time.time()
        self.slow, self.bulk = ThreadPoolExecutor(SLOW_THREADS), ThreadPoolExecutor(SLOW_THREADS)

    @property
    def placements(self) -> Mapping[str, Placement]:
        """What the file says at the moment of the places in the shop."""
        return self.places.current.placements

    async def compute(self, inline: bool, work: Callable[..., Result], *arguments: Any) -> Result:
        """`work(*arguments)`: on the event loop if it is quick (`inline`), else beside it."""
        if inline:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self.slow, work, *arguments)

    async def compute_many(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """`work(*arguments)` for many users, where no single list waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self.bulk, work, *arguments)

    async def read_log(self, read: Callable[..., Result], *arguments: Any) -> Result:
        """What `read` finds in the request log. Raises a 503 problem if it cannot be read."""
        try:
            return await self.compute_many(read, self.settings.service_db, *arguments)
        except sqlite3.Error as error:
            raise ProblemError(503, f"The request log cannot be read: {error}.") from error

    def snapshot(self) -> Snapshot:
        """The snapshot in service. Raises a 503 problem if none is."""
        return self.answering(None)[0]

    def answering(self, unit: str | None, placement: str = "") -> tuple[Snapshot, Side | None]:
        """The snapshot that answers `unit` and the side it is on, see `Engine.answering`. Raises a
        503 problem if no model is in service."""
        snapshot, side = self.engine.answering(unit, placement)
        if snapshot is None:
            raise ProblemError(503, NO_MODEL, {"Retry-After": "60"})
        return snapshot, side

    def rule_warnings(self) -> list[RuleWarning]:
        """What the rules in service ask for and will not get; none without a model, as nobody knows
        what the shop has."""
        snapshot = self.engine.snapshot
        if snapshot is None:
            return []
        return warnings_of(
            self.rules.current.rules,
            snapshot.catalogue,
            self.placements,
            datetime.now(UTC),
            since=snapshot.since,
            also_placements=self.config.placements,
        )

    def close(self) -> None:
        """Write what waits, and end all threads."""
        self.bulk.shutdown(wait=True, cancel_futures=True)
        self.slow.shutdown(wait=True, cancel_futures=True)
        self.requests.close()
        self.served.close()
        self.live.close()


def _read_or(default: Result, read: Callable[[], Result]) -> Result:
    """A mistake in the refresh's configuration must not stop the service."""
    try:
        return read()
    except InputError as error:
        logger.error("How data is read cannot be told, the defaults count | reason=%s", error)
        return default


async def _service_of(request: Request) -> Service:
    # Not awaited for anything: FastAPI would send a plain function to a thread.
    service: Service = request.app.state.service
    return service


Running = Annotated[Service, Depends(_service_of)]
"""The service, as a parameter of a route."""


@dataclass(slots=True)
class Note:
    """Logs the request that is answered in its ``with`` block, with the error if it ends with one.

    `latency_ms` is there when the block is left."""

    service: Service
    endpoint: str
    topk: int | None = None
    user_id: object = None
    made: Recommended | None = None
    model_id: str | None = None
    known: bool | None = None
    side: Side | None = None
    latency_ms: float = 0.0
    _own: str | None = None  # `Snapshot.own`
    _started: float = 0.0

    @property
    def held_out(self) -> bool:
        """Whether the customer gets what is popular, for comparison."""
        return self.side is not None and self.side.experiment == HOLDOUT

    def of(self, snapshot: Snapshot, side: Side | None = None) -> Snapshot:
        """Remember which model answers, on which side of which experiment, and whether the model
        knows the customer."""
        self.model_id, self.side, self._own = snapshot.model_id, side, snapshot.own
        if self.user_id is not None:
            self.known = snapshot.position(str(self.user_id)) is not None
        return snapshot

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: object, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.latency_ms = (time.perf_counter() - self._started) * 1000
        made, user = self.made, None if self.user_id is None else str(self.user_id)
        method = made.fallback_method if made else None
        # What is popular is no fallback of those who are to get it: where it is deployed, or a
        # customer is held out, no model has failed.
        fallback = None if made is None else method != self._own and not self.held_out
        asked = (time.time(), self.endpoint, user, self.topk, round(self.latency_ms, 3))
        status, error = (200, None) if fault is None else _outcome(fault)
        if fallback is not None:
            whose, how = "known" if self.known else "unknown", "fallback" if fallback else "model"
            self.service.counters.tally(f"{whose}_by_{how}")
        answered = Answered(*asked, fallback, method, error, self.model_id, status, self.known)
        self.service.requests.add(answered)


def _outcome(fault: BaseException) -> tuple[int, str]:
    """Status of the answer to a request that ended with `fault`, and what the log says of it."""
    if isinstance(fault, ProblemError):
        return fault.status_code, fault.detail
    # A cancelled request is one that took too long: the guard answers it.
    return 503 if isinstance(fault, asyncio.CancelledError) else 500, type(fault).__name__
