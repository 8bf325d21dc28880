"""The staging area: events that the service acknowledged, and files that the shop dropped.

``data/staging/events/`` holds one open segment of JSON lines a writing process. A refresh seals the
segments (renames them, under the lock that writers hold while they append), reads them, and, once a
version that contains them is published, moves their rows to ``data/raw/events/<source>/``, and the
review files of ``data/staging/files/`` to ``data/raw/dropped/<source>/``. It always reads
everything, and rows that it meets twice count once: whenever a process dies, nothing is lost.

Where state is shared (`recsys.storage`), every machine hands in its segments, under names that
nobody else uses, and its dropped files; a refresh copies them to ``data/staging/collected/``.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from recsys import schema
from recsys.errors import InputError
from recsys.publishing import sha256_of, sync, write_text
from recsys.settings import Settings
from recsys.storage import open_store

EVENT_ID = schema.EVENT
RECEIVED_AT = schema.RECEIVED
OF_RATINGS = (EVENT_ID, schema.USER, schema.PRODUCT, schema.RATING, schema.COMMENT)
OF_SIGNALS = (
    *(schema.KIND, schema.QUANTITY, schema.VALUE),
    *(schema.RECOMMENDATION, schema.PLACEMENT, schema.SESSION),
)
"""What a line has beside its times, as text: of the latter what is known. Without a kind, as before
there were signals, it is a rating."""

STAGING_KEY = "data/staging"
SEALED_KEY = f"{STAGING_KEY}/sealed"
FILES_KEY = f"{STAGING_KEY}/files"
RAW_KEY = "data/raw"

QUARANTINE_BYTES = 16 << 20
QUARANTINE_SECONDS = 86_400.0

_SUFFIX = ".jsonl"
_IGNORED_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload")

_MARK = re.compile(r"^[0-9a-f]{12}-")  # of a file that was handed in, see `hand_in_files`
_LONGEST_NAME = 200  # bytes, of 255

# macOS has no fdatasync.
_sync = getattr(os, "fdatasync", os.fsync)

_lock = threading.Lock()
_writers: dict[tuple[Path, int], "_SegmentWriter"] = {}


def open_segments(settings: Settings) -> Path:
    """Folder of the segments that may still be written to."""
    return settings.staging / "events"


def sealed_segments(settings: Settings) -> Path:
    """Folder of the segments that no one writes to any more."""
    return settings.staging / "sealed"


def folders_to_read(settings: Settings) -> tuple[Path, Path]:
    """Of the sealed segments and the dropped files that a refresh may archive: all machines'."""
    shared = open_store(settings).shared
    staging = settings.staging / "collected" if shared else settings.staging
    return staging / "sealed", staging / "files"


def dropped_files(folder: Path) -> list[Path]:
    """Review files that the shop put into `folder`. Hidden files and those named like unfinished
    copies (``.tmp``, ``.part``) are left alone."""
    found: list[Path] = []
    with contextlib.suppress(FileNotFoundError):  # what else cannot be listed is an error
        found = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    return [path for path in found if path.suffix not in _IGNORED_SUFFIXES and path.is_file()]


def waiting_files(settings: Settings) -> dict[str, int]:
    """The dropped files that no refresh has archived yet, of all machines: name -> when it changed
    (ns since the epoch; where state is shared, 0). A file has one name, handed in or not."""
    store, found = open_store(settings), dict[str, int]()
    for path in dropped_files(settings.staging / "files"):
        with contextlib.suppress(FileNotFoundError):  # a refresh has just taken it
            found[path.name] = path.stat().st_mtime_ns
    if not store.shared:
        return found
    return dict.fromkeys((_MARK.sub("", name) for name in {*found, *store.files(FILES_KEY)}), 0)


def marked_name(mark: str, name: str) -> str:
    """`mark` before the name of a file, whose end is cut, up to its suffixes, where it would be too
    long for a file system, or for the name of an unfinished copy."""
    suffix = "".join(re.findall(r"(?:\.\w{1,8}){0,2}$", name))
    spare = _LONGEST_NAME - len(f"{mark}{suffix}".encode())
    return mark + name.removesuffix(suffix).encode()[:spare].decode(errors="ignore") + suffix


