"""What files and tables have of some customers: the readers behind `recsys.personal`.

Each reads a file once, however many customers are looked for. Who imports this carries Arrow."""

import contextlib
import csv
import io
import json
import lzma
import math
import re
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from recsys.columns import normalise_ids
from recsys.database import connect
from recsys.file_kinds import (
    Content,
    blocks_of,
    contents,
    encoding_of,
    is_text,
    may_be_table,
    opened,
    text_in,
)
from recsys.ids import normalise_id
from recsys.personal import Doubtful, Found, Record, Sought, Unread, names_customers, place_of
from recsys.settings import Settings

_BLOCK_BYTES: Final = 16 << 20
_LEAST_OF_BYTES: Final = 8  # of a name; a shorter one may stand by chance among numbers
_PLAIN_END: Final = rb"(?![\w@+-])"
_FORMS: Final = ("utf-8", "utf-16-le", "utf-32-le")
_LONGEST_LINE: Final = 10_000  # characters of a line that an export shows
_UNREADABLE: Final = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,  # a way of packing
    lzma.LZMAError,
    tarfile.TarError,
    pa.ArrowException,
    ValueError,
    KeyError,  # two columns of one name
    RecursionError,  # JSON of a thousand levels
    csv.Error,
)
SQLITE: Final = b"SQLite format 3\0"
TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


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
    owners = owners_of(sought, table, names, session)
    found = pc.is_valid(owners)
    if pc.any(found).as_py():
        rows = table.filter(found).to_pylist()
        for owner, row in zip(owners.filter(found).to_pylist(), rows, strict=True):
            yield Record(owner, place, said(row))


