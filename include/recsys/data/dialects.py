"""How CSV files are written: what the source's description says, else what the file itself shows.

And how one is read record by record that a fast parser misreads (lines without end, quotes that
never close), so that one bad record costs itself and not its neighbours.
"""

import codecs
import csv
import gzip
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, cast

from pydantic import AfterValidator, Field

from recsys.config import ConfigModel

Mark = Annotated[str, Field(min_length=1, max_length=1)]
"""A single character, such as ``;``."""


def _of_text(encoding: str) -> str:
    """Python's own name of it: "utf-8" for UTF8, u8 and, as a mark is passed over, utf-8-sig."""
    try:
        "".encode(encoding)
        return codecs.lookup(encoding).name.removesuffix("-sig")
    except LookupError as error:
        raise ValueError(f"expected an encoding of text such as 'cp1258': {error}") from None


Rejection = tuple[int, str, str]
"""Number of the record, reason, the beginning of its text."""

DELIMITERS = (",", ";", "\t", "|")
_TITLE_LINES = 10  # before the header, in which it is looked for
MAX_LINE_CHARACTERS = 1 << 20  # a longer line is damage, not data
OVERLONG = f"is longer than {MAX_LINE_CHARACTERS} characters"
SHOWN_CHARACTERS = 300


class Dialect(ConfigModel):
    """How a text file is written; None: found from the file where it is clear. `escape` is what
    stands before a quote inside a value, instead of a second quote, "" where that is never so;
    `skip_lines` is the number of lines before the header."""

    encoding: Annotated[str, AfterValidator(_of_text)] = "utf-8"
    delimiter: Mark | None = None
    quote: Mark = '"'
    escape: Annotated[str, Field(max_length=1)] | None = None
    skip_lines: Annotated[int, Field(ge=0)] | None = None

    @property
    def separator(self) -> str:
        return self.delimiter or ","

    def fields_of(self, line: str) -> list[str]:
        """The fields of a line on its own; none if it cannot be split."""
        try:
            return next(csv.reader([line], delimiter=self.separator, quotechar=self.quote), [])
        except csv.Error:
            return []

    def doubled(self, text: str) -> str:
        """`text` with quotes inside values doubled instead of escaped, as CSV is."""
        if not self.escape:
            return text
        special = re.compile(re.escape(self.escape) + f"([{re.escape(self.escape + self.quote)}])")
        return special.sub(lambda found: found[1] * (2 if found[1] == self.quote else 1), text)

    def settled(self, head: str, needed: Mapping[str, tuple[str, ...]]) -> "Dialect":
        """The dialect with nothing left open, from the beginning of a file. The header is the first
        line that has all `needed` columns (each of which may have several names); where there is
        none, it is the first line, between commas."""
        if None not in (self.delimiter, self.escape, self.skip_lines):
            return self
        for dialect, names, _ in self._headers(head):
            if all(set(names).intersection(candidates) for candidates in needed.values()):
                return dialect._with_escape(head)
        first = {"delimiter": self.delimiter or DELIMITERS[0], "skip_lines": self.skip_lines or 0}
        return self.model_copy(update=first)

    def likeliest_header(
        self, head: str, needed: Mapping[str, tuple[str, ...]]
    ) -> tuple[int, list[str]]:
        """Where there is no header with all `needed` columns, the number and the names of the line
        most like one: with most of the columns, else the first long enough, and as the next is."""

        def likeness(found: tuple[Dialect, list[str], bool]) -> tuple[int, int]:
            names = set(found[1])
            known = sum(not names.isdisjoint(candidates) for candidates in needed.values())
            return known, found[2] * min(len(names - {""}), len(needed))

        dialect, names, _ = max(self._headers(head), key=likeness)
        return (dialect.skip_lines or 0) + 1, names

    def _headers(self, head: str) -> Iterator[tuple["Dialect", list[str], bool]]:
        """Each line that may be the header, split in each open way; and if the next is as long."""
        lines = list(io.StringIO(head, newline=""))  # as `readline`, Arrow and csv split them
        skips = range(_TITLE_LINES) if self.skip_lines is None else [self.skip_lines]
        delimiters = DELIMITERS if self.delimiter is None else (self.delimiter,)
        for skip, delimiter in itertools.product(skips, delimiters):
            dialect = self.model_copy(update={"delimiter": delimiter, "skip_lines": skip})
            fields, below = (dialect.fields_of("".join(lines[n : n + 1])) for n in (skip, skip + 1))
            yield dialect, [name.strip() for name in fields], len(fields) == len(below)

    def _with_escape(self, head: str) -> "Dialect":
        """A quote behind a backslash that does not end its value is an escaped one."""
        inside = rf"\\{re.escape(self.quote)}(?=[^{re.escape(self.quote + self.separator)}\r\n])"
        if self.escape is not None:
            return self
        return self.model_copy(update={"escape": "\\" if re.search(inside, head) else ""})