def append_events(settings: Settings, events: Iterable[Mapping[str, Any]]) -> int:
    """Store events for the next refresh; they are on the disk when this returns.

    They have ``event_id`` and ``product_id``; a rating, which is the default ``kind``, ``user_id``
    and ``rating``, another kind ``user_id`` or ``session_id``; and, if known, ``timestamp`` (aware
    `datetime` or ISO 8601; now by default) and the others of `OF_RATINGS` and `OF_SIGNALS`. An id
    stands for one event: sent again, with whatever content, it counts once. Returns how many there
    were. Raises `InputError`, and stores none, if an event lacks what it needs; `OSError` if they
    cannot be written: some may then be stored, and it is safe to send them again.
    """
    received = datetime.now(UTC).isoformat()
    lines = [_line(event, received) for event in events]
    if lines:
        _writer(open_segments(settings)).append("".join(lines).encode("utf-8"))
    return len(lines)


def write_past_events(settings: Settings, events: Iterable[Mapping[str, Any]]) -> int:
    """Store events of the past as one sealed segment, as if each had been received at its
    ``received_at`` (ISO 8601). Returns how many there were. Raises like `append_events`; all are
    stored or none."""
    lines = [_line(event, event[RECEIVED_AT]) for event in events]
    if lines:
        write_text(sealed_segments(settings) / f"past-{uuid4().hex}{_SUFFIX}", "".join(lines))
    return len(lines)


def quarantine_events(settings: Settings, events: Iterable[Mapping[str, Any]]) -> None:
    """Keep events that are not plausible where people can read them, in
    ``data/quarantine/interactions/``. No refresh reads them. Raises like `append_events`. What is
    sent again is written once a segment, which ends after `QUARANTINE_BYTES` or
    `QUARANTINE_SECONDS`, so that it can grow old and be removed."""
    writer = _writer(settings.quarantine / "interactions")
    writer.roll(QUARANTINE_BYTES, QUARANTINE_SECONDS)
    received = datetime.now(UTC).isoformat()
    fresh = {}
    for event in events:
        key = tuple(str(event.get(name)) for name in (*OF_RATINGS, *OF_SIGNALS))
        if key not in writer.written:
            fresh[key] = _line(event, received)
    if fresh:
        writer.append("".join(fresh.values()).encode("utf-8"))
        writer.written.update(fresh)


def seal_segments(settings: Settings) -> None:
    """Take all open segments away from their writers, who begin new ones with the next event."""
    folder, target = open_segments(settings), sealed_segments(settings)
    if not folder.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    for segment in folder.glob(f"*{_SUFFIX}"):
        # The service and a refresh on this machine may seal the same one.
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as opened:
            descriptor = os.open(segment, os.O_RDONLY)
            opened.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_size == 0:
                segment.unlink()
            else:
                segment.rename(target / segment.name)
    sync(target)
    sync(folder)


def hand_in_segments(settings: Settings) -> None:
    """Seal the segments of this machine and, where state is shared, pass them on. An event is on
    this machine's disk or in the store at any moment, and for a moment in both."""
    seal_segments(settings)
    store = open_store(settings)
    if store.shared:
        for segment in sealed_segments(settings).glob(f"*{_SUFFIX}"):
            # The service and a refresh on this machine may hand in the same one.
            with contextlib.suppress(FileNotFoundError):
                if segment.is_file():  # else it is somebody's folder
                    store.share(f"{SEALED_KEY}/{segment.name}")
                    segment.unlink()


def hand_in_files(settings: Settings) -> None:
    """Pass on the files that the shop dropped on this machine, where state is shared; everywhere,
    quote names that no list could name, as those that are not UTF-8."""
    store = open_store(settings)
    for file in dropped_files(settings.staging / "files"):
        with contextlib.suppress(FileNotFoundError):
            if not file.name.isprintable() or "\\" in file.name:
                name = marked_name(f"{uuid4().hex[:8]}-", quote(os.fsencode(file.name)))
                file = file.rename(file.with_name(name))
            if store.shared:
                # The same name is dropped again tomorrow, or on another machine.
                mark = f"{sha256_of(file)[:12]}-"
                if not file.name.startswith(mark):
                    file = file.rename(file.with_name(marked_name(mark, file.name)))
                size = file.stat().st_size
                store.share(f"{FILES_KEY}/{file.name}")
                if file.stat().st_size == size:  # else somebody was still writing it
                    file.unlink()