def owners_in_unknown(sought: Sought, table: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Whose each row of a table of unknown origin is, and whose it may be, as `of_table` says."""
    of_customers, texts, others = list[str](), list[str](), list[str]()
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if pa.types.is_nested(kind) or binary or pa.types.is_fixed_size_binary(kind):
            others.append(field.name)
        elif names_customers(field.name):
            of_customers.append(field.name)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            texts.append(field.name)
    certain, doubtful = sought.by_doubt
    inside, perhaps = _owners_inside(sought, table.select(others))
    owners = pc.coalesce(
        owners_of(sought, table, of_customers, None),
        owners_of(certain, table, texts, None),
        inside,
    )
    return owners, pc.coalesce(owners_of(doubtful, table, texts, None), perhaps)


def _owners_inside(sought: Sought, table: pa.Table) -> tuple[pa.Array, pa.Array]:
    """The same by what stands inside of lists, structures and bytes, as JSON says it."""
    surely, perhaps = (list[str | None]([None]) * table.num_rows for _ in range(2))
    for name in table.column_names:
        told = (json.dumps({name: _plain(one)}, default=str) for one in table[name].to_pylist())
        texts = pa.array(told, pa.large_string())
        for at in pc.indices_nonzero(pc.match_substring_regex(texts, sought.pattern)).to_pylist():
            found = sought.in_text(texts[at].as_py())
            surely[at] = surely[at] or min(found[0], default=None)
            perhaps[at] = perhaps[at] or min(found[1], default=None)
    return pa.array(surely, pa.large_string()), pa.array(perhaps, pa.large_string())


def of_texts(sought: Sought, place: str, texts: pa.Array, first: int = 1) -> Found:
    """The texts, counted from `first`, in which a customer stands; and once whose may."""
    doubtful: set[str] = set()
    for at in pc.indices_nonzero(pc.match_substring_regex(texts, sought.pattern)).to_pylist():
        text = texts[at].as_py()
        surely, perhaps = sought.in_text(text)
        doubtful |= perhaps
        for owner in sorted(surely):
            yield Record(owner, place, {"line": first + at, "text": text[:_LONGEST_LINE]})
    yield from (Doubtful(owner, place) for owner in sorted(doubtful))


def of_table(sought: Sought, place: str, table: pa.Table) -> Found:
    """The rows of a table of unknown origin that are a customer's: by the columns that are named
    as those of customers, and by unmistakable ids in whatever column of texts."""
    owners, doubtful = owners_in_unknown(sought, table)
    rows = table.filter(pc.is_valid(owners)).to_pylist()
    for owner, row in zip(owners.drop_null().to_pylist(), rows, strict=True):
        yield Record(owner, place, said(row))
    perhaps = doubtful.filter(pc.is_null(owners)).unique().drop_null()
    yield from (Doubtful(owner, place) for owner in sorted(perhaps.to_pylist()))


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
                if pc.any(pc.is_valid(owners_of(sought, head, keys, own))).as_py():
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
            database.create_function(name, 1, lookup(known), deterministic=True)
        query = f"SELECT {owner} AS its_owner, * FROM {table} WHERE its_owner IS NOT NULL"  # noqa: S608 - ours
        if database.execute(f"{TABLES} AND name = ?", (table,)).fetchone():
            for row in database.execute(query):
                content = dict(row)
                yield Record(
                    content.pop("its_owner"), place_of(settings, path, table), said(content)
                )
    yield from unread(settings, path, problem)


def in_texts_of_database(
    settings: Settings,
    sought: Sought,
    path: Path,
    only: Mapping[str, Sequence[str]] | None = None,
    unless: str = "FALSE",
) -> Found:
    """The rows of the tables of a SQLite database in one of whose texts a customer stands, or whose
    column of customers has one. With `only` (table -> columns) just those columns are searched and
    told, of rows for which the expression `unless` is false."""
    with reading(path) as problem, contextlib.closing(connect(path)) as database:
        for (table,) in database.execute(TABLES).fetchall():
            columns = [row["name"] for row in database.execute(f'PRAGMA table_info("{table}")')]
            if only is not None:
                columns = [name for name in columns if name in only.get(table, ())]
            if columns:
                owners = owners_function(sought, columns)
                database.create_function("owners_of", -1, owners, deterministic=True)
                place = place_of(settings, path, table)
                where = unless if "event" in columns else "FALSE"
                yield from _in_columns(database, place, table, columns, where)
    yield from unread(settings, path, problem)


def _in_columns(
    database: sqlite3.Connection, place: str, table: str, columns: Sequence[str], unless: str
) -> Found:
    named = ", ".join(f'"{name}"' for name in columns)
    query = f"""SELECT owners_of({named}) AS their_owners, {named} FROM "{table}"
        WHERE their_owners IS NOT NULL AND ({unless}) IS NOT TRUE"""  # noqa: S608 - names of its own
    doubtful: set[str] = set()
    for row in database.execute(query):
        content = dict(row)
        surely, perhaps = json.loads(content.pop("their_owners"))
        doubtful.update(perhaps)
        for owner in surely:
            yield Record(owner, place, said(content))
    yield from (Doubtful(owner, place) for owner in sorted(doubtful))


def in_lines(settings: Settings, sought: Sought, paths: Iterable[Path]) -> Found:
    """The lines of text files, packed by gzip or not, in which a customer stands."""
    for path in paths:
        place = place_of(settings, path)
        with reading(path) as problem:
            first = 1
            for block in blocks_of(path):
                lines = [line.decode("utf-8", "replace") for line in block.split(b"\n")]
                yield from of_texts(sought, place, pa.array(lines, pa.large_string()), first)
                first += len(lines)
        yield from unread(settings, path, problem)


def in_files(settings: Settings, sought: Sought, paths: Iterable[Path]) -> Found:
    """What files of any kind have of the customers, told by the files themselves: rows of Parquet
    and SQLite, lines of texts. Of others, and of what is in a zip file (a workbook is one), only
    that a long name stands there: a person has to look."""
    for path in paths:
        with reading(path) as problem:
            yield from _of_any_kind(settings, sought, path)
        yield from unread(settings, path, problem)


def id_columns(paths: Iterable[Path]) -> Iterator[pa.ChunkedArray]:
    """What stands in the columns that are named as those of customers, of Parquet, SQLite, CSV
    and JSON; what cannot be read has none."""
    for path in paths:
        with reading(path), path.open("rb") as file:
            head = file.read(16)
            if head.startswith(b"PAR1"):
                yield from _columns_of_parquet(path)
            elif head == SQLITE:
                yield from _columns_of_database(path)
            elif separator := separator_of(path):
                for batch in _batches(path, separator, []):
                    named = filter(names_customers, batch.column_names)
                    yield from (_texts(batch[name]) for name in named)
            elif path.suffix == ".jsonl":
                yield from _columns_of_lines(path)
            elif path.suffix.lower() == ".json":
                found = list(_named_in(json.loads(path.read_bytes())))
                yield pa.chunked_array([found], pa.large_string())


def _named_in(content: Any) -> Iterator[str]:
    """What a JSON document names as a customer, however deep."""
    parts: Iterable[Any] = content if isinstance(content, list) else ()
    if isinstance(content, dict):
        yield from (
            str(value)
            for name, value in content.items()
            if names_customers(name) and isinstance(value, str | int)
        )
        parts = content.values()
    for part in parts:
        if isinstance(part, list | dict):
            yield from _named_in(part)


def _columns_of_parquet(path: Path) -> Iterator[pa.ChunkedArray]:
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if names_customers(name)]
        for number in range(file.num_row_groups if names else 0):
            yield from map(_texts, file.read_row_group(number, names).columns)


def _columns_of_database(path: Path) -> Iterator[pa.ChunkedArray]:
    with contextlib.closing(connect(path)) as database:
        for (table,) in database.execute(TABLES).fetchall():
            for column in database.execute(f'PRAGMA table_info("{table}")').fetchall():
                if names_customers(column["name"]):
                    name = column["name"]
                    query = f'SELECT DISTINCT "{name}" FROM "{table}"'  # noqa: S608 - names of its own
                    found = [str(value) for (value,) in database.execute(query)]
                    yield pa.chunked_array([found], pa.large_string())


def _columns_of_lines(path: Path) -> Iterator[pa.ChunkedArray]:
    for block in blocks_of(path):
        found = list[str]()
        for line in block.split(b"\n"):
            with contextlib.suppress(ValueError):
                content = json.loads(line)
                pairs = content.items() if isinstance(content, dict) else ()
                found += [str(value) for name, value in pairs if names_customers(name)]
        yield pa.chunked_array([found], pa.large_string())


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
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode()
        return str(UUID(bytes=value)) if len(value) == 16 else value.hex()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return value if isinstance(value, str | int | bool | None) else str(value)


def owners_of(
    sought: Sought, table: pa.Table, names: Sequence[str], session: str | None
) -> pa.ChunkedArray:
    """Whose each row is, as `of_rows` says; null for nobody's."""
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


def lookup(known: Mapping[str, str]) -> Any:
    """A function of SQLite: whose an id is, in whatever spelling."""
    return lambda text: None if text is None else known.get(normalise_id(text))


def owners_function(sought: Sought, columns: Sequence[str]) -> Any:
    """Whose a row is and whose it may be, as JSON; numbers are only ids where a column says so."""
    of_customers = [names_customers(name) for name in columns]
    known = {**sought.sessions, **sought.names}

    def owners(*values: Any) -> str | None:
        surely, perhaps = set[str](), set[str]()
        for value, named in zip(values, of_customers, strict=True):
            if named and value is not None and (whose := known.get(normalise_id(str(value)))):
                surely.add(whose)
            elif isinstance(value, str):
                found = sought.in_text(value)
                surely |= found[0]
                perhaps |= found[1]
        both = (sorted(surely), sorted(perhaps - surely))
        return json.dumps(both) if any(both) else None

    return owners


def _of_any_kind(settings: Settings, sought: Sought, path: Path) -> Found:
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PAR1"):
        with pq.ParquetFile(path) as parquet:
            for number in range(parquet.num_row_groups):
                yield from of_table(
                    sought, place_of(settings, path), parquet.read_row_group(number)
                )
    elif head == SQLITE:
        yield from in_texts_of_database(settings, sought, path)
    elif head.startswith(b"ARROW1"):
        with pa.ipc.open_file(path) as feather:
            for number in range(feather.num_record_batches):
                batch = pa.Table.from_batches([feather.get_batch(number)])
                yield from of_table(sought, place_of(settings, path), batch)
    elif separator := separator_of(path):
        yield from _in_csv(settings, sought, path, separator)
    elif is_text(path):
        yield from in_lines(settings, sought, [path])
    else:
        yield from _in_bytes(sought, place_of(settings, path), path)


def _in_bytes(sought: Sought, place: str, path: Path) -> Found:
    """Who stands in a file, or in those that are packed there: in texts by every name, in others by
    long ones. Its lines are not told: one may have everybody."""
    known = {way: whose for way, whose in sought.written.items() if len(way) >= _LEAST_OF_BYTES}
    codes = {way.encode(form): whose for way, whose in known.items() for form in _FORMS}
    surely, perhaps = set[str](), set[str]()
    for content in contents(path):
        if (text := text_in(content)) is not None:
            found = sought.in_text(text)
            surely |= found[0]
            perhaps |= found[1]
        elif codes:
            surely |= {codes[name] for name in _standing_in(content, codes)}
    what = {"found": "the name, in a file of a kind that cannot be told apart"}
    yield from (Record(owner, place, what) for owner in sorted(surely))
    yield from (Doubtful(owner, place) for owner in sorted(perhaps - surely))


def _standing_in(content: Content, names: Iterable[bytes]) -> Iterator[bytes]:
    """Which of the `names` stand in the content. An expression of thousands takes a minute for what
    the first eight bytes, as numbers, tell in a second."""
    longest_first = sorted(names, key=len, reverse=True)
    # Arrays of wide characters have nothing between two texts.
    ends = [re.escape(one) + (b"" if 0 in one else _PLAIN_END) for one in longest_first]
    exactly = re.compile(rb"(?<![\w@+-])(" + b"|".join(ends) + b")")
    heads = np.unique(np.frombuffer(b"".join(one[:8] for one in longest_first), "<u8"))
    for begin in range(0, len(content), _BLOCK_BYTES):
        block = content[begin : begin + _BLOCK_BYTES + len(longest_first[0])]
        for shift in range(min(8, len(block) - 7)):
            words = np.frombuffer(block, "<u8", (len(block) - shift) // 8, shift)
            places = np.searchsorted(heads, words)
            places[places == len(heads)] = 0
            for at in np.flatnonzero(heads[places] == words).tolist():
                if found := exactly.match(block, shift + 8 * at):
                    yield found[1]


def separator_of(path: Path) -> str:
    """What parts the columns of a text whose header names one of customers; "" for others."""
    if not may_be_table(path):
        return ""
    head = _header(path)
    for separator in (",", ";", "\t", "|"):
        names = next(csv.reader([head], delimiter=separator), [])
        if any(map(names_customers, names)) and len(names) == len(set(names)):
            return separator
    return ""


def _header(path: Path) -> str:
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding_of(path), errors="replace", newline="")
        return text.readline(_LONGEST_LINE)


def _in_csv(settings: Settings, sought: Sought, path: Path, separator: str) -> Found:
    place, torn = place_of(settings, path), list[str]()
    for batch in _batches(path, separator, torn):
        yield from of_table(sought, place, batch)
    yield from of_texts(sought, place, pa.array(torn, pa.large_string()))


def _batches(path: Path, separator: str, torn: list[str]) -> Iterator[pa.Table]:
    """The rows of a CSV file, all of them texts; those of another length are added to `torn`."""

    def on_torn(row: Any) -> str:
        torn.append(row.text)
        return "skip"

    names = next(csv.reader([_header(path).rstrip("\r\n")], delimiter=separator))
    parsing = {"delimiter": separator, "newlines_in_values": True, "invalid_row_handler": on_torn}
    converting = pc_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    # Of UTF-8 Arrow leaves the mark out itself, and reads it as it is.
    encoding = encoding_of(path).removesuffix("-sig")
    reader = pc_csv.open_csv(
        path,
        pc_csv.ReadOptions(encoding=encoding.replace("utf-8", "utf8")),
        pc_csv.ParseOptions(**parsing),
        converting,
    )
    with reader:
        yield from (pa.table(batch) for batch in reader)
