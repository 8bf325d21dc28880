"""Tables for people: whole on a wide screen, and readable on one of 80 columns."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

_READABLE: Final = 24
"""Characters of a line of text where the screen is narrow: there is room for a time."""
_NARROWEST: Final = 10

_Groups = list[list[str]]


def print_table(
    title: str,
    columns: Sequence[str],
    *sections: Iterable[Sequence[object | None]],
    text: Collection[str] = (),
    below: Mapping[str, str] | None = None,
) -> None:
    """A result for people: rows by section; a cell of None is empty.

    Columns of `text` go on in the next line where the screen is narrow. All others are whole: half
    an id, time or number is none, and an id is what the next command is given. So where they do not
    fit beside each other, columns without a value are left out, and then, one after the other,
    those of `below` stand below the one that they name."""
    grouped = [[["" if cell is None else str(cell) for cell in row] for row in s] for s in sections]
    rows = [row for section in grouped for row in section]
    cells = {name: [row[n] for row in rows] for n, name in enumerate(columns)}
    screen = Console(highlight=False, markup=False, emoji=False)
    layouts = [_Layout(cells, groups, text) for groups in _arranged(cells, below or {})]
    layout = next((one for one in layouts if one.fits(screen.width)), layouts[-1])
    table = Table(show_lines=layout.is_stacked)
    # Where not even that fits, the terminal breaks lines; whoever copies an id gets all of it.
    screen.width = max(screen.width, layout.least_width)
    for name, width in zip(layout.headers, layout.widths(screen.width), strict=True):
        table.add_column(name, width=width, overflow="fold")
    lines = zip(*layout.columns, strict=True)
    for section in grouped:
        for _ in section:
            table.add_row(*next(lines))
        table.add_section()
    screen.print(title, style="italic", soft_wrap=True)
    screen.print(table)


def _arranged(cells: Mapping[str, list[str]], below: Mapping[str, str]) -> Iterator[_Groups]:
    """What may stand where, from the widest to the narrowest."""
    yield [[name] for name in cells]
    groups = [[name] for name, column in cells.items() if any(column)] or [[name] for name in cells]
    yield groups
    for lower, upper in below.items():
        into = [group for group in groups if upper in group]
        if into and [lower] in groups:
            groups = [[*one, lower] if one in into else one for one in groups if one != [lower]]
            yield groups


class _Layout:
    """Columns beside each other; in one of several names these are above each other."""

    def __init__(
        self, cells: Mapping[str, list[str]], groups: _Groups, text: Collection[str]
    ) -> None:
        lines = max(map(len, groups))
        self.headers = ["\n".join([*group, *" " * (lines - len(group))]) for group in groups]
        self.columns = [
            ["\n".join(lines).rstrip("\n") for lines in zip(*map(cells.get, group), strict=True)]
            for group in groups
        ]
        self.is_stacked = any(len(group) > 1 for group in groups)
        wraps = [not set(text).isdisjoint(group) for group in groups]
        inside = [max(map(_widest, column), default=0) for column in self.columns]
        words = [_widest(header.replace(" ", "\n")) for header in self.headers]
        self._natural = list(map(max, inside, map(_widest, self.headers)))
        self._readable, self._least = (
            [
                max(word, min(width, most) if wrap else width)
                for word, width, wrap in zip(words, inside, wraps, strict=True)
            ]
            for most in (_READABLE, _NARROWEST)
        )
        self._borders = 3 * len(groups) + 1

    @property
    def least_width(self) -> int:
        return sum(self._least) + self._borders

    def fits(self, width: int) -> bool:
        """Whether texts have lines that can be read, and all else is whole."""
        return sum(self._readable) + self._borders <= width

    def widths(self, width: int) -> list[int]:
        """Of the columns: the narrowest get what is left over."""
        found = list(self._least)
        for _ in range(width - self.least_width):
            growing = [n for n, one in enumerate(found) if one < self._natural[n]]
            if growing:
                found[min(growing, key=found.__getitem__)] += 1
        return found


def _widest(text: str) -> int:
    return max(map(cell_len, text.split("\n")))
