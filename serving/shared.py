"""Numbers that all workers share: one piece of memory, made by the parent, mapped by each.

A limit or a counter that every process keeps for itself would allow, or show, only a part."""

import hashlib
import ipaddress
import mmap
import os
import tempfile
import threading
import time
from bisect import bisect_left
from pathlib import Path

_CLIENT_SLOTS = 16_384  # a power of two
_CLIENT_FIELDS = 4  # fingerprint, minute, what was counted in it and in the minute before
_PROBES = 4
_MINUTE = 60.0

MAX_WORKERS = 64
ENDPOINTS = (
    *("/recommend", "/batch_recommend", "/similar_items", "/bought_together", "/search"),
    "/interactions",
    *("/health", "/model_info", "/stats", "/metrics", "/reload_model", "/canary", "/demo"),
    *("/rules", "/rules/preview", "other"),
)
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
BUCKETS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)
TALLIES = (
    *("lists_recorded", "lists_dropped", "lists_empty"),
    *("known_by_model", "known_by_fallback", "unknown_by_model", "unknown_by_fallback"),
    *("events_accepted", "events_rejected", "events_left_out", "events_implausible"),
)
"""What is counted beside the requests."""
_FIELDS = len(STATUS_CLASSES) + len(BUCKETS_MS) + 2  # ... the bucket above all, the sum
_WORKER_FIELDS = len(ENDPOINTS) * _FIELDS

_CLIENT_BYTES = _CLIENT_SLOTS * _CLIENT_FIELDS * 8
_COUNTER_BYTES = MAX_WORKERS * _WORKER_FIELDS * 8
# Requests of clients, bytes of clients, counters of requests, tallies, the sign of changes.
_COUNTERS_AT = 2 * _CLIENT_BYTES
_TALLIES_AT = _COUNTERS_AT + _COUNTER_BYTES
_SIGN_AT = _TALLIES_AT + MAX_WORKERS * len(TALLIES) * 8
SIZE = _SIGN_AT + 8


