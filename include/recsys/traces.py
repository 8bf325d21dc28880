"""What files and tables have of some customers: the readers behind `recsys.personal`.

Each reads a file once, however many customers are looked for. Who imports this carries Arrow."""

import contextlib
import json
import math
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.columns import normalise_ids
from recsys.database import connect
from recsys.ids import normalise_id
from recsys.personal import Found, Record, Sought, Unread, place_of
from recsys.settings import Settings

_BLOCK_BYTES: Final = 16 << 20
_LONGEST_LINE: Final = 10_000  # characters of a line that an export shows
_UNREADABLE: Final = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    pa.ArrowException,
    ValueError,
)
_SQLITE: Final = b"SQLite format 3\0"
_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_NAMES_OF_TEXT: Final = (
    ".log",
    ".csv",
    ".json",
    ".jsonl",
    ".html",
    ".txt",
    ".yaml",
    ".tsv",
    ".xml",
)


def of_rows(
    sought: Sought,
    place: str,
    table: pa.Table,
    names: Sequence[str],
    *,
    session: str | None = None,
) -> Iterator[Record]:
    """The rows of `table` in which one of the columns `names`, in whatever spelling, is a customer;
    and those of guests (the first of `names` is "" or missing there) in whose column `session` is
    one of theirs."""
    owners = _owners(sought, table, names, session)
    found = pc.is_valid(owners)
    if pc.any(found).as_py():
        rows = table.filter(found).to_pylist()
        for owner, row in zip(owners.filter(found).to_pylist(), rows, strict=True):
            yield Record(owner, place, said(row))


def of_texts(sought: Sought, place: str, texts: pa.Array, first: int = 1) -> Iterator[Record]:
    """The texts, counted from `first`, in which a customer stands."""
    for at in pc.indices_nonzero(pc.match_substring_regex(texts, sought.pattern)).to_pylist():
        text = texts[at].as_py()
        for owner in sorted(sought.in_text(text)):
            yield Record(owner, place, {"line": first + at, "text": text[:_LONGEST_LINE]})


def in_parquet(
    settings: Settings,
    sought: Sought,
    paths: Iterable[Path],
    names: Sequence[str],
    *,
    session: str | None = None,
) -> Found:
    """`of_rows` of files of ours, a group of rows at a time; other columns are only read of groups
    that have somebody."""
    wanted = [*names, *([session] if session else [])]
    for path in paths:
        place = place_of(settings, path)
        with reading(path) as problem, pq.ParquetFile(path) as file:
            there = [name for name in wanted if name in file.schema_arrow.names]
            own = session if session in there else None
            keys = [name for name in names if name in there]
            for number in range(file.num_row_groups if keys else 0):
                head = file.read_row_group(number, there)
                if pc.any(pc.is_valid(_owners(sought, head, keys, own))).as_py():
                    yield from of_rows(
                        sought, place, file.read_row_group(number), keys, session=own
                    )
        yield from unread(settings, path, problem)


def in_table(settings: Settings, sought: Sought, path: Path, table: str, owner: str) -> Found:
    """The rows of a table of a SQLite database that are a customer's, by the expression `owner`,
    in which ``of_user(text)`` and ``of_session(text)``, in whatever spelling, say whose."""
    if not path.is_file():
        return
    with reading(path) as problem, contextlib.closing(connect(path)) as database:
        for name, known in (("of_user", sought.names), ("of_session", sought.sessions)):
            database.create_function(name, 1, _lookup(known), deterministic=True)
        query = f"SELECT {owner} AS its_owner, * FROM {table} WHERE its_owner IS NOT NULL"  # noqa: S608 - ours
        if database.execute(f"{_TABLES} AND name = ?", (table,)).fetchone():
            for row in database.execute(query):
                content = dict(row)
                yield Record(
                    content.pop("its_owner"), place_of(settings, path, table), said(content)
                )
    yield from unread(settings, path, problem)


def in_texts_of_database(settings: Settings, sought: Sought, path: Path) -> Found:
    """The rows of all tables of a SQLite database in one of whose texts a customer stands."""
    with reading(path) as problem, contextlib.closing(connect(path)) as database:
        database.create_function("owners_of", -1, _owners_function(sought), deterministic=True)
        for (table,) in database.execute(_TABLES).fetchall():
            columns = [row["name"] for row in database.execute(f'PRAGMA table_info("{table}")')]
            named = ", ".join(f'"{name}"' for name in columns)
            rows = f'* FROM "{table}" WHERE their_owners IS NOT NULL'
            for row in database.execute(f"SELECT owners_of({named}) AS their_owners, {rows}"):
                content = dict(row)
                for owner in json.loads(content.pop("their_owners")):
                    yield Record(owner, place_of(settings, path, table), said(content))
    yield from unread(settings, path, problem)


