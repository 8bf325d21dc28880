"""Takes out of files and tables what `recsys.traces` finds of some customers there.

A file is replaced as a whole, with the mode and the time of the one before, by which retention
goes; logs, to which others write meanwhile, get blanks over their lines instead. What is repeated
finds nothing any more. Who imports this carries Arrow."""

import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.database import BUSY_TIMEOUT_SECONDS, connect, transaction
from recsys.file_kinds import blocks_of, is_named_text, is_text, is_wide, opened
from recsys.ids import normalise_id
from recsys.personal import Erased, Forgot, Sought, names_customers, place_of
from recsys.publishing import atomic_path
from recsys.settings import Settings
from recsys.traces import (
    SQLITE,
    TABLES,
    lookup,
    owners_in_unknown,
    owners_of,
    reading,
    separator_of,
    unread,
)

FORGOTTEN: Final = "[forgotten]"
"""What stands instead of a text about somebody where a row has to stay."""

_ROWS_AT_ONCE: Final = 50_000
_BYTES_AT_ONCE: Final = 16 << 20

Owners = Callable[[pa.Table], pa.ChunkedArray]
"""Whose each row of a table is, null for those that stay."""


def from_parquet(
    settings: Settings,
    sought: Sought,
    paths: Iterable[Path],
    names: Sequence[str],
    *,
    session: str | None = None,
) -> Forgot:
    """Leave out of files of ours the rows that `traces.in_parquet` finds."""
    for path in paths:
        with reading(path) as problem:
            with pq.ParquetFile(path) as file:
                there = file.schema_arrow.names
            keys = [name for name in names if name in there]
            own = session if session in there else None
            if keys:
                columns = [*keys, *([own] if own else [])]
                owners = _owners_by(sought, keys, own)
                yield from _told(settings, path, rows_left_out(path, owners, columns))
        yield from unread(settings, path, problem)


def rows_left_out(path: Path, owners: Owners, columns: Sequence[str] | None = None) -> int:
    """Write a Parquet file again without the rows that are somebody's; `owners` needs the
    `columns`, by default all. Returns how many rows went. Raises what Arrow raises."""
    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        theirs = [
            pc.is_valid(owners(file.read_row_group(number, columns))).combine_chunks()
            for number in groups
        ]
        gone = sum(int(pc.sum(one).as_py() or 0) for one in theirs)
        if gone:
            codec = file.metadata.row_group(0).column(0).compression
            with (
                in_place_of(path) as temporary,
                pq.ParquetWriter(temporary, file.schema_arrow, compression=codec) as writer,
            ):
                for number in groups:
                    left = file.read_row_group(number).filter(pc.invert(theirs[number]))
                    if left.num_rows:
                        writer.write_table(left)
    return gone


def from_tables(
    settings: Settings, sought: Sought, path: Path, owners: Mapping[str, str]
) -> Forgot:
    """Delete the rows of a SQLite database that `traces.in_table` finds, of each table by its
    expression of an owner; their bytes are gone afterwards."""
    if not path.is_file():
        return
    with reading(path) as problem, _scrubbed(path) as database:
        for name, known in (("of_user", sought.names), ("of_session", sought.sessions)):
            database.create_function(name, 1, lookup(known), deterministic=True)
        there = {row[0] for row in database.execute(TABLES)}
        for table, owner in owners.items():
            if table in there:
                query = f"DELETE FROM {table} WHERE ({owner}) IS NOT NULL"  # noqa: S608 - ours
                with transaction(database):
                    gone = database.execute(query).rowcount
                yield from _told(settings, path, gone, table)
    yield from unread(settings, path, problem)


def from_texts_of_database(
    settings: Settings,
    sought: Sought,
    path: Path,
    only: Mapping[str, Sequence[str]] | None = None,
    *,
    keys: Collection[str] = (),
    unless: str = "FALSE",
) -> Forgot:
    """The counterpart of `traces.in_texts_of_database`: rows go that a column of customers says are
    theirs; in other texts `FORGOTTEN` stands instead, or, of JSON, what is left of it. Columns of
    `keys` stay as they are: others lead there."""
    with reading(path) as problem, _scrubbed(path) as database:
        known = {**sought.sessions, **sought.names}
        database.create_function("of_anybody", 1, lookup(known), deterministic=True)
        database.create_function("without", 1, _Cleaning(sought).of_cell, deterministic=True)
        for (table,) in database.execute(TABLES).fetchall():
            columns = [row["name"] for row in database.execute(f'PRAGMA table_info("{table}")')]
            if only is not None:
                columns = [name for name in columns if name in only.get(table, ())]
            where = f"({unless}) IS NOT TRUE" if "event" in columns else "TRUE"
            columns = [name for name in columns if name not in keys]
            with transaction(database):
                gone = sum(_rid(database, table, name, where) for name in columns)
            yield from _told(settings, path, gone, table)
    yield from unread(settings, path, problem)


