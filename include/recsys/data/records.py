"""Files of the shop without the records of some customers: all others stay byte for byte, so that
they are read as before.

A record that cannot be split into the columns of its file is a customer's if its text names them;
what a quote that never closed has left over goes with the record in which it stands."""

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow.parquet as pq

from recsys import schema
from recsys.data.dialects import Dialect, open_raw
from recsys.data.reading import Columns, choose_columns, csv_head, is_csv, looks_like_a_row
from recsys.data.sources import TimedFiles
from recsys.erasing import in_place_of, lines_left_out, packed_as, rows_left_out
from recsys.ids import normalise_id
from recsys.personal import Sought
from recsys.traces import owners_of

_REMEMBERED = 1 << 20  # spellings of customers, most of whom have many records

Names = tuple[str, ...]
Raw = tuple[list[str] | None, list[str]]
"""The fields of a record, None if it has none, and its lines as they are written."""


def leave_out(path: Path, files: TimedFiles, sought: Sought) -> int:
    """Write a file of reviews or events, as `files` describe it, again without the records of the
    customers and of guests in their sessions. Returns how many went. Raises as
    `recsys.data.reading.read_rows`."""
    theirs, others = _Theirs(sought), {**files.needed, **files.optional}
    users = {schema.USER: others.pop(schema.USER)}
    if is_csv(path):
        return _of_csv(path, users, others, files, theirs)
    if path.name.removesuffix(".gz").lower().endswith(".jsonl"):
        names = users[schema.USER], others.get(schema.SESSION, ())
        return lines_left_out(path, lambda lines: theirs.json_lines(lines, *names))
    with pq.ParquetFile(path) as file:
        there = file.schema_arrow.names
    chosen = choose_columns(path, there, users, others)
    user, session = chosen[schema.USER], chosen.get(schema.SESSION)
    columns = [user, *([session] if session else [])]
    return rows_left_out(path, lambda table: owners_of(sought, table, [user], session), columns)


def _of_csv(path: Path, users: Columns, others: Columns, given: Dialect, theirs: "_Theirs") -> int:
    dialect, names, _ = csv_head(path, users, given)
    columns = _Records(names, choose_columns(path, names, users, others), dialect)
    count = sum(gone for _, gone in _records(path, columns, theirs))
    if count:
        with (
            in_place_of(path) as temporary,
            packed_as(path, temporary) as packed,
            _text_in(packed, dialect) as target,
        ):
            for text, gone in _records(path, columns, theirs):
                if not gone:
                    target.write(text)
    return count


class _Records:
    """How the records of a CSV file are split, and where customer and session stand."""

    def __init__(self, names: list[str], chosen: Mapping[str, str], dialect: Dialect) -> None:
        self.dialect, self.count = dialect, len(names)
        self.user = names.index(chosen[schema.USER])
        session = chosen.get(schema.SESSION)
        self.session = None if session is None else names.index(session)
        self.looks_like_a_row = looks_like_a_row(names, dict(chosen))


class _Theirs:
    """Tells what is a customer's."""

    def __init__(self, sought: Sought) -> None:
        self._sought = sought
        self._known: dict[str, bool] = {}

    def __call__(self, user: str, session: str) -> bool:
        found = self._known.get(user)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[user] = normalise_id(user) in self._sought.ids
        is_guest = session and not user.strip()
        return found or bool(is_guest and normalise_id(session) in self._sought.sessions)

    def text(self, text: str) -> bool:
        return bool(self._sought.in_text(text)[0])

    def json_lines(self, lines: list[bytes], users: Names, sessions: Names) -> list[int]:
        """Which of the lines are theirs, by the columns of customers and sessions."""
        return [at for at, line in enumerate(lines) if self._json_line(line, users, sessions)]

    def _json_line(self, line: bytes, users: Names, sessions: Names) -> bool:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            return self.text(line.decode("utf-8", "replace"))
        user, session = (_first(record, names) for names in (users, sessions))
        return self(user, session)


def _first(record: Mapping[str, Any], names: Iterable[str]) -> str:
    """The value of the first column that there is, as text."""
    value = next((record[name] for name in names if name in record), None)
    return "" if value is None else str(value)


def _records(path: Path, columns: _Records, theirs: _Theirs) -> Iterator[tuple[str, bool]]:
    """Every piece of the file as it is written, in order, and whether it is a customer's record:
    titles and header, records, and single lines where records are torn."""
    dialect = columns.dialect
    with open_raw(path) as file, _text_of(file, dialect) as text:
        for _ in range(dialect.skip_lines or 0):
            yield text.readline(), False
        records = _split(text, dialect)
        _, header = next(records)
        yield "".join(header), False
        for fields, lines in records:
            yield from _judged(fields, lines, columns, theirs)


def _judged(
    fields: list[str] | None, lines: list[str], columns: _Records, theirs: _Theirs
) -> Iterator[tuple[str, bool]]:
    split = columns.dialect.fields_of
    if any(columns.looks_like_a_row(split(_plain(line, columns))) for line in lines[1:]):
        gone = theirs.text(lines[0])
        yield lines[0], gone
        for line in lines[1:]:
            alone = split(_plain(line, columns))
            is_row = columns.looks_like_a_row(alone)
            gone = _is_theirs(alone, columns, theirs) if is_row else gone or theirs.text(line)
            yield line, gone
    elif fields is not None and len(fields) == columns.count:
        yield "".join(lines), _is_theirs(fields, columns, theirs)
    else:
        text = "".join(lines)
        yield text, bool(text.strip()) and theirs.text(text)


def _plain(line: str, columns: _Records) -> str:
    return columns.dialect.doubled(line)


def _is_theirs(fields: list[str], columns: _Records, theirs: _Theirs) -> bool:
    session = "" if columns.session is None else fields[columns.session]
    return theirs(fields[columns.user], session)


def _split(text: IO[str], dialect: Dialect) -> Iterator[Raw]:
    """The records of a file, and what they are written as."""
    taken: list[str] = []

    def noted() -> Iterator[str]:
        for line in text:
            taken.append(line)
            yield dialect.doubled(line)

    reader = csv.reader(noted(), delimiter=dialect.separator, quotechar=dialect.quote)
    while True:
        fields: list[str] | None = None
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:  # no quote keeps the field of one record open for ever
            fields = None
        yield fields, taken.copy()
        taken.clear()


def _text_of(file: IO[bytes], dialect: Dialect) -> io.TextIOWrapper:
    """What cannot be decoded comes back as it was; a byte order mark belongs to the text."""
    return io.TextIOWrapper(file, dialect.encoding, errors="surrogateescape", newline="")


@contextlib.contextmanager
def _text_in(file: IO[bytes], dialect: Dialect) -> Iterator[IO[str]]:
    text = _text_of(file, dialect)
    yield text
    text.detach()
