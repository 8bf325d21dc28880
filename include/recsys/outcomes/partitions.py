"""Served lists by day: ``data/served/day=YYYY-MM-DD/*.parquet``, days of the schedule's time zone.

`take_over` moves there what the writers of all machines sealed (`recsys.served_lists`). The
metadata of a file names the segments whose lists of the day are in it. A segment that is met again,
because a job was killed before it could remove it, adds nothing to a day that names it. Two
machines that take over at the same moment write two files that name the same segments; `read_lists`
sees that, and takes each list once.

A file that was written again without somebody's lists names the one before, which nobody reads
any more, and which is removed wherever it is met: other machines have copies.

A file that is damaged is set aside in ``data/quarantine/served`` where it is met, unless the store
has a sound copy of it; an empty file in its place says how many lists are lost with it. That counts
until the damaged file's name is there again, from a backup."""

import contextlib
import errno
import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from recsys.alerting import Alert, AlertManager, Severity
from recsys.errors import InputError
from recsys.outcomes.config import OutcomesConfig
from recsys.privacy import load_forgotten
from recsys.publishing import atomic_path
from recsys.retention import Removal, Retention, remove_path
from recsys.schedule import load_zone
from recsys.schema import PLACEMENT, RECOMMENDATION, SESSION, USER
from recsys.served_lists import (
    SEALED_KEY,
    SERVED_KEY,
    SUFFIX,
    Columns,
    Segment,
    hand_in_lists,
    read_segment,
    sealed_lists,
)
from recsys.settings import Settings
from recsys.storage import Store, open_store

logger = logging.getLogger(__name__)

TIME: Final = "time"
PRODUCTS: Final = "products"
SCHEMA: Final = pa.schema(
    [
        (RECOMMENDATION, pa.binary(16)),
        (TIME, pa.timestamp("us", "UTC")),
        *((name, pa.string()) for name in (USER, SESSION, PLACEMENT)),
        *((name, pa.string()) for name in ("endpoint", "model_id", "fallback_method")),
        *((name, pa.string()) for name in ("experiment", "variant")),
        (PRODUCTS, pa.list_(pa.string())),
        ("sources", pa.string()),
        ("propensities", pa.list_(pa.float32())),
    ]
)
"""Columns of served lists; texts are "" where there is nothing, and no `propensities` are none."""

_SEGMENTS = b"recsys_segments"  # in a file's metadata: {name of a segment: lists that it lost}
_REPLACED = b"recsys_replaced"  # in a file's metadata: names of files that it stands for
_COLLECTED_KEY = f"{SERVED_KEY}/collected"
_DAY = "day="
_MOST_LISTS = 50_000  # of a file: 100 MB of memory while it is made
_DAMAGED = "damaged/"  # before the name of a file whose lists are lost, among those of segments
_OF_THE_DATA = (None, errno.EIO, errno.EISDIR)  # OSErrors of pyarrow's about contents have no errno
DAMAGE_ALERT = "served_lists_damaged"

Result = TypeVar("Result")


class TakenOver(NamedTuple):
    """What a `take_over` did: the days that have more lists or gaps now, how many lists are new,
    and how many were served and are lost."""

    days: tuple[date, ...]
    lists: int
    lost: int


def take_over(settings: Settings) -> TakenOver:
    """Move what is sealed on this machine, and what all machines handed in, into the partitions of
    its days: each list once, whatever is killed at whichever moment. What is no segment goes to
    ``data/quarantine/served``. Raises `OSError` if something cannot be written, and can be
    repeated then."""
    hand_in_lists(settings)
    folder = settings.home / SERVED_KEY
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        partitions = _Partitions(settings)
        for path in sorted(_collected(settings).glob(f"*{SUFFIX}")):
            try:
                partitions.add(path, read_segment(path))
            except FileNotFoundError:  # another process of this machine was quicker
                continue
            except InputError as error:
                _quarantine(settings, path, error)
        return partitions.finish()


