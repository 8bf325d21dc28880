"""How CSV files are written: what the source's description says, else what the file itself shows."""

import csv
import re
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field

from recsys.config import ConfigModel

Mark = Annotated[str, Field(min_length=1, max_length=1)]
"""A single character, such as ``;``."""

DELIMITERS = (",", ";", "\t", "|")
_TITLE_LINES = 10
"""Lines of titles before the header in which it is looked for."""


class Dialect(ConfigModel):
    """How a text file is written; None: found from the file where it is clear.

    `escape` is what stands before a quote inside a value, instead of a second quote; `skip_lines` is
    the number of lines before the header.
    """

    encoding: str = "utf-8"
    delimiter: Mark | None = None
    quote: Mark = '"'
    escape: Mark | None = None
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
        if self.escape is None:
            return text
        special = re.compile(re.escape(self.escape) + f"([{re.escape(self.escape + self.quote)}])")
        return special.sub(lambda found: found[1] * (2 if found[1] == self.quote else 1), text)

    def settled(self, head: str, needed: Mapping[str, tuple[str, ...]]) -> "Dialect":
        """The dialect with nothing left open, from the beginning of a file.

        The header is the first line that has all `needed` columns (each of which may have several
        names); where there is none, it is the first line, between commas.
        """
        if self.delimiter is not None and self.skip_lines is not None:
            return self
        lines = head.splitlines()[:_TITLE_LINES]
        skips = range(len(lines)) if self.skip_lines is None else (self.skip_lines,)
        delimiters = DELIMITERS if self.delimiter is None else (self.delimiter,)
        found = self._filled(delimiters[0], skips[0] if len(skips) else 0)
        for skip in skips:
            for delimiter in delimiters:
                dialect = self._filled(delimiter, skip)
                names = {name.strip() for name in dialect.fields_of(lines[skip])}
                if all(names.intersection(candidates) for candidates in needed.values()):
                    return dialect._with_escape(head)
        return found

    def _filled(self, delimiter: str, skip: int) -> "Dialect":
        return self.model_copy(update={"delimiter": delimiter, "skip_lines": skip})

    def _with_escape(self, head: str) -> "Dialect":
        """A quote behind a backslash that does not end its value is an escaped one."""
        inside = rf'\\{re.escape(self.quote)}(?=[^{re.escape(self.quote + self.separator)}\r\n])'
        escapes = self.escape is None and re.search(inside, head) is not None
        return self.model_copy(update={"escape": "\\"}) if escapes else self


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


def plain_lines(lines: Iterable[str | None], dialect: Dialect) -> Iterable[str | None]:
    """The lines from the header on, with doubled quotes."""
    for number, line in enumerate(lines):
        if number >= (dialect.skip_lines or 0):
            yield None if line is None else dialect.doubled(line)
