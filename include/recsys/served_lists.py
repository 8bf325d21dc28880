"""Lists that the service gave, on their way to the day partitions of `recsys.outcomes`.

``data/served/open/`` has one segment a writing process, which holds the file's lock for as long as
it lives. A segment is a header and blocks, each with its length, a checksum, and compressed columns
of some lists. Every minute the writer moves it to ``data/served/sealed/`` and goes on
with the next; for a writer that died, `seal_lists` does.

**No loss is silent.** Lists are numbered in the order in which a writer took them. The header says
after which number the segment begins, and in memory that is mapped from the file, which outlives a
killed process, how many the writer has taken. What a segment lost is what lies between its
beginning and its end and is in no sound block: `Segment.lost`.
"""

import contextlib
import fcntl
import logging
import mmap
import os
import random
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from recsys.backlog import Backlog
from recsys.errors import InputError
from recsys.publishing import write_bytes
from recsys.settings import Settings
from recsys.storage import open_store

logger = logging.getLogger(__name__)

SERVED_KEY = "data/served"
SEALED_KEY = f"{SERVED_KEY}/sealed"
SUFFIX = ".lists"

ROLL_SECONDS = 60.0
ROLL_BYTES = 4 << 20

_MAGIC = b"lists\x00\x01\n"
_HEADER = struct.Struct("<8sQQQd")
_BEGAN, _TAKEN, _ENDED = 1, 2, 3  # 8 bytes each, in this order behind the first
_BLOCK = struct.Struct("<II")
# Of a block's columns; a batch that is larger becomes several blocks.
_MOST_BYTES = 16 << 20
_LEVEL = 1  # more makes them hardly smaller
_MOST_PENDING = 20_000  # lists of ten: 15 MB
_MOST_SEGMENT_BYTES = 64 << 20
_TICKS = 4096  # in a millisecond, which 12 bits of an id count
_LAST_SECOND = 253_402_300_800  # the end of the year 9999
# An id is no secret; asking the system for each takes longer than all the rest of it.
_CHANCE = random.Random(os.urandom(32))  # noqa: S311
os.register_at_fork(after_in_child=lambda: _CHANCE.seed(os.urandom(32)))


class ServedList(NamedTuple):
    """One answer with products, as it is recorded. `time` is in seconds since 1970; whom it was
    for is None when unknown, texts are empty then. `sources` has one letter for each product, see
    `SOURCES`; `propensities` the probability of each, where products were drawn."""

    id: bytes
    time: float
    user_id: str | None
    session_id: str | None
    placement: str
    endpoint: str
    model_id: str
    fallback_method: str | None
    experiment: str
    variant: str
    products: tuple[str, ...]
    sources: str
    propensities: tuple[float, ...] | None = None


SOURCES = {
    "m": "model",
    "c": "content",
    "p": "popularity",
    "r": "rule",
    "e": "explore",
    "a": "again",
}
"""What put a product into a list."""


class Columns(NamedTuple):
    """Lists by column, equally long; a block is this."""

    id: list[bytes]
    time: list[float]
    user_id: list[str | None]
    session_id: list[str | None]
    placement: list[str]
    endpoint: list[str]
    model_id: list[str]
    fallback_method: list[str | None]
    experiment: list[str]
    variant: list[str]
    products: list[tuple[str, ...]]
    sources: list[str]
    propensities: list[tuple[float, ...] | None]


def new_id(moment: float) -> bytes:
    """A UUIDv7 for a list made at `moment`, in seconds since 1970; later ones are greater."""
    milliseconds, fraction = divmod(int(moment * 1000 * _TICKS), _TICKS)
    number = milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | _CHANCE.getrandbits(62)
    return number.to_bytes(16, "big")