def leave_out(
    settings: Settings, owners: Callable[[pa.Table], pa.ChunkedArray]
) -> Iterator[tuple[Path, int]]:
    """Write the files of all days again without the lists that are somebody's, of tables of USER
    and SESSION; yields each file, and how many went. What waits is taken over first."""
    take_over(settings)
    with FileLock(settings.home / SERVED_KEY / ".lock"):
        for day in served_days(settings):
            heads = _read_each(settings, day, partial(_read_file, columns=[USER, SESSION]))
            for path, head in heads.items():
                theirs = pc.is_valid(owners(head))
                if gone := int(pc.sum(theirs).as_py() or 0):
                    left = _read_file(path, SCHEMA.names).filter(pc.invert(theirs))
                    before = [path.name, *_replaced_by(path)]
                    _write(settings, day, left, _segments_of(path), before)
                    yield path, gone


def read_lists(
    settings: Settings, days: Iterable[date], columns: Sequence[str] | None = None
) -> pa.Table:
    """All lists of the `days`, each once, in no particular order: the `columns` of `SCHEMA`, by
    default all. Those of damaged files are missing. Raises `OSError` if a sound one cannot be
    read."""
    wanted = SCHEMA.names if columns is None else list(columns)
    tables = [pa.schema([SCHEMA.field(name) for name in wanted]).empty_table()]
    for day in days:
        tables += _read_day(settings, day, wanted)
    return pa.concat_tables(tables)


def lost_lists(settings: Settings, days: Iterable[date]) -> dict[date, int]:
    """How many lists of each day were served and are lost, as far as that was noticed."""
    return {day: sum(_named(settings, day).values()) for day in days}


def served_days(settings: Settings) -> list[date]:
    """The days that have partitions, here or on another machine, in order."""
    names = {name.split("/")[0] for name in open_store(settings).files(SERVED_KEY)}
    names |= {path.name for path in (settings.home / SERVED_KEY).glob(f"{_DAY}*")}
    return sorted(day for name in names if (day := _day_of(name)) is not None)


def look_at_all(settings: Settings) -> None:
    """Where state is shared, have the lists of all machines here: those of days, and, in ``seen``,
    those that wait."""
    store = open_store(settings)
    if store.shared:
        store.see(SEALED_KEY, f"{SERVED_KEY}/seen")
        for day in served_days(settings):
            store.mirror(_key(day), _key(day))


def served_stamps(settings: Settings) -> dict[date, str]:
    """What tells whether the lists of a day are still those of before: the names of its files,
    which stand for what is in them."""
    found: dict[date, set[str]] = {}
    root = settings.home / SERVED_KEY
    local = {f"{path.parent.name}/{path.name}" for path in root.glob(f"{_DAY}*/[!.]*.parquet")}
    for key in open_store(settings).files(SERVED_KEY) | local:
        folder, _, name = key.partition("/")
        if name.endswith(".parquet") and (day := _day_of(folder)) is not None:
            found.setdefault(day, set()).add(name)
    return {day: " ".join(sorted(names)) for day, names in sorted(found.items())}


def prune_served(settings: Settings, config: OutcomesConfig, removal: Removal) -> None:
    """Let `removal` remove the days that are older than ``keep_served_days``, and what nobody took
    over in that time."""
    age = timedelta(days=config.keep_served_days)
    today = datetime.now(load_zone(settings)).date()
    root = settings.home / SERVED_KEY

    def old_days() -> list[Path]:
        return [root / f"{_DAY}{day}" for day in served_days(settings) if day < today - age]

    segments = partial(sealed_lists(settings).glob, f"*{SUFFIX}")
    removal.execute(
        [
            Retention("served lists", root, old_days, remove=partial(_remove_day, settings)),
            Retention("served segments", sealed_lists(settings), segments, age),
        ]
    )
    if not removal.dry_run:
        open_store(settings).discard_older(SEALED_KEY, datetime.now(UTC) - age)


