"""Raw files as columns of text: csv, csv.gz, jsonl and parquet, tolerant of single bad rows.

A row that cannot be split into columns is *rejected* with its number and a reason; a file that
cannot be read at all is an error.
"""

import codecs
import contextlib
import csv
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from recsys.columns import contains_byte
from recsys.data import dialects
from recsys.data.dialects import SHOWN_CHARACTERS, Dialect, Rejection, open_raw, short_lines
from recsys.errors import SourceError
from recsys.schema import COMMENT, EVENT, PRODUCT, PRODUCT_NAME, RATING, SESSION, USER

FILE = "file"
ROW = "row"
"""Number of a record in its file. Titles and header of a CSV file count, as in a spreadsheet."""

HEAD_BYTES = 1 << 20
MAX_UNDECODABLE_SHARE = 0.2
NOT_UTF8 = "is not valid UTF-8"
_HEAD_LINES = 2_000
_SHOWN_OF_NAME = 40  # characters; what is taken for a header may be a customer's row
_NUMBER = r"\s*-?\d+([.,]\d+)?\s*$"
_DATE = r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}"
_BLOCK_BYTES = 4 << 20
_NEWLINE = 10
_EXACT = 2.0**53
_IDS = (USER, PRODUCT, EVENT, SESSION)
_NO_ID = {list: "a list", dict: "an object", bool: "true or false"}

Columns = Mapping[str, tuple[str, ...]]


@dataclass
class RawRows:
    """Rows of one file, all columns text. `table` has our names of the columns that were found, and
    `ROW` (int64); `FILE` too where the rows come from several files, and then `path` is one of
    these. `rejected` is what could not be split into columns; rows of customers who are `forgotten`
    are counted."""

    path: Path
    table: pa.Table
    rejected: list[Rejection] = field(default_factory=list)
    forgotten: int = 0


def read_rows(
    path: Path, needed: Columns, optional: Columns, dialect: Dialect = Dialect()
) -> RawRows:
    """Read the `needed` columns, and those of the `optional` ones that the file has. Both map our
    column name to the names it may have in the file, in order of preference. Raises `SourceError`
    if the file is missing, empty, truncated, wrongly encoded or lacks a needed column."""
    with _as_source_error(path, dialect):
        if _suffix(path) == ".parquet":
            return _read_parquet(path, needed, optional)
        if _suffix(path) == ".jsonl":
            _check_encoding(path, dialect.encoding)
            with open_raw(path) as file:
                lines = short_lines(file, dialect.encoding)
                return parse_json_lines(path, lines, needed, optional)
        return _read_csv(path, needed, optional, dialect)