def id_text(list_id: bytes) -> str:
    """An id as people and JSON write it.

    >>> id_text(bytes(range(16)))
    '00010203-0405-0607-0809-0a0b0c0d0e0f'
    """
    text = list_id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def encode(lists: Sequence[ServedList]) -> bytes:
    """The lists as blocks; what is no Unicode becomes question marks."""
    columns = tuple(zip(*lists, strict=True))
    try:
        content = msgspec.msgpack.encode(columns)
    except UnicodeEncodeError:
        content = msgspec.msgpack.encode(_in_unicode(columns))
    if len(content) > _MOST_BYTES and len(lists) > 1:
        half = len(lists) // 2
        return encode(lists[:half]) + encode(lists[half:])
    packed = zlib.compress(content, _LEVEL)
    return _BLOCK.pack(len(packed), zlib.crc32(packed)) + packed


class Segment(NamedTuple):
    """What is in a segment. `blocks` ends at the first that is torn. `lost` is how many lists its
    writer took and could not write; `began_at` when it began, in seconds since 1970."""

    blocks: list[Columns]
    lost: int
    began_at: float


def read_segment(path: Path) -> Segment:
    """Read a sealed segment. Raises `InputError` if it is none, `OSError` if it cannot be read."""
    if path.stat().st_size > _MOST_SEGMENT_BYTES:
        raise InputError(f"{path}: is no segment of served lists: it is larger than one gets")
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        raise InputError(f"{path}: is no segment of served lists: it is a folder") from None
    header = _header_of(content)
    if header is None:
        raise InputError(f"{path}: is no segment of served lists: its header is not ours")
    blocks = list(_blocks(content))
    end = header[_ENDED] or header[_TAKEN]
    lost = end - header[_BEGAN] - sum(len(block.id) for block in blocks)
    return Segment(blocks, max(0, lost), header[4])


def open_lists(settings: Settings) -> Path:
    """Folder of the segments that may still be written to."""
    return settings.home / SERVED_KEY / "open"


def sealed_lists(settings: Settings) -> Path:
    """Folder of the segments that no one writes to any more."""
    return settings.home / SEALED_KEY


def write_segment(settings: Settings, name: str, lists: Sequence[ServedList]) -> None:
    """Write the `lists` as a sealed segment of their own. Written again under the same `name`, with
    the same lists, they still count once: days name the segments that are in them."""
    began_at = min((one.time for one in lists), default=time.time())
    header = _HEADER.pack(_MAGIC, 0, len(lists), len(lists), began_at)
    write_bytes(sealed_lists(settings) / f"{name}{SUFFIX}", header + encode(lists))


class SegmentWriter:
    """Writes the segments of one process: `count` tells it of a list that was taken, `append`
    writes lists, `change` goes on with another segment, `close` ends. Raises `OSError` from all but
    `count`; nothing is written then.

    `turn` must be held to count; one thread writes."""

    def __init__(self, settings: Settings) -> None:
        self._open, self._sealed = open_lists(settings), sealed_lists(settings)
        self._name = uuid4().hex
        self.turn = threading.Lock()
        self._taken = 0  # lists that were counted
        self._settled = 0  # the number up to which lists are written, or were dropped
        self._segments = 0
        self._current: _Open | None = None
        # During a change of segments both count, so that at no moment a list is in neither.
        self._counters: tuple[_Open, ...] = ()

    def count(self, lists: int = 1) -> int:
        """So many more lists were taken; the number of the last."""
        self._taken += lists
        for segment in self._counters:
            segment.cells[_TAKEN] = self._taken
        return self._taken

    def begin(self) -> None:
        """Open a segment if there is none, as `append` does: what is counted from now on is known
        to be lost if the process is killed."""
        if self._current is None:
            self.change()

    def append(self, last: int, lists: Sequence[ServedList]) -> None:
        """Write the `lists`, of which the last was counted as `last`. What was counted before it
        and is not written now was dropped."""
        current = self._current
        if current is None or current.is_gone():
            current = self.change()
        current.write(encode(lists))
        self._settled = last

    def is_due(self) -> bool:
        """Whether it is time for another segment: this one is large, or has had something for a
        while."""
        return self._current is not None and self._current.is_due()

    def close(self) -> None:
        """End. What was counted and not written is lost, and told so."""
        current, self._current, self._counters = self._current, None, ()
        if current is not None:
            with contextlib.closing(current):
                current.end(self._taken, self._sealed)

    def change(self) -> "_Open":
        """Go on with another segment, which is in force when it has its name, and seal this one."""
        self._segments += 1
        name = f"{self._name}-{self._segments:08}{SUFFIX}"
        old, new = self._current, _Open(self._open, name, self._settled)
        with self.turn:
            self._counters = (*self._counters, new)
            self.count(0)
        try:
            new.appear()
        except OSError:
            with self.turn:
                self._counters = self._counters[:-1]
            new.close()
            raise
        with self.turn:
            self._counters, self._current = (new,), new
        if old is not None:
            with contextlib.closing(old), contextlib.suppress(FileNotFoundError):
                old.end(self._settled, self._sealed)
        return new


