"""Interactions sent to the service: on their way to the disk, and until a model knows them.

The staging area is their durable home, and the next data refresh takes them from there. The
service's own view of them is a SQLite database, so that they count at once in every worker process
and after a restart.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from recsys.data.staging import append_events
from recsys.database import connect, transaction
from recsys.settings import Settings
from serving.shared import ChangeSign

logger = logging.getLogger(__name__)

Event = dict[str, Any]
"""``event_id, user_id, product_id, rating, timestamp`` (aware), ``comment``."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  product_id TEXT NOT NULL, rating REAL NOT NULL, time INTEGER NOT NULL, received REAL NOT NULL);
CREATE INDEX IF NOT EXISTS events_of_user ON events (user_id, number);
"""
_OF_USER = "SELECT product_id, rating, time FROM events WHERE user_id = ? ORDER BY number"
DAY = 86_400
_LOOK_SECONDS = 0.1


class LiveEvent(NamedTuple):
    """One interaction; `time` in seconds since 1970."""

    product_id: str
    rating: float
    time: int


class LiveEvents:
    """The events of the last days by user. Methods are safe to call from any thread.

    Few users have any, and asking SQLite for the others would cost more than their list does: a
    sign in memory that all workers share tells when there are new ones. What another service on
    the same state wrote is noticed within a tenth of a second, by the database's own version.
    """

    def __init__(self, path: Path, keep_days: float, changes: ChangeSign) -> None:
        self._keep = keep_days * DAY
        self._changes = changes
        self._seen_sign: int | None = None
        self._seen_version: int | None = None
        self._next_look = 0.0
        self._last_number = 0
        self._users: set[str] = set()
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._writer = connect(path, shared=True)
        self._writer.executescript(_SCHEMA)
        # A connection of its own: reading never waits for a commit.
        self._reader = connect(path, shared=True)
        self._reader.row_factory = None

    def add(self, events: Iterable[tuple[str, str, str, float, int]]) -> None:
        """Store ``(event_id, user_id, product_id, rating, time)``; known event ids are ignored."""
        received = time.time()
        with self._writing, transaction(self._writer) as connection:
            connection.executemany(
                "INSERT INTO events (event_id, user_id, product_id, rating, time, received) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING",
                [(*event, received) for event in events],
            )
        # After the commit: whoever sees the sign finds the events.
        self._changes.make()

    def of(self, user_id: str) -> tuple[LiveEvent, ...]:
        """The events of a user, in the order they came."""
        sign, moment = self._changes.current(), time.monotonic()
        if sign != self._seen_sign or (moment > self._next_look and self._others_wrote()):
            self._read_new_users()
            self._seen_sign = sign
        if moment > self._next_look:
            self._next_look = moment + _LOOK_SECONDS
        if user_id not in self._users:
            return ()
        with self._reading:
            rows = self._reader.execute(_OF_USER, (user_id,)).fetchall()
        return tuple(LiveEvent(*row) for row in rows)

    def _others_wrote(self) -> bool:
        """Whether any other connection has written since the last call."""
        with self._reading:
            [version] = self._reader.execute("PRAGMA data_version").fetchone()
            seen, self._seen_version = self._seen_version, version
        return bool(version != seen)

    def _read_new_users(self) -> None:
        with self._reading:
            rows = self._reader.execute(
                "SELECT user_id, max(number) FROM events WHERE number > ? GROUP BY user_id",
                (self._last_number,),
            ).fetchall()
        self._users.update(user_id for user_id, _ in rows)
        self._last_number = max((number for _, number in rows), default=self._last_number)

    def prune(self) -> None:
        """Forget what is older than the configured days."""
        with self._writing, transaction(self._writer) as connection:
            connection.execute("DELETE FROM events WHERE received < ?", (time.time() - self._keep,))

    def close(self) -> None:
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()


class Intake:
    """Stores events durably. One write to the disk serves all requests that wait for it."""

    def __init__(self, settings: Settings, live: LiveEvents) -> None:
        self._settings = settings
        self._live = live
        self._waiting: list[tuple[list[Event], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def store(self, events: list[Event]) -> None:
        """Returns when the events survive a power cut. Raises `OSError` if they may not."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, stored))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        await stored

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            events = [event for some, _ in group for event in some]
            failure: Exception | None = None
            try:
                await asyncio.to_thread(self._write, events)
            except Exception as error:
                # Whoever waits gets it: nothing of the group is acknowledged.
                logger.exception("Interactions could not be stored | events=%d", len(events))
                failure = error
            for _, stored in group:
                if stored.done():
                    continue
                if failure is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(failure)

    def _write(self, events: list[Event]) -> None:
        append_events(self._settings, events)
        self._live.add(
            (
                event["event_id"],
                event["user_id"],
                event["product_id"],
                event["rating"],
                int(event["timestamp"].timestamp()),
            )
            for event in events
        )