@contextlib.contextmanager
def _as_source_error(path: Path, dialect: Dialect) -> Iterator[None]:
    """Say what is wrong with the file at `path` that cannot be read."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    except UnicodeError as error:
        raise SourceError(f"{path}: {_wrong_encoding(dialect.encoding, error)}") from error


def read_head(path: Path, needed: Columns, dialect: Dialect) -> tuple[pa.Table, Dialect]:
    """The `needed` columns of the beginning of a CSV file, without bad rows; and its dialect.
    Raises `SourceError` as `read_rows` does."""
    with _as_source_error(path, dialect):
        settled, names, lines = csv_head(path, needed, dialect)
        chosen = choose_columns(path, names, needed, {})
    head = dialects.plain_lines(lines[:_HEAD_LINES], settled)
    fields = (settled.fields_of(line) for line in head if line is not None)
    rows = [row for row in fields if len(row) == len(names)][1:]
    columns = {
        ours: pa.array([row[names.index(theirs)] for row in rows], pa.large_string())
        for ours, theirs in chosen.items()
    }
    return pa.table(columns), settled


def file_columns(path: Path, needed: Columns, dialect: Dialect) -> list[str]:
    """Names of all columns of a file, of JSON lines those of its first one. Raises `SourceError` as
    `read_rows` does."""
    with _as_source_error(path, dialect):
        if is_csv(path):
            return csv_head(path, needed, dialect)[1]
        if _suffix(path) == ".parquet":
            return list(pq.ParquetFile(path).schema_arrow.names)
        with open_raw(path) as file:
            record, fault = _parse_line(next(short_lines(file, dialect.encoding), None))
        if record is None:
            raise SourceError(f"{path}: line 1: {fault or 'there is nothing'}")
        return list(record)


def is_csv(path: Path) -> bool:
    return _suffix(path) not in (".parquet", ".jsonl")


def check_file(path: Path, needed: Columns, dialect: Dialect) -> None:
    """Look at the beginning of a file. Raises `SourceError` as `read_rows` would."""
    with _as_source_error(path, dialect):
        if is_csv(path):
            read_head(path, needed, dialect)
        elif _suffix(path) == ".parquet":
            choose_columns(path, pq.ParquetFile(path).schema_arrow.names, needed, {})
        else:
            _check_encoding(path, dialect.encoding)


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _wrong_encoding(encoding: str, error: object) -> str:
    remedy = f"save it as {encoding}, or set `encoding` in the source's description to what it is"
    return f"the text is not {encoding}: {error}; {remedy}"


def _check_encoding(path: Path, encoding: str) -> bytes:
    """The beginning of the file, after making sure that it is text in `encoding`."""
    with open_raw(path) as file:
        head = file.read(HEAD_BYTES)
    if dialects.is_blank(head):
        raise SourceError(f"{path}: the file is empty")
    try:  # the head may end inside a character
        codecs.getincrementaldecoder(encoding)().decode(head)
        return head
    except UnicodeError:
        if encoding != "utf-8":
            raise
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SourceError(f"{path}: {_wrong_encoding(encoding, 'it begins like UTF-16')}")
    lines = head.split(b"\n")[:-1] or [head]
    bad = sum(not _decodes(line) for line in lines)
    if bad > MAX_UNDECODABLE_SHARE * len(lines):
        reason = f"{bad} of the first {len(lines)} lines cannot be decoded"
        raise SourceError(f"{path}: {_wrong_encoding(encoding, reason)}")
    return head


def _decodes(line: bytes) -> bool:
    return line.decode("utf-8", "ignore").encode("utf-8") == line


def choose_columns(
    path: Path, names: list[str], needed: Columns, optional: Columns, where: str = "the file"
) -> dict[str, str]:
    """Our name -> the file's, for all columns to read; `names` are those of `where`."""
    chosen = {}
    for ours, candidates in {**needed, **optional}.items():
        found = next((name for name in candidates if name in names), None)
        if found is None and ours in needed:
            wanted = " or ".join(map(repr, candidates))
            there = ", ".join(repr(name[:_SHOWN_OF_NAME]) for name in names[:30])
            raise SourceError(f"{path}: there is no column {wanted}; {where} has: {there}")
        if found is not None and (times := names.count(found)) > 1:
            raise SourceError(f"{path}: the column {found!r} stands there {times} times")
        if found is not None:
            chosen[ours] = found
    return chosen


def csv_head(path: Path, needed: Columns, dialect: Dialect) -> tuple[Dialect, list[str], list[str]]:
    """The dialect of a CSV file with nothing left open, its columns, and its first lines."""
    name = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    head = _check_encoding(path, dialect.encoding)
    text = codecs.getincrementaldecoder(name)(errors="replace").decode(head)
    settled, lines = dialect.settled(text, needed), list(io.StringIO(text, newline=""))
    rest = lines[settled.skip_lines or 0 :]
    records = csv.reader(rest, delimiter=settled.separator, quotechar=settled.quote)
    try:
        names = [name.strip() for name in next(records)]
    except (StopIteration, csv.Error) as error:
        raise SourceError(f"{path}: the header cannot be read: {error}") from error
    if any(set(names).isdisjoint(candidates) for candidates in needed.values()):
        number, likeliest = dialect.likeliest_header(text, needed)
        choose_columns(path, likeliest, needed, {}, f"line {number}, the likeliest header,")
    return settled, names, lines


def _read_csv(path: Path, needed: Columns, optional: Columns, given: Dialect) -> RawRows:
    dialect, names, _ = csv_head(path, needed, given)
    chosen = choose_columns(path, names, needed, optional)
    # An open quote may stand in any column; those of reviews, which may be many rows, are not read.
    others = () if RATING in chosen else set(names).difference(chosen.values())
    seen = chosen | {f"*{name}": name for name in others}
    parsed = _parse_csv(path, names, seen, dialect)
    if parsed is None or _swallows_rows(*parsed, names, seen, dialect):
        return _drop_undecodable(_repair_csv(path, names, chosen, dialect))
    table, rejected = parsed
    shown = [(number, reason, text[:SHOWN_CHARACTERS]) for number, reason, text in rejected]
    return _drop_undecodable(RawRows(path, table.select([*chosen, ROW]), shown))