class Unescaped:
    """Doubles the escaped quotes of a file's bytes, piece by piece."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._left = b""

    def __call__(self, chunk: bytes) -> bytes:
        escape = (self._dialect.escape or "").encode()
        content = self._left + bytes(chunk)
        pending = len(content) - len(content.rstrip(escape))
        self._left = escape if chunk and pending % 2 else b""
        whole = content[: len(content) - len(self._left)]
        return self._dialect.doubled(whole.decode("latin-1")).encode("latin-1")


def open_raw(path: Path) -> IO[bytes]:
    """A raw file, unpacked if its name says that it is packed."""
    return cast("IO[bytes]", gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def is_blank(head: bytes) -> bool:
    """Whether nothing but blanks and a byte order mark stands in the beginning of a file."""
    return not head.strip(b"\r\n\t \xef\xbb\xbf")


def plain_lines(lines: Iterable[str | None], dialect: Dialect) -> Iterable[str | None]:
    """The lines from the header on, with doubled quotes."""
    for line in itertools.islice(lines, dialect.skip_lines or 0, None):
        yield None if line is None else dialect.doubled(line)


def short_lines(file: IO[bytes], encoding: str) -> Iterator[str | None]:
    """Lines of the file as text, None for each that is longer than `MAX_LINE_CHARACTERS`. No more
    than that is in memory at a time. Bytes that cannot be decoded become surrogates."""
    named = "utf-8-sig" if encoding == "utf-8" else encoding
    text = io.TextIOWrapper(file, named, errors="surrogateescape", newline="")
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
    """Split the lines of a file with a header into records of so many `columns`. A record of
    several lines of which a later one looks like a row by itself began with a quote that never
    closes: it is rejected, and its lines are read one by one. Returns the numbers of the good
    records (titles count, the header does), their fields, and what was rejected."""
    numbers: list[int] = []
    records: list[list[str]] = []
    rejected: list[Rejection] = []

    def add(fields: list[str] | None, fault: str, text: str) -> None:
        number = (dialect.skip_lines or 0) + len(numbers) + len(rejected) + 1
        if fields is None:
            rejected.append((number, fault, text[:SHOWN_CHARACTERS]))
        else:
            numbers.append(number)
            records.append(fields)

    for fields, fault, taken in _records(lines, dialect):
        if any(looks_like_a_row(dialect.fields_of(line)) for line in taken[1:]):
            add(None, "begins a quote that never closes", taken[0])
            for line in filter(str.strip, taken[1:]):
                alone = dialect.fields_of(line)
                left_over = alone if looks_like_a_row(alone) else None
                add(left_over, "is left over from a quote that never closes", line)
        elif fields is not None and len(fields) != columns:
            add(None, f"has {len(fields)} columns instead of {columns}", "".join(taken))
        else:
            add(fields, fault, "".join(taken))
    return numbers[1:], records[1:], rejected  # the first one is the header


def _records(
    lines: Iterable[str | None], dialect: Dialect
) -> Iterator[tuple[list[str] | None, str, list[str]]]:
    """Each record's fields, or None and the reason why there are none, and its lines. Overlong
    lines, which have no text, come before the record before or among whose lines they stand."""
    taken: list[str] = []
    overlong = 0

    def noted() -> Iterator[str]:
        nonlocal overlong
        for line in lines:
            if line is None:
                overlong += 1
            else:
                taken.append(line)
                yield line

    reader = csv.reader(noted(), delimiter=dialect.separator, quotechar=dialect.quote)
    more = True
    while more:
        fields, fault = None, ""
        try:
            fields = next(reader, None)
            more = fields is not None
        except csv.Error as error:
            fault = f"cannot be split into columns: {error}"
        if fields or fault or not more:  # no empty line
            yield from [(None, OVERLONG, [])] * overlong
            overlong = 0
        if fields or fault:
            yield fields, fault, taken.copy()
        taken.clear()