def from_lines(settings: Settings, sought: Sought, paths: Iterable[Path]) -> Forgot:
    """Leave out the lines that `traces.in_lines` finds, of files packed by gzip as well."""
    for path in paths:
        with reading(path) as problem:
            gone = lines_left_out(path, lambda lines: _lines_of(sought, lines))
            yield from _told(settings, path, gone)
        yield from unread(settings, path, problem)


def lines_left_out(path: Path, gone: Callable[[list[bytes]], Collection[int]]) -> int:
    """Write a text file again without those of some lines that are `gone`, by their positions.
    Returns how many."""
    count = 0
    if any(gone(block.split(b"\n")) for block in blocks_of(path)):
        with in_place_of(path) as temporary, packed_as(path, temporary) as file:
            for block in blocks_of(path):
                lines = block.split(b"\n")
                leave = set(gone(lines))
                count += len(leave)
                left = [line for at, line in enumerate(lines) if at not in leave]
                file.write(b"".join(line + b"\n" for line in left))
    return count


def over_lines(settings: Settings, sought: Sought, paths: Iterable[Path]) -> Forgot:
    """Put blanks over the lines that `traces.in_lines` finds, in place: nothing that others write
    to the file meanwhile is lost, and each line can be looked for again. Packed files are written
    again without them."""
    for path in paths:
        if path.suffix == ".gz":
            yield from from_lines(settings, sought, [path])
            continue
        with reading(path) as problem:
            yield from _told(settings, path, _blanked(sought, path))
        yield from unread(settings, path, problem)


def from_json_lines(
    settings: Settings,
    paths: Iterable[Path],
    owner: Callable[[Mapping[str, Any]], str | None],
) -> Forgot:
    """Leave out the lines with a JSON object that is somebody's, as `owner` says."""

    def theirs(lines: list[bytes]) -> list[int]:
        return [at for at, line in enumerate(lines) if _is_theirs(line, owner)]

    for path in paths:
        with reading(path) as problem:
            yield from _told(settings, path, lines_left_out(path, theirs))
        yield from unread(settings, path, problem)


def from_csv(settings: Settings, path: Path, separator: str, owners: Owners) -> Forgot:
    """Leave out records of a CSV file with a header, byte for byte: those of `owners`, who get
    tables of texts, with the columns that the file names. A record of another length stays."""
    with reading(path) as problem:
        yield from _told(settings, path, records_left_out(path, separator, owners))
    yield from unread(settings, path, problem)


def records_left_out(
    path: Path,
    separator: str,
    owners: Owners,
    torn: Callable[[list[bytes]], Collection[int]] = lambda records: (),
) -> int:
    """See `from_csv`; `torn` says which of the records that have another length are gone as well.
    Returns how many records went. Raises `csv.Error` for what makes no records."""
    count = 0
    for write in (False, True):  # most files have nobody
        with contextlib.ExitStack() as held:
            target: IO[bytes] = io.BytesIO()
            if write:
                temporary = held.enter_context(in_place_of(path))
                target = held.enter_context(packed_as(path, temporary))
            count = 0
            for raw, gone in _records_of(path, separator, owners, torn):
                count += len(gone)
                if write:
                    target.write(b"".join(one for at, one in enumerate(raw) if at not in gone))
        if not count:
            break
    return count


def from_files(settings: Settings, sought: Sought, paths: Iterable[Path]) -> Forgot:
    """Take out of files of any kind what `traces.in_files` finds: rows of Parquet, SQLite and CSV,
    entries of JSON, lines of other texts. A JSON file that is about nobody else goes."""
    for path in paths:
        with reading(path) as problem:
            yield from _from_any_kind(settings, sought, path)
        yield from unread(settings, path, problem)