def _parse_csv(
    path: Path, names: list[str], chosen: dict[str, str], dialect: Dialect
) -> tuple[pa.Table, list[Rejection]] | None:
    """Parse with all cores, or with one if rows are bad, as only that numbers them. None for what
    Arrow cannot parse: a record larger than a block, a bad row that is not UTF-8."""
    bad: list[pacsv.InvalidRow] = []

    def skip(row: pacsv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    def parse(text: pa.DataType, *, numbered: bool = False) -> pa.Table:
        source: Any = path
        if dialect.escape:
            raw = pa.input_stream(str(path))
            source = pa.TransformInputStream(raw, dialects.Unescaped(dialect))
        return pacsv.read_csv(
            source,
            pacsv.ReadOptions(
                use_threads=not numbered,
                block_size=_BLOCK_BYTES,
                encoding="utf8" if dialect.encoding == "utf-8" else dialect.encoding,
                column_names=[f"{index}" for index in range(len(names))],
                skip_rows=dialect.skip_lines or 0,
                skip_rows_after_names=1,
            ),
            pacsv.ParseOptions(
                delimiter=dialect.separator,
                quote_char=dialect.quote,
                newlines_in_values=True,
                invalid_row_handler=skip if numbered else None,
            ),
            pacsv.ConvertOptions(
                include_columns=[f"{names.index(theirs)}" for theirs in chosen.values()],
                column_types={f"{index}": text for index in range(len(names))},
                strings_can_be_null=False,
            ),
        )

    table: pa.Table | None = None
    with contextlib.suppress(pa.ArrowInvalid):
        table = parse(pa.large_string())
    if table is None:
        # Arrow tells of a bad row as text: it fails, in a thread of its own, on one that is none.
        numbered = _is_text(path, dialect.encoding)
        with contextlib.suppress(pa.ArrowInvalid):
            table = parse(pa.large_string() if numbered else pa.large_binary(), numbered=numbered)
    if table is None:
        return None
    reason = "has {0.actual_columns} columns instead of {0.expected_columns}"
    rejected = [(row.number, reason.format(row), row.text) for row in bad]
    first = (dialect.skip_lines or 0) + 2
    numbers = pd.RangeIndex(first, first + table.num_rows + len(rejected))
    kept = numbers.drop([number for number, _, _ in rejected])
    table = table.rename_columns(list(chosen)).append_column(ROW, pa.array(kept, pa.int64()))
    return table, rejected


def _is_text(path: Path, encoding: str) -> bool:
    """Whether Arrow gets UTF-8 of the file; from other encodings it gets nothing else."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_raw(path) as file, contextlib.suppress(UnicodeDecodeError):
        while encoding == "utf-8" and (block := file.read(_BLOCK_BYTES)):
            decoder.decode(block)
        decoder.decode(b"", final=True)
        return True
    return False


def _drop_undecodable(rows: RawRows) -> RawRows:
    """Turn bytes into text; rows that are not UTF-8 are rejected."""
    if not any(pa.types.is_large_binary(column) for column in rows.table.schema.types):
        return rows
    with contextlib.suppress(pa.ArrowInvalid):
        return _as_text(rows)
    texts = rows.table.drop([ROW]).to_pandas()
    decodable = texts.map(_decodes).all(axis=1).to_numpy(bool)
    bad = rows.table.filter(pa.array(~decodable))
    rows.table = rows.table.filter(pa.array(decodable))
    for record in bad.to_pylist():
        number = record.pop(ROW)
        text = b",".join(record.values()).decode("utf-8", errors="replace")
        rows.rejected.append((number, NOT_UTF8, text[:SHOWN_CHARACTERS]))
    return _as_text(rows)


def _as_text(rows: RawRows) -> RawRows:
    types = {name: pa.large_string() for name in rows.table.column_names} | {ROW: pa.int64()}
    rows.table = rows.table.cast(pa.schema(types))
    return rows


def _repair_csv(path: Path, names: list[str], chosen: dict[str, str], dialect: Dialect) -> RawRows:
    with open_raw(path) as file:
        lines = dialects.plain_lines(short_lines(file, dialect.encoding), dialect)
        looks = looks_like_a_row(names, chosen)
        numbers, records, rejected = dialects.repair_records(lines, len(names), looks, dialect)
    arrays = {}
    for ours, at in ((ours, names.index(theirs)) for ours, theirs in chosen.items()):
        values = [record[at].encode("utf-8", "surrogateescape") for record in records]
        arrays[ours] = pa.array(values, pa.large_binary())
    return RawRows(path, pa.table({**arrays, ROW: pa.array(numbers, pa.int64())}), rejected)


def looks_like_a_row(names: list[str], chosen: dict[str, str]) -> Callable[[list[str]], bool]:
    """Whether the fields of a line are a whole row and no prose: as many as columns, in a review a
    number as rating or a date as time, in a catalogue an id of one word, no blank before a name."""
    patterns, enough = {PRODUCT: r"\S*[\d_-]\S*\s*$", PRODUCT_NAME: r"\S"}, all
    if RATING in chosen:
        times = chosen.keys() - {USER, PRODUCT, RATING, COMMENT}
        patterns, enough = {RATING: _NUMBER, **dict.fromkeys(times, _DATE)}, any
    at = {
        names.index(theirs): patterns[ours] for ours, theirs in chosen.items() if ours in patterns
    }
    return lambda fields: (
        len(fields) == len(names)
        and enough(re.match(pattern, fields[index]) for index, pattern in at.items())
    )


def _swallows_rows(
    table: pa.Table, bad: list[Rejection], names: list[str], seen: dict[str, str], dialect: Dialect
) -> bool:
    """Whether a quote that never closed made one value of several rows, in the columns `seen`. What
    stands behind a value is not known here: it might make a row of the value's last line."""
    looks = looks_like_a_row(names, seen)
    texts = [text for _, _, text in bad if "\n" in text]
    for column, at in ((table[ours], names.index(theirs)) for ours, theirs in seen.items()):
        if contains_byte(column, _NEWLINE):
            found = column.filter(pc.match_substring(column, "\n")).cast(pa.large_binary())
            rest = f"{dialect.separator}1" * (len(names) - at - 1) if at else ""
            texts += [value.decode("utf-8", "replace") + rest for value in found.to_pylist()]
    lines = (line for text in texts for line in text.split("\n") if dialect.separator in line)
    return any(looks(dialect.fields_of(line)) for line in lines)


def parse_json_lines(
    path: Path, lines: Iterable[str | None], needed: Columns, optional: Columns
) -> RawRows:
    """One JSON object a line; values of any simple type become text. None is an overlong line."""
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    rejected: list[Rejection] = []
    for number, line in enumerate(lines, start=1):
        record, fault = _parse_line(line)
        if record is not None:
            records.append(record)
            numbers.append(number)
        elif fault:
            rejected.append((number, fault, (line or "")[:SHOWN_CHARACTERS]))
    names = list(dict.fromkeys(itertools.chain.from_iterable(records)))
    chosen = choose_columns(path, names, needed, optional) if records else dict.fromkeys(needed, "")
    ids = [theirs for ours, theirs in chosen.items() if ours in _IDS]
    faults = [_fault_of_ids(record, ids) for record in records]
    if any(faults):
        found = list(zip(numbers, faults, records, strict=True))
        rejected += [(n, why, _json_text(one)[:SHOWN_CHARACTERS]) for n, why, one in found if why]
        rejected.sort()
        records = [record for _, why, record in found if not why]
        numbers = [number for number, why, _ in found if not why]
    arrays = {
        ours: pa.array([_json_text(record.get(theirs)) for record in records], pa.large_string())
        for ours, theirs in chosen.items()
    }
    return RawRows(path, pa.table({**arrays, ROW: pa.array(numbers, pa.int64())}), rejected)


def _parse_line(line: str | None) -> tuple[dict[str, Any] | None, str]:
    """The object of a line, or why there is none; a blank line is no fault."""
    if line is None or not line.strip():
        return None, dialects.OVERLONG if line is None else ""
    try:
        if not line.isascii():
            line.encode("utf-8")
        record = json.loads(line)
    except UnicodeEncodeError:
        return None, NOT_UTF8
    except RecursionError:
        return None, "is JSON that is nested too deeply"
    except ValueError as error:
        return None, f"is not JSON: {error}"
    return (record, "") if isinstance(record, dict) else (None, "is not a JSON object")


def _fault_of_ids(record: dict[str, Any], names: Iterable[str]) -> str:
    """Which of the columns `names` cannot be an id in a record, and why; "" if all may."""
    for name in names:
        if isinstance(value := record.get(name), list | dict | bool):
            what = _NO_ID[type(value)]
            return f"the column {name!r} is {what}; expected an id, which is text or a number"
    return ""


def _json_text(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _read_parquet(path: Path, needed: Columns, optional: Columns) -> RawRows:
    file = pq.ParquetFile(path)
    chosen = choose_columns(path, file.schema_arrow.names, needed, optional)
    table = file.read(columns=list(chosen.values()))
    for ours, theirs in chosen.items():
        if ours in _IDS and pa.types.is_boolean(table.schema.field(theirs).type):
            raise SourceError(f"{path}: the column {theirs!r} is {_NO_ID[bool]}; expected ids")
    arrays = {ours: _text_column(path, table[theirs]) for ours, theirs in chosen.items()}
    numbers = pa.array(pd.RangeIndex(1, table.num_rows + 1), pa.int64())
    return RawRows(path, pa.table({**arrays, ROW: numbers}))


def _text_column(path: Path, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        raise SourceError(f"{path}: a column is a {column.type}; expected text, numbers or times")
    if pa.types.is_floating(column.type):
        column = _whole_numbers(column)
    return pc.fill_null(column.cast(pa.large_string()), "")


def _whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids that became floats because one of them was missing; as text they lose digits."""
    column = column.cast(pa.float64())
    column = pc.if_else(pc.is_nan(column), None, column)
    exact = pc.less(pc.abs(column), _EXACT)
    whole = pc.all(pc.and_(exact, pc.equal(pc.round(column), column))).as_py() is not False
    return column.cast(pa.int64()) if whole else column
