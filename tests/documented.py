"""What the pages say: the code spans, code lines and tables of the READMEs and of ``docs/*.md``.

Decision records are left out: they tell what was true when they were written.
"""

import re
from functools import cache
from typing import Final

from recsys.settings import REPOSITORY

_BLOCK: Final = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN: Final = re.compile(r"`([^`\n]+)`")


@cache
def pages() -> dict[str, str]:
    """The text of every page, by its path below the repository."""
    paths = [*REPOSITORY.glob("README*.md"), *(REPOSITORY / "docs").glob("*.md")]
    return {str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8") for path in paths}


@cache
def code() -> tuple[str, ...]:
    """Everything that stands as code on a page: each span, and each line of a block."""
    found: list[str] = []
    for text in pages().values():
        for block in _BLOCK.findall(text):
            found += block.splitlines()
        found += _SPAN.findall(_BLOCK.sub("", text))
    return tuple(found)


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the page's tables whose first column is headed so, each as its cells' text."""
    rows: list[list[str]] = []
    inside = False
    for line in pages()[page].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|"):
            inside = False
        elif inside:
            rows.append(cells)
        else:
            inside = cells[0] == heading
    return [cells for cells in rows if set(cells[0]) != {"-"} and not cells[0].startswith("---")]


def spans(text: str) -> list[str]:
    """The code spans of a piece of text, such as a table's cell."""
    return _SPAN.findall(text)