class _Open:
    """A segment with its writer; the file is locked from before it has its name."""

    def __init__(self, folder: Path, name: str, began: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._hidden = folder / name, folder / f".{name}.{uuid4().hex}.tmp"
        self._size = _HEADER.size
        self._first: float | None = None  # when something was written first
        with contextlib.ExitStack() as until_open:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            self._descriptor = os.open(self._hidden, flags, 0o640)
            until_open.callback(os.close, self._descriptor)
            until_open.callback(self._hidden.unlink)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Room is taken now: a page that finds none later would kill who touches it.
            os.write(self._descriptor, _HEADER.pack(_MAGIC, began, began, 0, time.time()))
            self._map = mmap.mmap(self._descriptor, _HEADER.size)
            until_open.pop_all()
        self.cells = memoryview(self._map).cast("Q")

    def appear(self) -> None:
        """Take the name by which others find it."""
        try:
            self._hidden.rename(self.path)
        except OSError:
            self._hidden.unlink(missing_ok=True)
            raise

    def write(self, blocks: bytes) -> None:
        """Add blocks: all, or none."""
        done = 0
        try:
            while done < len(blocks):
                done += os.pwrite(self._descriptor, blocks[done:], self._size + done)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(blocks)
        self._first = self._first or time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time for another one."""
        old = self._first is not None and time.monotonic() - self._first >= ROLL_SECONDS
        return old or self._size >= ROLL_BYTES

    def is_gone(self) -> bool:
        """Whether somebody has removed the file."""
        return not os.fstat(self._descriptor).st_nlink

    def end(self, number: int, sealed: Path) -> None:
        """Move it to where it is taken over; `number` is that of its last list."""
        self.cells[_ENDED] = number
        _seal(self._descriptor, self.path, sealed)

    def close(self) -> None:
        self.cells.release()
        self._map.close()
        os.close(self._descriptor)


class ListLog(Backlog[tuple[int, ServedList]]):
    """Records served lists from any thread without blocking; `count` is told how many more were
    ``recorded`` and ``dropped``. What is dropped counts as lost in the files as well."""

    def __init__(self, settings: Settings, count: Callable[..., None]) -> None:
        self._files, self._count = SegmentWriter(settings), count
        try:
            self._files.begin()
        except OSError as error:
            logger.error("Served lists have no file yet | error=%s", error)
        super().__init__("served lists", _MOST_PENDING)

    def record(self, served: ServedList) -> None:
        """Take one list."""
        with self._files.turn:
            taken = self.add((self._files.count(), served))
        if not taken:
            self._count(dropped=1)

    def flush(self) -> bool:
        written = super().flush()
        with self._writing:
            return written and (not self._files.is_due() or self._try([]))

    def close(self) -> None:
        super().close()
        try:
            self._files.close()
        except OSError as error:  # what is left is sealed by the next
            logger.error("Served lists were not sealed | error=%s", error)

    def _write(self, batch: list[tuple[int, ServedList]]) -> None:
        if self._files.is_due():
            self._files.change()
        if batch:
            self._files.append(batch[-1][0], [served for _, served in batch])

    def _written(self, batch: list[tuple[int, ServedList]]) -> None:
        self._count(recorded=len(batch))


def seal_lists(settings: Settings) -> None:
    """Seal the segments of writers that died."""
    folder, sealed = open_lists(settings), sealed_lists(settings)
    if not folder.is_dir():
        return
    with contextlib.ExitStack() as alone:
        # One at a time: of two segments of a writer the older one is sealed while the newer is
        # still there to tell where it ended.
        descriptor = os.open(folder, os.O_RDONLY)
        alone.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        found = sorted(folder.glob(f"*{SUFFIX}"))
        for path, following in zip(found, [*found[1:], None], strict=False):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # its writer lives
                if path.is_dir():  # somebody's; who takes over says what it is
                    path.rename(sealed / path.name)
                else:
                    _seal_dead(path, following, sealed)


def hand_in_lists(settings: Settings) -> None:
    """Seal what dead writers left and, where state is shared, pass on what is sealed. A list is on
    this machine's disk or in the store at any moment, and for a moment in both."""
    seal_lists(settings)
    store = open_store(settings)
    if store.shared:
        for segment in sealed_lists(settings).glob(f"*{SUFFIX}"):
            # The service and a job on this machine may hand in the same one.
            # A folder stays where it is.
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                store.share(f"{SEALED_KEY}/{segment.name}")
                segment.unlink()


def _seal_dead(path: Path, following: Path | None, sealed: Path) -> None:
    with contextlib.ExitStack() as opened:
        descriptor = os.open(path, os.O_RDWR)
        opened.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        header = _header_of(os.pread(descriptor, _HEADER.size, 0))
        if header is not None and not header[_ENDED]:
            end = header[_TAKEN]
            if following is not None and _writer_of(following) == _writer_of(path):
                # It was about to be moved: what it had not written went on to the next.
                after = _header_of(following.read_bytes()[: _HEADER.size])
                end = end if after is None else after[_BEGAN]
            os.pwrite(descriptor, struct.pack("<Q", end), 8 * _ENDED)
        _seal(descriptor, path, sealed)


def _seal(descriptor: int, path: Path, sealed: Path) -> None:
    """Move an ended segment; one that has nothing to tell goes."""
    header = _header_of(os.pread(descriptor, _HEADER.size, 0))
    empty = os.fstat(descriptor).st_size == _HEADER.size
    if header is not None and empty and header[_BEGAN] == header[_ENDED]:
        path.unlink()
        return
    sealed.mkdir(parents=True, exist_ok=True)
    # Not flushed to the disk: lists would wait for it, and no kill takes what the kernel has.
    path.rename(sealed / path.name)


def _writer_of(path: Path) -> str:
    return path.name.rpartition("-")[0]


def _header_of(content: bytes) -> tuple[Any, ...] | None:
    """The fields of a header, None if `content` begins with none."""
    if len(content) < _HEADER.size or not content.startswith(_MAGIC):
        return None
    return _HEADER.unpack_from(content)


def _blocks(content: bytes) -> Iterator[Columns]:
    at = _HEADER.size
    while at + _BLOCK.size <= len(content):
        length, checksum = _BLOCK.unpack_from(content, at)
        at += _BLOCK.size + length
        packed = content[at - length : at]
        if not length or len(packed) < length or zlib.crc32(packed) != checksum:
            return
        columns = _decoded(packed)
        if columns is None:
            return
        yield columns


def _decoded(packed: bytes) -> Columns | None:
    """The columns of a block, None if they are not as we write them."""
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(packed, _MOST_BYTES)
        columns = msgspec.msgpack.decode(content, type=Columns)
    except (zlib.error, msgspec.MsgspecError):
        return None
    alike = {len(column) for column in columns} == {len(columns.id)}
    sound = {len(one) for one in columns.id} == {16} and all(map(_is_a_time, columns.time))
    return columns if alike and sound and unpacking.eof else None


def _is_a_time(seconds: float) -> bool:
    return 0 <= seconds < _LAST_SECOND


def _in_unicode(value: Any) -> Any:
    """`value` with question marks for surrogates."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return tuple(map(_in_unicode, value)) if isinstance(value, tuple) else value