def collect_staging(settings: Settings) -> None:
    """Copy what all machines handed in to where this one reads it."""
    store = open_store(settings)
    if store.shared:
        shutil.rmtree(settings.staging / "collected", ignore_errors=True)
        for name in ("sealed", "files"):
            store.mirror(f"{STAGING_KEY}/{name}", f"{STAGING_KEY}/collected/{name}")


def segment_lines(segment: Path) -> list[str]:
    """The complete lines of a segment; an unfinished last one was never acknowledged. Bytes that
    cannot be decoded become surrogates. Raises `OSError` if it cannot be read."""
    content = segment.read_bytes()
    return content[: content.rfind(b"\n") + 1].decode("utf-8", "surrogateescape").split("\n")[:-1]


def _line(event: Mapping[str, Any], received: str) -> str:
    said = event.get
    texts = {name: "" if (value := said(name)) is None else str(value) for name in OF_RATINGS}
    for name in OF_SIGNALS:
        if (value := said(name)) is not None and value != "":
            texts[name] = str(value)
    kind = texts.setdefault(schema.KIND, "rating")
    needed = (schema.USER, schema.RATING) if kind == "rating" else ()
    if missing := [name for name in (EVENT_ID, schema.PRODUCT, *needed) if not texts[name]]:
        raise InputError(f"the {kind} {texts[EVENT_ID]!r} lacks {missing[0]}")
    if not texts[schema.USER] and schema.SESSION not in texts:
        raise InputError(
            f"the {kind} {texts[EVENT_ID]!r} lacks {schema.USER} and {schema.SESSION}: "
            "expected one of them"
        )
    when = event.get(schema.TIMESTAMP) or received
    record = {
        **texts,
        schema.TIMESTAMP: when.isoformat() if isinstance(when, datetime) else str(when),
        RECEIVED_AT: received,
    }
    # Escaped line separators keep one record on one line, whoever splits the lines.
    return json.dumps(record, ensure_ascii=True) + "\n"


def _writer(folder: Path) -> "_SegmentWriter":
    with _lock:  # a forked child must not share its parent's segment
        return _writers.setdefault((folder, os.getpid()), _SegmentWriter(folder))


class _SegmentWriter:
    """Appends to a segment of this process, and to a new one when a refresh took the old one."""

    def __init__(self, folder: Path) -> None:
        self._folder = self._path = folder
        self._thread_lock = threading.Lock()
        self._descriptor: int | None = None
        self._opened = 0.0
        self.written: set[tuple[str, ...]] = set()
        """What the present segment has, for those who ask."""

    def roll(self, most_bytes: int, most_seconds: float) -> None:
        """Begin another segment if this one is large, old or gone."""
        with self._thread_lock:
            if self._descriptor is not None:
                status = os.fstat(self._descriptor)
                ended = not status.st_nlink or status.st_size >= most_bytes
                if ended or time.monotonic() - self._opened >= most_seconds:
                    self._close(self._descriptor)

    def append(self, content: bytes) -> None:
        with self._thread_lock:
            descriptor = self._open()
            while not self._is_written(descriptor, content):
                self._close(descriptor)
                descriptor = self._open()

    def _is_written(self, descriptor: int, content: bytes) -> bool:
        """Write to the segment, unless somebody has taken it away."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            before = os.fstat(descriptor)
            if not before.st_nlink or not self._path.exists():
                return False
            try:
                while content:
                    content = content[os.write(descriptor, content) :]
                _sync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, before.st_size)
                raise
            return True
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _open(self) -> int:
        if self._descriptor is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"{os.getpid()}-{uuid4().hex}{_SUFFIX}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL
            self._descriptor = os.open(self._path, flags, 0o640)
            sync(self._folder)
            self._opened = time.monotonic()
        return self._descriptor

    def _close(self, descriptor: int) -> None:
        os.close(descriptor)
        self._descriptor = None
        self.written.clear()
