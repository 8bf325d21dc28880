"""Interactions sent to the service: on their way to the disk, and until a model knows them.

The staging area is their durable home, from where the next data refresh takes them. By a SQLite
database, which may be lost, they count at once in every worker and after a restart, and an event
that is sent again, or another one under its id, is known."""

import asyncio
import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recsys.data.staging import append_events, quarantine_events
from recsys.database import HelperDatabase, transaction
from recsys.merchandising.live_events import GUEST, USERS, events_of
from recsys.merchandising.recommending import LiveEvent
from recsys.schema import Kind
from recsys.settings import Settings
from serving.config import ServingConfig
from serving.shared import ChangeSign, Counters

logger = logging.getLogger(__name__)

Event = dict[str, Any]
"""What `recsys.data.staging.append_events` takes, ``timestamp`` aware, and ``digest``: of what the
sender wrote."""

Known = dict[str, str | None]
Counted = defaultdict[str, Counter[str]]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL,
  product_id TEXT NOT NULL, rating REAL NOT NULL, time INTEGER NOT NULL, received REAL NOT NULL,
  digest TEXT, kind TEXT NOT NULL DEFAULT 'rating');
CREATE TABLE IF NOT EXISTS daily (
  day INTEGER, kind TEXT, id TEXT, events INTEGER NOT NULL, PRIMARY KEY (day, kind, id)
) WITHOUT ROWID;
"""
# Of a customer with many thousand of one sort the newest of the other are found at once. The index
# of before is the two in one.
_INDEXES = """
CREATE INDEX IF NOT EXISTS looks_of_user ON events (user_id, number)
  WHERE kind IN ('click', 'view');
CREATE INDEX IF NOT EXISTS others_of_user ON events (user_id, number)
  WHERE kind NOT IN ('click', 'view');
DROP INDEX IF EXISTS events_of_user;
"""
_ADDED = {"digest": "TEXT", "kind": "TEXT NOT NULL DEFAULT 'rating'"}
"""Columns that databases of earlier versions lack."""

_INSERT = (
    "INSERT INTO events (event_id, user_id, product_id, rating, time, received, digest, kind) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (event_id) DO NOTHING"
)
_COUNT = (
    "INSERT INTO daily (day, kind, id, events) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (day, kind, id) DO UPDATE SET events = events + excluded.events"
)
_KNOWN = "SELECT event_id, digest FROM events WHERE event_id IN (SELECT value FROM json_each(?))"
_TODAY = (
    "SELECT id, events FROM daily WHERE day = ? AND kind = ? "
    "AND id IN (SELECT value FROM json_each(?))"
)
_NEW_USERS = "SELECT user_id, max(number) FROM events WHERE number > ? GROUP BY user_id"
_FIRST_SINCE = "SELECT number FROM events WHERE received >= ? ORDER BY number LIMIT 1"
_REMOVE = """
DELETE FROM events WHERE number IN (
  SELECT number FROM events WHERE number < ? ORDER BY number LIMIT ?)
"""
_REMOVE_LOOKS = """
DELETE FROM events WHERE number IN (
  SELECT number FROM events WHERE number < ? AND kind IN ('click', 'view') ORDER BY number LIMIT ?)
