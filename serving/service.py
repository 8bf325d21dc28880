"""What the routes work with: one object a worker process, made at start, closed at the end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from recsys.settings import Settings
from serving.config import ServiceEnvironment, ServingConfig
from serving.coordination import Coordinator
from serving.engine import Engine
from serving.inbox import Inbox
from serving.live import LiveEvents
from serving.request_log import RequestLog
from serving.shared import Counters

SLOW_THREADS = 2

Result = TypeVar("Result")


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
    inbox: Inbox
    requests: RequestLog
    started_at: float = field(default_factory=time.time)
    slow: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(SLOW_THREADS, thread_name_prefix="scoring")
    )

    async def compute(self, inline: bool, work: Callable[..., Result], *arguments: Any) -> Result:
        """`work(*arguments)`: on the event loop if it is quick (`inline`), else beside it."""
        if inline:
            return work(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.slow, work, *arguments)

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