def in_lines(settings: Settings, sought: Sought, paths: Iterable[Path]) -> Found:
    """The lines of text files, packed by gzip or not, in which a customer stands."""
    for path in paths:
        place = place_of(settings, path)
        with reading(path) as problem:
            first = 1
            for block in _blocks(path):
                lines = [line.decode("utf-8", "replace") for line in block.split(b"\n")]
                yield from of_texts(sought, place, pa.array(lines, pa.large_string()), first)
                first += len(lines)
        yield from unread(settings, path, problem)


def in_files(settings: Settings, sought: Sought, paths: Iterable[Path]) -> Found:
    """What files of any kind have of the customers, told by the files themselves: rows of Parquet
    and SQLite, lines of texts. Others (arrays, pictures) name nobody in the open."""
    for path in paths:
        with reading(path) as problem:
            yield from _of_any_kind(settings, sought, path)
        yield from unread(settings, path, problem)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[list[str]]:
    """Reads `path` in the block. What is wrong with it is added to the list, for `unread`; a file
    that is gone meanwhile has nothing of anybody."""
    problem: list[str] = []
    try:
        yield problem
    except FileNotFoundError:
        pass
    except (*_UNREADABLE, sqlite3.Error) as error:
        problem.append(f"{type(error).__name__}: {error}")


def unread(settings: Settings, path: Path, problem: list[str]) -> Iterator[Unread]:
    """What to tell of a file after `reading` it."""
    for reason in problem:
        yield Unread(place_of(settings, path), reason)


def said(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says, as JSON has it; without what it leaves empty."""
    told = {name: _plain(value) for name, value in row.items()}
    return {name: value for name, value in told.items() if value not in (None, "", [])}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return str(UUID(bytes=value)) if len(value) == 16 else value.hex()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return value if isinstance(value, str | int | bool | None) else str(value)


def _owners(
    sought: Sought, table: pa.Table, names: Sequence[str], session: str | None
) -> pa.ChunkedArray:
    """Whose each row is, null for nobody's."""
    ids = pa.array(sorted(sought.ids), pa.large_string())
    owners = pa.chunked_array([pa.nulls(table.num_rows, pa.large_string())])
    for name in names:
        texts = normalise_ids(_texts(table[name]))
        owners = pc.coalesce(owners, pc.if_else(pc.is_in(texts, value_set=ids), texts, None))
        if session is None and sought.sessions:
            owners = pc.coalesce(owners, _of_sessions(sought, texts))
    if session is not None and sought.sessions:
        guest = pc.equal(_texts(table[names[0]]), "")
        whose = _of_sessions(sought, normalise_ids(_texts(table[session])))
        owners = pc.coalesce(owners, pc.if_else(guest, whose, None))
    return owners


def _of_sessions(sought: Sought, texts: pa.ChunkedArray) -> pa.ChunkedArray:
    known = pa.array(list(sought.sessions), pa.large_string())
    whose = pa.array(list(sought.sessions.values()), pa.large_string())
    return pc.take(whose, pc.index_in(texts, value_set=known))


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pc.fill_null(column.cast(pa.large_string()), "")


def _lookup(known: Mapping[str, str]) -> Any:
    return lambda text: None if text is None else known.get(normalise_id(text))


def _owners_function(sought: Sought) -> Any:
    def owners(*values: Any) -> str | None:
        texts = [one for one in values if isinstance(one, str)]
        found = sorted(set[str]().union(*map(sought.in_text, texts)))
        found = found or sorted({str(one) for one in values if isinstance(one, int)} & sought.ids)
        return json.dumps(found) if found else None

    return owners


def _of_any_kind(settings: Settings, sought: Sought, path: Path) -> Found:
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PAR1"):
        names = pq.read_schema(path)
        texts = [
            one.name for one in names if pa.types.is_large_string(one.type) or one.type == "string"
        ]
        yield from in_parquet(settings, sought, [path], texts)
    elif head == _SQLITE:
        yield from in_texts_of_database(settings, sought, path)
    elif path.name.removesuffix(".gz").endswith(_NAMES_OF_TEXT) or ".log." in path.name:
        yield from in_lines(settings, sought, [path])


def _blocks(path: Path) -> Iterator[bytes]:
    """The content of a file, unpacked, in blocks of whole lines."""
    rest = b""
    with pa.input_stream(str(path), compression="detect") as file:
        while block := file.read(_BLOCK_BYTES):
            content, newline, after = (rest + block).rpartition(b"\n")
            if newline:
                yield content
                rest = after
            else:
                rest = after
    if rest:
        yield rest