"""
DAY = 86_400
_LOOK_DAYS = 1.0
"""Days that clicks and views count here. They come a hundred times as often as purchases, and
little is lost with them; the refresh has them."""

_PRUNED_AT_ONCE = 20_000  # others write in between
_LOOK_SECONDS = 0.1
_READ_SECONDS = 1.0
_AFTER_FAILURE_SECONDS = 5.0  # a locked database must not cost each request its second
USER, PRODUCT = "user", "product"
_LOOKS = ".looks"
_SORTS = {
    kind.value: (USER, PRODUCT)
    if kind in (Kind.RATING, Kind.PURCHASE)
    else (USER + _LOOKS, PRODUCT + _LOOKS)
    for kind in Kind
}
"""What counts an event of each kind."""
MOST_WAITING = 50_000
"""Interactions that may wait in a worker while the disk hangs, some 50 MB; more are refused."""

LOOKS_A_PURCHASE = 25
"""A shop's customers put into the cart, click, view and dismiss some 25 to 50 times for each
purchase; so many times as many of those are plausible."""

_in_one_form = json.JSONEncoder(sort_keys=True, ensure_ascii=True).encode


def guest(session_id: str) -> str:
    """Who is known by a session (in the one spelling) alone, for `LiveEvents`."""
    return GUEST + session_id


def _counters(event: Event) -> tuple[tuple[str, str], tuple[str, str]]:
    """Under what the event is counted: its customer and its product, each with their sort."""
    user, product = _SORTS[event.get("kind", "rating")]
    who = event["user_id"] or guest(event["session_id"])
    return (user, who), (product, event["product_id"])


class LiveEvents:
    """The events of the last days by user. Methods are safe to call from any thread.

    Few users have any, and asking SQLite for the others would cost more than their list does: a
    sign in shared memory tells of new ones. What another service on the same state wrote is noticed
    within a tenth of a second, by the database's own version."""

    def __init__(self, path: Path, keep_days: float, changes: ChangeSign) -> None:
        self._keep, self._changes = keep_days * DAY, changes
        self._seen_sign: int | None = None
        self._seen_version: int | None = None
        self._next_look = 0.0
        self._last_number = 0
        self._users: set[str] = set()
        self._looking = threading.Lock()
        self._failed = False
        # Reading never waits for a commit.
        self._written = HelperDatabase(path, _prepare)
        self._read = HelperDatabase(path, _prepare, timeout=_READ_SECONDS)
        self.has("")  # opens it now, and not beside the first requests

    def seen_before(self, events: list[Event]) -> tuple[Known, Counted]:
        """What the known ones of `events` were sent with, by id (None of events of an earlier
        version), and the events since midnight (UTC) of their users and products. Raises
        `sqlite3.Error` or `OSError`."""
        asked = json.dumps([event["event_id"] for event in events])
        counted, day = Counted(Counter), int(time.time() // DAY)
        wanted = defaultdict[str, set[str]](set)
        for event in events:
            for what, one in _counters(event):
                wanted[what].add(one)
        with self._written.use() as database:
            known = dict(map(tuple, database.execute(_KNOWN, (asked,))))
            for what, ones in wanted.items():
                rows = database.execute(_TODAY, (day, what, json.dumps(list(ones))))
                counted[what] = Counter(dict(map(tuple, rows)))
        return known, counted

    def add(self, events: Iterable[Event]) -> None:
        """Take the events in; known event ids are ignored. Raises `sqlite3.Error` or `OSError`."""
        received, day = time.time(), int(time.time() // DAY)
        rows, counted = [], defaultdict[tuple[str, str], int](int)
        for event in events:
            customer, product = _counters(event)
            counted[customer] += 1
            counted[product] += 1
            time_of_it, stars = int(event["timestamp"].timestamp()), event["rating"] or 0.0
            about = (event["event_id"], customer[1], product[1], stars, time_of_it, received)
            rows.append((*about, event.get("digest"), event.get("kind", "rating")))
        with self._written.use() as database, transaction(database):
            database.executemany(_INSERT, rows)
            database.executemany(_COUNT, [(day, *key, count) for key, count in counted.items()])
        # After the commit: whoever sees the sign finds the events.
        self._changes.make()

    def has(self, user_id: str) -> bool:
        """Whether there are events of the user."""
        sign, moment = self._changes.current(), time.monotonic()
        if moment > self._next_look or (sign != self._seen_sign and not self._failed):
            self._look(sign, moment)
        return user_id in self._users

    def has_any(self, who: tuple[str, ...]) -> bool:
        """Whether there are events of any of these users and guests."""
        return any(map(self.has, who))

    def of_all(self, who: tuple[str, ...]) -> tuple[LiveEvent, ...]:
        """The newest events of these users and guests."""
        return tuple(event for one in who for event in self.of(one))

    def of(self, user_id: str) -> tuple[LiveEvent, ...]:
        """The newest events of a user, in the order they came; none if they cannot be read."""
        if not self.has(user_id):
            return ()
        try:
            with self._read.use() as database:
                return events_of(database, user_id)
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
            return ()

    def _look(self, sign: int, moment: float) -> None:
        """Notice users with new events, this service's and others'."""
        with self._looking:
            self._next_look = moment + (_AFTER_FAILURE_SECONDS if self._failed else _LOOK_SECONDS)
            try:
                with self._read.use() as database:
                    [version] = database.execute("PRAGMA data_version").fetchone()
                    if sign == self._seen_sign and version == self._seen_version:
                        return
                    [last] = database.execute("SELECT max(number) FROM events").fetchone()
                    if (last or 0) < self._last_number:
                        # The database was made again.
                        self._users, self._last_number = set(), 0
                    if self._last_number:
                        rows = database.execute(_NEW_USERS, (self._last_number,)).fetchall()
                    else:  # of all, by the indexes: a day may have millions of looks
                        rows = [(user, last) for [user] in database.execute(USERS)]
            except (sqlite3.Error, OSError) as error:
                self._fail(error)
                return
            self._users.update(user_id for user_id, _ in rows)
            self._last_number = max((number for _, number in rows), default=self._last_number)
            self._seen_sign, self._seen_version, self._failed = sign, version, False

    def _fail(self, error: Exception) -> None:
        if not self._failed:
            logger.error("Interactions cannot be read, lists do without | error=%s", error)
        self._failed = True

    def prune(self) -> None:
        """Forget what is older than the configured days. Raises `sqlite3.Error` or `OSError`."""
        now = time.time()
        self._remove(_REMOVE, now - self._keep)
        self._remove(_REMOVE_LOOKS, now - _LOOK_DAYS * DAY)
        with self._written.use() as database:
            database.execute("DELETE FROM daily WHERE day < ?", (int(now // DAY) - 1,))
        self.forget()

    def _remove(self, remove: str, before: float) -> None:
        """Remove events received `before`, a few at a time: whoever stores some waits meanwhile."""
        with self._written.use() as database:
            found = database.execute(_FIRST_SINCE, (before,)).fetchone()
        first = found[0] if found else 2**62
        removed = _PRUNED_AT_ONCE
        while removed == _PRUNED_AT_ONCE:
            with self._written.use() as database, transaction(database):
                done = database.execute(remove, (first, _PRUNED_AT_ONCE))
                removed = done.rowcount

    def forget(self) -> None:
        """Forget users whose events were all pruned, by whichever worker. Raises as `prune`."""
        number, gone = self._last_number, set(self._users)
        with self._written.use() as database:
            found = database.execute(USERS)
            gone.difference_update(user for [user] in found)
        with self._looking:
            self._users -= gone
            # Some may have come back meanwhile: the next look reads on from here.
            self._last_number, self._seen_version = min(number, self._last_number), None

    def close(self) -> None:
        self._written.close()
        self._read.close()


def _prepare(connection: sqlite3.Connection) -> None:
    connection.executescript(_SCHEMA)
    if _lacking(connection):
        with transaction(connection):
            for name in _lacking(connection):
                connection.execute(f"ALTER TABLE events ADD COLUMN {name} {_ADDED[name]}")
    connection.executescript(_INDEXES)
    # Are they our tables?
    connection.execute(f"EXPLAIN {_INSERT}", [None] * 8)
    connection.execute(f"EXPLAIN {_COUNT}", [None] * 4)


def _lacking(connection: sqlite3.Connection) -> list[str]:
    there = {row["name"] for row in connection.execute("PRAGMA table_info(events)")}
    return [name for name in _ADDED if name not in there]


def digest_of(content: Any) -> str:
    """Tells apart what was sent under one id."""
    return hashlib.blake2b(_in_one_form(content).encode(), digest_size=16).hexdigest()


class Intake:
    """Stores events durably. One write to the disk serves all requests that wait for it."""

    def __init__(
        self, settings: Settings, config: ServingConfig, live: LiveEvents, counters: Counters
    ) -> None:
        self._settings, self._live, self._counters = settings, live, counters
        self._limits = {
            USER: config.max_events_of_user_per_day,
            PRODUCT: config.max_events_of_product_per_day,
        }
        self._waiting: list[tuple[list[Event], asyncio.Future[list[str | None]]]] = []
        self._writer: asyncio.Task[None] | None = None
        self.implausible = 0
        """Events that went to quarantine, in this process."""

    async def store(self, events: list[Event]) -> list[str | None]:
        """For each event None, or why it is not taken. Those that are taken survive a power cut.
        Raises `OSError` if they may not; nothing is promised of any then."""
        if sum(len(some) for some, _ in self._waiting) > MOST_WAITING:
            raise OSError(f"more than {MOST_WAITING} interactions wait for the disk")
        stored: asyncio.Future[list[str | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, stored))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return await stored

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            events = [event for some, _ in group for event in some]
            try:
                reasons = iter(await asyncio.to_thread(self._write, events))
            except Exception as error:
                # Whoever waits gets it: nothing of the group is acknowledged.
                logger.exception("Interactions could not be stored | events=%d", len(events))
                for _, stored in group:
                    if not stored.done():
                        stored.set_exception(error)
                continue
            for some, stored in group:
                mine = [next(reasons) for _ in some]
                if not stored.done():
                    stored.set_result(mine)

    def _write(self, events: list[Event]) -> list[str | None]:
        try:
            known, counted = self._live.seen_before(events)
        except (sqlite3.Error, OSError) as error:
            # The refresh counts each id once, whatever is known here.
            logger.error("It is not known which interactions were sent before | error=%s", error)
            known, counted = {}, Counted(Counter)
        fresh: list[Event] = []
        implausible: list[Event] = []
        reasons: list[str | None] = []
        for event in events:
            reason = None
            if event["event_id"] in known:
                if known[event["event_id"]] not in (None, event["digest"]):
                    reason = "event_id: another event was sent under this id"
            elif reason := self._excess(event, counted):
                implausible.append(event)
            else:
                fresh.append(event)
                known[event["event_id"]] = event["digest"]
                for what, one in _counters(event):
                    counted[what][one] += 1
            reasons.append(reason)
        append_events(self._settings, fresh)
        if implausible:
            self.implausible += len(implausible)
            self._counters.tally("events_implausible", len(implausible))
            quarantine_events(self._settings, implausible)
        if fresh:
            try:
                self._live.add(fresh)
            except (sqlite3.Error, OSError) as error:
                # They are on the disk: they count from the next refresh on.
                logger.error("Interactions do not count at once | error=%s", error)
        return reasons

    def _excess(self, event: Event, counted: Counted) -> str | None:
        for name, (what, one) in zip((USER, PRODUCT), _counters(event), strict=True):
            limit, events = self._limits[name], "events"
            if what.endswith(_LOOKS):
                limit, events = limit * LOOKS_A_PURCHASE, "carts, clicks, views and dismissals"
            if limit and counted[what][one] >= limit:
                name = "session" if one.startswith(GUEST) else name
                many = f"more than {limit} {events} of one {name} in a day"
                return f"{name}_id: {many} are not plausible; it is kept in quarantine"
        return None
