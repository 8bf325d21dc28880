"""What is written down beside the requests, which wait for no disk: a queue and its thread."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

FLUSH_SECONDS = 0.5
"""What a killed process loses at most."""

_BATCH = 250  # few: while they are put into words, requests wait for the interpreter
_LONGEST_END_SECONDS = 10.0


class Backlog(ABC, Generic[Item]):
    """Takes items from any thread without blocking; a thread, which begins with the object, writes
    them in batches. What cannot be written waits and is tried again; of more than `most` items the
    newest are dropped and counted. `what` people call them."""

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self._queue: deque[Item] = deque()
        self.dropped = 0
        self._failure: tuple[float, str] | None = None  # since when, and the last error
        self._wake, self._stop = threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        return len(self._queue)

    @property
    def problem(self) -> tuple[float, str] | None:
        """For how many seconds nothing could be written, and the error; None if all is well."""
        failure = self._failure
        return failure and (time.monotonic() - failure[0], failure[1])

    def add(self, item: Item) -> bool:
        """Take the item; False if it found no room."""
        if len(self._queue) >= self._most:
            self.dropped += 1
            return False
        self._queue.append(item)
        if len(self._queue) >= _BATCH:
            self._wake.set()
        return True

    def flush(self) -> bool:
        """Write what is pending. Returns False if it could not be written."""
        with self._writing:
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                if not self._try(batch):
                    self._queue.extendleft(reversed(batch))
                    return False
        return True

    def close(self) -> None:
        """Write everything and stop the thread."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=_LONGEST_END_SECONDS)
        self.flush()

    @abstractmethod
    def _write(self, batch: list[Item]) -> None:
        """Write the batch, all of it or nothing; raises whatever is in the way."""

    def _written(self, batch: list[Item]) -> None:
        """Called with what was written."""

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            self.flush()

    def _try(self, batch: list[Item]) -> bool:
        try:
            self._write(batch)
        except Exception as error:
            if self._failure is None:
                logger.exception("Cannot be written down and waits in memory | %s", self._what)
            since = self._failure[0] if self._failure else time.monotonic()
            self._failure = (since, str(error))
            # Do not spin while the disk is full or the database locked.
            self._stop.wait(FLUSH_SECONDS)
            return False
        self._failure = None
        self._written(batch)
        return True