class _Partitions:
    """Collects lists by day, and writes them when there are many."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._store = settings, open_store(settings)
        self._zone = load_zone(settings)
        self._forgotten = load_forgotten(settings)
        self._known: dict[date, dict[str, int]] = {}
        self._waiting: dict[date, list[pa.Table]] = {}
        self._naming: dict[date, dict[str, int]] = {}
        self._segments: list[Path] = []
        self._lists = self._waiting_lists = self._lost = 0
        self._days: set[date] = set()

    def add(self, path: Path, segment: Segment) -> None:
        """Take what its days do not have yet, but for lists of the forgotten: they waited while
        somebody asked for that."""
        tables = {
            day: table.filter(pc.invert(self._forgotten.mask(table[USER].cast(pa.large_string()))))
            for day, table in _by_day(segment.blocks, self._zone)
        }
        last = max(tables) if tables else _moment(segment.began_at, self._zone).date()
        if segment.lost:
            tables.setdefault(last, SCHEMA.empty_table())
        for day, table in tables.items():
            if path.name not in self._known_of(day):
                lost = segment.lost if day == last else 0
                self._naming.setdefault(day, {})[path.name] = lost
                self._waiting.setdefault(day, []).append(table)
                self._waiting_lists += len(table)
        self._segments.append(path)
        if self._waiting_lists >= _MOST_LISTS:
            self._commit()

    def finish(self) -> TakenOver:
        """Write the rest."""
        self._commit()
        return TakenOver(tuple(sorted(self._days)), self._lists, self._lost)

    def _known_of(self, day: date) -> dict[str, int]:
        """The segments that the files of a day name, of which each is in the store afterwards."""
        if day not in self._known:
            self._known[day] = _named(self._settings, day)
            key = _key(day)
            there = self._store.files(key)
            for path in _files(self._settings, day):
                if path.name not in there:  # killed before it was shared
                    self._store.share(f"{key}/{path.name}")
        return self._known[day]

    def _commit(self) -> None:
        """Write what waits; then the segments are not needed any more."""
        for day, naming in self._naming.items():
            table = pa.concat_tables(self._waiting[day])
            _write(self._settings, day, table, naming)
            self._known[day] |= naming
            self._days.add(day)
            self._lists += len(table)
            self._lost += sum(naming.values())
        for path in self._segments:
            path.unlink(missing_ok=True)
            self._store.discard(f"{SEALED_KEY}/{path.name}")
        self._waiting, self._naming, self._segments = {}, {}, []
        self._waiting_lists = 0


def _collected(settings: Settings) -> Path:
    """The folder of all sealed segments, of all machines."""
    store = open_store(settings)
    if not store.shared:
        return sealed_lists(settings)
    folder = settings.home / _COLLECTED_KEY
    shutil.rmtree(folder, ignore_errors=True)
    store.mirror(SEALED_KEY, _COLLECTED_KEY)
    return folder


def _quarantine(settings: Settings, path: Path, error: InputError) -> None:
    _tell_of_damage(settings, path, None, error)
    _move_away(settings, path, path.name)
    open_store(settings).discard(f"{SEALED_KEY}/{path.name}")


def _by_day(blocks: Sequence[Columns], zone: ZoneInfo) -> Iterator[tuple[date, pa.Table]]:
    if not blocks:
        return
    table = pa.concat_tables([table_of(block) for block in blocks])
    local = pc.local_timestamp(table[TIME].cast(pa.timestamp("us", str(zone))))
    days = local.cast(pa.date32(), safe=False)
    for day in pc.unique(days).to_pylist():
        yield day, table.filter(pc.equal(days, day))


def table_of(block: Columns) -> pa.Table:
    """The lists of a block, with the columns of `SCHEMA`."""
    texts = {"user_id", "session_id", "fallback_method"}
    columns: dict[str, Any] = block._asdict()
    columns |= {name: [text or "" for text in columns[name]] for name in texts}
    columns["propensities"] = [drawn or () for drawn in block.propensities]
    moments = pa.array([int(moment * 1e6) for moment in block.time], pa.int64())
    arrays = [columns.pop("id"), moments.cast(SCHEMA.field(TIME).type)]
    arrays += [columns[name] for name in SCHEMA.names[2:]]
    return pa.table(arrays, schema=SCHEMA)


def _moment(seconds: float, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(seconds, zone)


def _key(day: date) -> str:
    return f"{SERVED_KEY}/{_DAY}{day}"


def _day_of(name: str) -> date | None:
    if name.startswith(_DAY):
        with contextlib.suppress(ValueError):
            return date.fromisoformat(name.removeprefix(_DAY))
    return None


def _write(
    settings: Settings,
    day: date,
    table: pa.Table,
    naming: Mapping[str, int],
    replaced: Sequence[str] = (),
) -> None:
    """Add a file to a day, here and in the store; those that it has `replaced` go."""
    key = f"{_key(day)}/{_name_of(naming, len(table))}"
    with atomic_path(settings.home / key) as temporary:
        metadata = {_SEGMENTS: json.dumps(naming)}
        metadata |= {_REPLACED: json.dumps(replaced)} if replaced else {}
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    open_store(settings).share(key)
    for name in replaced:
        _remove_file(settings, day, name)


def _name_of(naming: Mapping[str, int], lists: int) -> str:
    """The same for the same segments. It says how many lists are lost with the file."""
    text = "\n".join(sorted(naming))
    digest = hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
    return f"{digest}-{lists + sum(naming.values())}.parquet"


def _lists_in(path: Path) -> int | None:
    """How many lists a file stands for, by its name or by what can still be read of it."""
    _, dash, count = path.stem.rpartition("-")
    if dash and count.isdecimal():
        return int(count)
    with contextlib.suppress(OSError, pa.ArrowException):
        return int(pq.read_metadata(path).num_rows)
    return None


def _remove_file(settings: Settings, day: date, name: str) -> None:
    (settings.home / _key(day) / name).unlink(missing_ok=True)
    open_store(settings).discard(f"{_key(day)}/{name}")


def _files(settings: Settings, day: date) -> list[Path]:
    """The files of a day, as far as this machine or any other has them."""
    open_store(settings).mirror(_key(day), _key(day))
    found = {path.name: path for path in (settings.home / _key(day)).glob("[!.]*.parquet")}
    for name in {name for path in found.values() for name in _replaced_by(path)} & found.keys():
        _remove_file(settings, day, name)
        del found[name]
    return sorted(found.values())


def _replaced_by(path: Path) -> list[str]:
    """The files that this one stands for; of one that cannot be read its readers tell."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        names: list[str] = json.loads(metadata.get(_REPLACED, b"[]"))
        return names
    except (pa.ArrowException, ValueError, OSError):
        return []


