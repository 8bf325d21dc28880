"""What the routes work with: one object a worker process, made at start, closed at the end."""

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from recsys.settings import Settings
from serving.config import ServiceEnvironment, ServingConfig
from serving.coordination import Coordinator
from serving.engine import Engine
from serving.live import LiveEvents
from serving.request_log import RequestLog
from serving.shared import Counters

SLOW_THREADS = 2


@dataclass
class Service:
    """The parts of a running worker."""

    settings: Settings
    config: ServingConfig
    environment: ServiceEnvironment
    engine: Engine
    coordinator: Coordinator
    slot: int
    counters: Counters
    live: LiveEvents
    requests: RequestLog
    started_at: float = field(default_factory=time.time)
    slow: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="scoring")
    )

    def close(self) -> None:
        self.slow.shutdown(wait=True, cancel_futures=True)
        self.requests.close()
        self.live.close()


@dataclass(frozen=True)
class WorkerPlace:
    """A worker's place among the others.

    Attributes
    ----------
    slot
        Its number; worker 0 does what one process has to do for all.
    shared_memory
        Descriptor of `serving.shared` memory.
    join
        Called at start: loads the model that all serve, returns when requests may come.
    """

    slot: int
    shared_memory: int
    coordinator: Coordinator
    join: Callable[[Service], Awaitable[None]]