def _from_any_kind(settings: Settings, sought: Sought, path: Path) -> Forgot:
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PAR1"):
        gone = rows_left_out(path, lambda table: owners_in_unknown(sought, table)[0])
        yield from _told(settings, path, gone)
    elif head == SQLITE:
        yield from from_texts_of_database(settings, sought, path)
    elif is_wide(path):
        return  # for a person to change, as other files than texts
    elif separator := separator_of(path):
        gone = records_left_out(
            path,
            separator,
            lambda table: owners_in_unknown(sought, table)[0],
            lambda records: _lines_of(sought, records),
        )
        yield from _told(settings, path, gone)
    elif path.suffix.lower() == ".json" and (document := _document(path)) is not None:
        yield from _told(settings, path, _entries_left_out(sought, path, document))
    elif is_named_text(path) and is_text(path):
        yield from from_lines(settings, sought, [path])


def _told(settings: Settings, path: Path, records: int, table: str = "") -> Forgot:
    if records:
        yield Erased(place_of(settings, path, table), records)


@contextlib.contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A temporary file that replaces `path`; as old as that was, and for the same to read."""
    status = path.stat()
    with atomic_path(path) as temporary:
        yield temporary
        shutil.copymode(path, temporary)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))


def _owners_by(sought: Sought, names: Sequence[str], session: str | None) -> Owners:
    return lambda table: owners_of(sought, table, names, session)


# databases
@contextlib.contextmanager
def _scrubbed(path: Path) -> Iterator[sqlite3.Connection]:
    """A database in which nothing is left afterwards of what was deleted, now or before: neither in
    free pages nor in the log beside it. Raises `OSError` while somebody keeps that from going."""
    with contextlib.closing(connect(path, timeout=BUSY_TIMEOUT_SECONDS)) as database:
        yield database
        database.execute("VACUUM")
        until = time.monotonic() + BUSY_TIMEOUT_SECONDS
        # Where others write, one of them is often about to do the same: SQLite waits for no other
        # checkpoint.
        while database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > until:
                raise OSError(f"{path}: somebody reads it all the time, so that its log stays")
            time.sleep(_CHECKPOINT_SECONDS)


def _rid(database: sqlite3.Connection, table: str, column: str, where: str) -> int:
    """Rid a table of what one of its columns says; how many rows that changes."""
    if names_customers(column):
        query = f'DELETE FROM "{table}" WHERE of_anybody("{column}") IS NOT NULL AND {where}'  # noqa: S608 - names of its own
    else:
        query = f"""UPDATE OR REPLACE "{table}" SET "{column}" = without("{column}")
            WHERE typeof("{column}") = 'text' AND "{column}" IS NOT without("{column}")
            AND {where}"""  # noqa: S608 - names of its own
    return database.execute(query).rowcount


# texts
def _lines_of(sought: Sought, lines: list[bytes]) -> list[int]:
    texts = pa.array([line.decode("utf-8", "replace") for line in lines], pa.large_string())
    found = pc.indices_nonzero(pc.match_substring_regex(texts, sought.pattern)).to_pylist()
    return [at for at in found if sought.in_text(texts[at].as_py())[0]]


def _is_theirs(line: bytes, owner: Callable[[Mapping[str, Any]], str | None]) -> bool:
    try:
        content = json.loads(line)
    except ValueError:
        return False
    return isinstance(content, dict) and owner(content) is not None


def _blanked(sought: Sought, path: Path) -> int:
    count, begin = 0, 0
    with path.open("r+b") as file:  # the same one, whatever gets its name meanwhile
        while lines := file.readlines(_BYTES_AT_ONCE):
            begins = begin + np.cumsum([0, *map(len, lines)])
            for at in _lines_of(sought, lines):
                os.pwrite(file.fileno(), b" " * len(lines[at].rstrip(b"\r\n")), int(begins[at]))
                count += 1
            begin = int(begins[-1])
        os.fsync(file.fileno())
    return count


@contextlib.contextmanager
def packed_as(path: Path, target: Path) -> Iterator[Any]:
    """`target`, open to be written, packed by gzip if `path` is."""
    with target.open("wb") as file:
        if path.suffix != ".gz":
            yield file
            return
        # Neither name nor time: who comes again writes the same.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield packed


def _records_of(
    path: Path,
    separator: str,
    owners: Owners,
    torn: Callable[[list[bytes]], Collection[int]],
) -> Iterator[tuple[list[bytes], set[int]]]:
    """The bytes of records, many at a time, the header with the first, and which are gone."""
    with opened(path) as file:
        taken: list[bytes] = []

        def lines() -> Iterator[str]:
            mark = "\ufeff"  # before the first line of some
            for line in file:
                taken.append(line)
                yield line.decode("utf-8", "replace").removeprefix(mark)
                mark = ""

        reader = csv.reader(lines(), delimiter=separator)
        names = next(reader, [])
        raw, rows = [b"".join(taken)], [list[str]()]  # of the header nobody is told
        taken.clear()
        for row in reader:
            raw.append(b"".join(taken))
            rows.append(row)
            taken.clear()
            if len(raw) >= _ROWS_AT_ONCE:
                yield raw, _gone(raw, rows, names, owners, torn)
                raw, rows = [], []
        yield raw, _gone(raw, rows, names, owners, torn)


def _gone(
    raw: list[bytes],
    rows: list[list[str]],
    names: list[str],
    owners: Owners,
    torn: Callable[[list[bytes]], Collection[int]],
) -> set[int]:
    whole = [at for at, row in enumerate(rows) if len(row) == len(names)]
    others = [at for at, row in enumerate(rows) if row and len(row) != len(names)]
    columns = zip(*(rows[at] for at in whole), strict=True) if whole else [()] * len(names)
    arrays = [pa.array(column, pa.large_string()) for column in columns]
    theirs = pc.indices_nonzero(pc.is_valid(owners(pa.table(arrays, names=names)))).to_pylist()
    return {whole[at] for at in theirs} | {others[at] for at in torn([raw[one] for one in others])}


# documents
class _Cleaning:
    """Leaves out of documents and cells what is about somebody."""

    def __init__(self, sought: Sought) -> None:
        self._sought = sought
        self._known = {**sought.sessions, **sought.names}
        self.entries = 0

    def of_document(self, content: Any) -> Any:
        """What is left of a JSON document: no object that names a customer, no text about one, and
        no key that is one; None if that is nothing. `entries` counts what went."""
        left = self._left(content)
        return None if left is _NOTHING else left

    def of_cell(self, cell: Any) -> Any:
        """What is to stand in a cell of a table."""
        if not isinstance(cell, str) or not self._sought.in_text(cell)[0]:
            return cell
        if cell[:1] in ("{", "[", '"'):
            with contextlib.suppress(ValueError):
                content = self.of_document(json.loads(cell))
                text = json.dumps(content, ensure_ascii=cell.isascii())
                return "null" if self._sought.in_text(text)[0] else text
        return FORGOTTEN

    def _left(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._left_of_object(value)
        if isinstance(value, list):
            found = [self._left(one) for one in value]
            return [one for one in found if one is not _NOTHING]
        return self._unless(isinstance(value, str) and self._is_about(value), value)

    def _left_of_object(self, content: dict[str, Any]) -> Any:
        for name, value in content.items():
            if names_customers(name) and normalise_id(str(value)) in self._known:
                return self._unless(True, content)
        left = {}
        for name, value in content.items():
            if isinstance(value, dict | list):
                found = self._unless(self._is_about(name), value)
                found = found if found is _NOTHING else self._left(found)
            else:  # a number is somebody's where its name says so
                pair = json.dumps({name: value}, ensure_ascii=False)[1:-1]
                found = self._unless(self._is_about(pair), value)
            if found is not _NOTHING:
                left[name] = found
        return left

    def _is_about(self, text: str) -> bool:
        return bool(self._sought.in_text(text)[0])

    def _unless(self, goes: bool, value: Any) -> Any:
        self.entries += goes
        return _NOTHING if goes else value


_CHECKPOINT_SECONDS: Final = 0.1
_NOTHING: Final = object()


def _document(path: Path) -> Any:
    """The JSON in a file, None if it is none."""
    with contextlib.suppress(ValueError):
        return json.loads(path.read_bytes())
    return None


def _entries_left_out(sought: Sought, path: Path, document: Any) -> int:
    cleaning = _Cleaning(sought)
    left = cleaning.of_document(document)
    if left is None and document is not None:
        path.unlink()
    elif cleaning.entries:
        with in_place_of(path) as temporary:
            text = json.dumps(left, ensure_ascii=False, indent=2)
            temporary.write_text(f"{text}\n", encoding="utf-8")
    return cleaning.entries
