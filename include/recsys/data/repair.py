"""CSV that a fast parser gives up on or misreads: lines without end, quotes that never close.

Slower, record by record, so that one bad record costs itself and not its neighbours.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from recsys.data.dialects import Dialect

Rejection = tuple[int, str, str]
"""Number of the record, reason, the beginning of its text."""

MAX_LINE_CHARACTERS = 1 << 20
"""A longer line is damage, not data."""

OVERLONG = f"is longer than {MAX_LINE_CHARACTERS} characters"
SHOWN_CHARACTERS = 300


def short_lines(file: IO[bytes], encoding: str) -> Iterator[str | None]:
    """Lines of the file as text, None for each that is longer than `MAX_LINE_CHARACTERS`.

    No more than that is in memory at a time. Bytes that cannot be decoded become surrogates.
    """
    text = io.TextIOWrapper(
        file,
        encoding="utf-8-sig" if encoding == "utf-8" else encoding,
        errors="surrogateescape",
        newline="",
    )
    while line := text.readline(MAX_LINE_CHARACTERS):
        if len(line) < MAX_LINE_CHARACTERS or line.endswith("\n"):
            yield line
            continue
        while (rest := text.readline(MAX_LINE_CHARACTERS)) and not rest.endswith("\n"):
            pass
        yield None


def repair_records(
    lines: Iterable[str | None],
    columns: int,
    looks_like_a_row: Callable[[list[str]], bool],
    dialect: Dialect,
) -> tuple[list[int], list[list[str]], list[Rejection]]:
    """Split the lines of a file with a header into records of so many `columns`.

    A record of several lines of which a later one looks like a row by itself began with a quote
    that never closes: it is rejected, and its lines are read one by one.

    Returns
    -------
    The numbers of the good records (the header is 1), their fields, and what was rejected.
    """
    lines_read = _Lines(lines)
    found = _Found()
    reader = csv.reader(lines_read, delimiter=dialect.separator, quotechar=dialect.quote)
    for fields in _records(reader):
        taken, overlong = lines_read.take()
        for _ in range(overlong):
            found.reject(OVERLONG, "")
        if any(looks_like_a_row(dialect.fields_of(line)) for line in taken[1:]):
            found.reject("begins a quote that never closes", taken[0])
            for line in taken[1:]:
                alone = dialect.fields_of(line)
                if looks_like_a_row(alone):
                    found.accept(alone)
                else:
                    found.reject("is left over from a quote that never closes", line)
        elif isinstance(fields, csv.Error):
            found.reject(f"cannot be split into columns: {fields}", "".join(taken))
        elif len(fields) != columns:
            found.reject(f"has {len(fields)} columns instead of {columns}", "".join(taken))
        else:
            found.accept(fields)
    for _ in range(lines_read.take()[1]):
        found.reject(OVERLONG, "")
    return found.numbers[1:], found.records[1:], found.rejected  # the first one is the header


class _Lines:
    """Hands lines to a parser and remembers which ones it took since the last record."""

    def __init__(self, lines: Iterable[str | None]) -> None:
        self._lines = iter(lines)
        self._taken: list[str] = []
        self._overlong = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            if line is None:
                self._overlong += 1
            else:
                self._taken.append(line)
                yield line

    def take(self) -> tuple[list[str], int]:
        """The lines, and the number of overlong ones that stood before or among them."""
        taken, overlong = self._taken, self._overlong
        self._taken, self._overlong = [], 0
        return taken, overlong


class _Found:
    """Numbered records, good and bad."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.records: list[list[str]] = []
        self.rejected: list[Rejection] = []

    @property
    def _next(self) -> int:
        return len(self.numbers) + len(self.rejected) + 1

    def accept(self, fields: list[str]) -> None:
        self.numbers.append(self._next)
        self.records.append(fields)

    def reject(self, reason: str, text: str) -> None:
        self.rejected.append((self._next, reason, text[:SHOWN_CHARACTERS]))


def _records(reader: Iterator[list[str]]) -> Iterator[list[str] | csv.Error]:
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error
        else:
            if record:
                yield record