def _read_each(
    settings: Settings,
    day: date,
    read: Callable[[Path], Result],
    files: Iterable[Path] | None = None,
) -> dict[Path, Result]:
    """What `read` makes of each of the `files` of a day, by default all. What it raises
    `InputError` for is set aside, and all are read again."""
    found: dict[Path, Result] = {}
    for path in _files(settings, day) if files is None else files:
        try:
            found[path] = read(path)
        except FileNotFoundError:  # another process has set it aside
            continue
        except InputError as error:
            _set_aside(settings, day, path, error)
            return _read_each(settings, day, read)
    return found


def _named(settings: Settings, day: date) -> dict[str, int]:
    """The segments that the files of a day name, and what each lost. So do files that are not there
    any more, with all that was in them."""
    files = _read_each(settings, day, _segments_of)
    there = {f"{_DAMAGED}{path.name}" for path in files}
    found = {name: lost for named in files.values() for name, lost in named.items()}
    return {name: lost for name, lost in found.items() if name not in there}


def _segments_of(path: Path) -> dict[str, int]:
    with _explained(path):
        metadata = pq.read_schema(path).metadata or {}
        named: dict[str, int] = json.loads(metadata.get(_SEGMENTS, b"{}"))
        return named


def _read_day(settings: Settings, day: date, wanted: list[str]) -> list[pa.Table]:
    files = _read_each(settings, day, _segments_of)
    named = [name for of in files.values() for name in of]
    overlapping = len(named) > len(set(named))
    needed = list(dict.fromkeys([*wanted, RECOMMENDATION])) if overlapping else wanted
    read = partial(_read_file, columns=needed)
    tables = list(_read_each(settings, day, read, files).values())
    if overlapping and tables:
        table = pa.concat_tables(tables)
        again = pd.Series(table[RECOMMENDATION].to_pylist()).duplicated()
        tables = [table.filter(pa.array(~again)).select(wanted)]
    return tables