def create() -> int:
    """A file descriptor of new shared memory, for `attach` here and in child processes: a file
    without a name, in memory where the system has a place for that. Raises `OSError`."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
    with tempfile.TemporaryFile(dir=place) as file:
        # Room is taken now: a page that finds none later would kill the process that touches it.
        file.write(bytes(SIZE))
        file.flush()
        return os.dup(file.fileno())


def attach(descriptor: int | None) -> mmap.mmap:
    """The memory behind `descriptor`; memory of this process alone if there is none."""
    return mmap.mmap(-1 if descriptor is None else descriptor, SIZE)


class ClientLimit:
    """What each client has had in the last minute, over all workers: a sliding window from two
    counters. Workers count without locks: a request in a million may go uncounted, which a limit
    can bear. Of very many clients at once the ones seen least lately are forgotten."""

    def __init__(self, memory: mmap.mmap, per_minute: int, *, of_bytes: bool = False) -> None:
        self._limit = per_minute
        start = _CLIENT_BYTES if of_bytes else 0
        self._cells = memoryview(memory)[start : start + _CLIENT_BYTES].cast("q")
        self._places: dict[str, tuple[int, int]] = {}

    def allows(self, client: str, amount: int = 1) -> bool:
        """Count `amount` for `client`; False if it has had its share."""
        if not self._limit:
            return True
        now = time.time() / _MINUTE
        minute = int(now)
        cells, place = self._cells, self._place_of(client, minute)
        if passed := minute - cells[place + 1]:
            before = cells[place + 2] if passed == 1 else 0
            cells[place + 3], cells[place + 2], cells[place + 1] = before, 0, minute
        if cells[place + 2] + cells[place + 3] * (1 - (now - minute)) >= self._limit:
            return False
        cells[place + 2] += amount
        return True

    def _place_of(self, client: str, minute: int) -> int:
        known = self._places.get(client)
        if known is None:
            digest = hashlib.blake2b(_counted_as(client).encode(), digest_size=16).digest()
            fingerprint = int.from_bytes(digest[:8], "little", signed=True) or 1
            known = (fingerprint, int.from_bytes(digest[8:], "little"))
            if len(self._places) >= _CLIENT_SLOTS:
                self._places.clear()
            self._places[client] = known
        (fingerprint, start), cells = known, self._cells
        oldest, oldest_minute = 0, minute + 1
        for probe in range(_PROBES):
            place = ((start + probe) % _CLIENT_SLOTS) * _CLIENT_FIELDS
            if cells[place] == fingerprint:
                return place
            if cells[place + 1] < oldest_minute:
                oldest, oldest_minute = place, cells[place + 1]
        cells[oldest] = fingerprint
        cells[oldest + 1], cells[oldest + 2], cells[oldest + 3] = minute, 0, 0
        return oldest


class Counters:
    """Requests by endpoint and outcome, and `TALLIES`. Each worker writes its own row; reading adds
    them up."""

    def __init__(self, memory: mmap.mmap, slot: int) -> None:
        self._cells = memoryview(memory)[_COUNTERS_AT:_TALLIES_AT].cast("d")
        self._tallies = memoryview(memory)[_TALLIES_AT:_SIGN_AT].cast("Q")
        self._places = {name: slot * len(TALLIES) + at for at, name in enumerate(TALLIES)}
        self._tallying = threading.Lock()  # lists are made in several threads
        self._base = slot * _WORKER_FIELDS
        self._offsets = {path: number * _FIELDS for number, path in enumerate(ENDPOINTS)}

    def count(self, path: str, status: int, milliseconds: float) -> None:
        """One answered request."""
        place = self._base + self._offsets.get(path, self._offsets["other"])
        cells = self._cells
        cells[place + status // 100 - 1] += 1
        cells[place + len(STATUS_CLASSES) + bisect_left(BUCKETS_MS, milliseconds)] += 1
        cells[place + _FIELDS - 1] += milliseconds

    def of(self, path: str) -> tuple[list[float], list[float], float]:
        """Over all workers: requests by status class, by bucket (not cumulated), sum of ms."""
        first = self._offsets[path]
        places = range(first, first + MAX_WORKERS * _WORKER_FIELDS, _WORKER_FIELDS)
        rows = [self._cells[place : place + _FIELDS].tolist() for place in places]
        total = [sum(column) for column in zip(*rows, strict=True)]
        classes = len(STATUS_CLASSES)
        return total[:classes], total[classes:-1], total[-1]

    def tally(self, name: str, amount: int = 1) -> None:
        """`amount` more of what `TALLIES` calls so."""
        with self._tallying:
            self._tallies[self._places[name]] += amount

    def count_lists(self, recorded: int = 0, dropped: int = 0) -> None:
        """So many more served lists were written down, or found no room."""
        self.tally("lists_recorded", recorded)
        self.tally("lists_dropped", dropped)

    def tallied(self, name: str) -> int:
        """How many there were over all workers."""
        return sum(self._tallies[TALLIES.index(name) :: len(TALLIES)].tolist())


class ChangeSign:
    """Tells all workers that something which they keep a copy of has changed."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._cell = memoryview(memory)[_SIGN_AT:].cast("q")

    def current(self) -> int:
        """A number that is another one after every change."""
        return self._cell[0]

    def make(self) -> None:
        self._cell[0] = time.time_ns()


def _counted_as(client: str) -> str:
    """`client`, of an IPv6 address the network: a customer has 2**64 addresses of one."""
    kind, _, address = client.rpartition(" ")
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return client
    if parsed.ipv4_mapped is not None:
        return f"{kind} {parsed.ipv4_mapped}".strip()
    return f"{kind} {ipaddress.ip_network((int(parsed) >> 64 << 64, 64))}"
