"""What the pages say: the code spans, code lines and tables of the READMEs and of ``docs/*.md``.

Decision records are left out: they tell what was true when they were written.
"""

import re
from collections import Counter
from functools import cache
from typing import Final, NamedTuple

from recsys.settings import REPOSITORY

_BLOCK: Final = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_TARGET: Final = re.compile(r"\]\(([^)]+)\)")
_NUMBER: Final = re.compile(r"\d+(?:[.,:]\d+)*")


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


class Section(NamedTuple):
    """What a part of a page has in every language: how deep its heading is, the lines of its blocks
    of code without their comments, its code spans, where its links and pictures lead, its numbers
    (in digits), and how many rows its tables have."""

    depth: int
    commands: list[str]
    spans: set[str]
    targets: Counter[str]
    numbers: Counter[str]
    rows: int


def sections(page: str) -> list[Section]:
    """The parts of a page, each from its heading on; two editions of a page have the same ones."""
    found: list[tuple[list[str], list[str]]] = [([], [])]
    inside = False
    for line in pages()[page].splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif inside:
            found[-1][1].append(line.split("  #")[0].rstrip())
        elif line.startswith("#"):
            found.append(([line], []))
        else:
            found[-1][0].append(line)
    return [_section("\n".join(lines), commands) for lines, commands in found]


def _section(text: str, commands: list[str]) -> Section:
    bare = _TARGET.sub("]", _SPAN.sub("", text))
    return Section(
        depth=len(text) - len(text.lstrip("#")),
        commands=commands,
        spans=set(spans(text)),
        targets=Counter(map(_in_any_language, _TARGET.findall(text))),
        numbers=Counter(re.sub(r"[.,]", "", number) for number in _NUMBER.findall(bare)),
        rows=len(re.findall(r"^\|", text, re.MULTILINE)),
    )


def _in_any_language(target: str) -> str:
    """Without the language of a page or picture, and the heading where that has a language."""
    file, _, anchor = target.partition("#")
    plain = file.replace(".vi.", ".")
    translated = not file or f"docs/{plain.removesuffix('.md')}.vi.md" in pages()
    return plain if translated or not anchor else f"{plain}#{anchor}"