def _read_file(path: Path, columns: list[str]) -> pa.Table:
    expected = pa.schema([SCHEMA.field(name) for name in columns])
    # Not `read_table`, which would make a column of the folder's name.
    with _explained(path), pq.ParquetFile(path) as file:
        table = file.read(columns).replace_schema_metadata(None)
        if not table.schema.equals(expected):
            raise pa.ArrowInvalid(f"expected the columns {', '.join(columns)} as we write them")
        return table


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raises `InputError` for what is wrong with the contents of a file."""
    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _OF_THE_DATA:
            raise
        raise InputError(f"{path}: cannot be read: {error}") from error


def _set_aside(settings: Settings, day: date, path: Path, error: InputError) -> None:
    """Move a damaged file of a day away. A sound copy in the store takes its place, else its lists
    are lost: that is on record and told before it is gone, so that no kill makes it silent."""
    store, name = open_store(settings), f"{day}.{path.name}"
    if store.shared and path.name in store.files(_key(day)):
        _move_away(settings, path, name)
        if _is_sound(settings, day, path):
            logger.warning("Served lists were damaged, fetched again | reason=%s", error)
            return
    lost = _lists_in(path)
    naming = {f"{_DAMAGED}{path.name}": lost or 0}
    _write(settings, day, SCHEMA.empty_table(), naming)
    _tell_of_damage(settings, path, lost, error)
    _move_away(settings, path, name)
    store.discard(f"{_key(day)}/{path.name}")


def _is_sound(settings: Settings, day: date, path: Path) -> bool:
    """Whether the store's copy of a file can be read; it is here afterwards."""
    if path not in _files(settings, day):
        return False
    with contextlib.suppress(InputError):
        _segments_of(path)
        _read_file(path, SCHEMA.names)
        return True
    return False


def _move_away(settings: Settings, path: Path, name: str) -> None:
    target = settings.quarantine / "served" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target = target.with_name(f"{uuid.uuid4().hex[:6]}.{name}")
    with contextlib.suppress(FileNotFoundError):
        shutil.move(path, target)


def _tell_of_damage(settings: Settings, path: Path, lost: int | None, error: InputError) -> None:
    """Once for each file; that it cannot be told is logged."""
    logger.error("Served lists are set aside | lost=%s, reason=%s", lost, error)
    file = path.relative_to(settings.home).as_posix()
    count = "unknown" if lost is None else str(lost)
    message = f"{file} was damaged and is set aside in data/quarantine/served; lists lost: {count}"
    facts = {"file": file, "lost": count, "reason": str(error)}
    tell_once(settings, Alert(DAMAGE_ALERT, message, Severity.WARNING, facts=facts), file)


def tell_once(settings: Settings, alert: Alert, about: str) -> None:
    """Deliver an alert `about` something once; that it cannot be told is logged."""
    once = replace(alert, key=f"{alert.name}:{about}", until_resolved=True, event=True)
    try:
        AlertManager(settings).deliver(once)
    except Exception:
        logger.exception("The alert could not be sent | alert=%s", alert.name)


def _remove_day(settings: Settings, path: Path) -> bool:
    store: Store = open_store(settings)
    key = f"{SERVED_KEY}/{path.name}"
    for name in store.files(key):
        store.discard(f"{key}/{name}")
    return remove_path(path)
