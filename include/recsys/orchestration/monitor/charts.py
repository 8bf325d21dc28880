"""Curves over days, as the pages' script draws them and as a sentence says them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from recsys.orchestration.monitor.language import Language

MOST_LINES: Final = 6
"""As many as there are colours."""

Values = Sequence[float | None]

_DIGITS: Final = {"share": 1, "ms": 1, "score": 4}


class Line(NamedTuple):
    """A curve: a value for each day of its chart, None where nothing was measured. `name` is that
    of its text, ``line.NAME``, or its own where the catalogue has none. `low` and `high` are the
    ends of each value's interval, None where there is none; empty of a curve without intervals."""

    name: str
    values: Values
    low: Values = ()
    high: Values = ()


class Chart(NamedTuple):
    """Curves of one unit (``count``, ``share``, ``change``, ``ms``, ``seconds``, ``days``,
    ``score``) over `days` (ISO dates). ``chart.NAME`` is its title, ``chart.NAME.text`` what it
    tells. `dots`: there is not a value every day, and values are joined across what lies between.
    `steps`: the values are those of a training's steps, whose numbers stand in place of days.
    `zone`: what lies between these two values is of no interest. `marks`: days on which nothing
    was heard of, so that their values say nothing. `of`: the member of a blend that it is about."""

    name: str
    unit: str
    days: Sequence[str]
    lines: Sequence[Line]
    dots: bool = False
    steps: bool = False
    zone: tuple[float, float] | None = None
    marks: Sequence[str] = ()
    of: str = ""

    def title(self, language: Language) -> str:
        """What it is called."""
        title = language.known("chart", self.name)
        return f"{language.known('line', self.of)}: {title}" if self.of else title

    @property
    def has_values(self) -> bool:
        return any(value is not None for line in self.lines for value in line.values)

    def drawn(self, language: Language) -> dict[str, Any]:
        """What the script needs. `own` are the names that no language has."""
        return {
            "days": list(self.days),
            "unit": self.unit,
            "dots": self.dots,
            "steps": self.steps,
            "zone": self.zone,
            "marks": list(self.marks),
            "lines": [
                {"name": (name := language.known("line", line.name)), "own": name == line.name}
                | {part: _rounded(getattr(line, part)) for part in ("values", "low", "high")}
                for line in self.lines
            ],
        }

    def said(self, language: Language) -> list[str]:
        """Of each line its last value, with its interval if it has one, else the lowest and the
        highest, in a sentence."""
        return [
            self._said(line, known, language)
            for line in self.lines
            if (known := [n for n, value in enumerate(line.values) if value is not None])
        ]

    def _said(self, line: Line, known: Sequence[int], language: Language) -> str:
        last = known[-1]
        said = {
            "line": language.known("line", line.name),
            "day": self.days[last] if self.steps else language.day(self.days[last]),
            "last": self.written(line.values[last], language),
        }
        if line.low and line.low[last] is not None:
            low, high = (self.written(ends[last], language) for ends in (line.low, line.high))
            return language.say("chart.said_between", **said, low=low, high=high)
        values = [value for value in line.values if value is not None]
        low, high = (self.written(ends(values), language) for ends in (min, max))
        return language.say("chart.said", **said, low=low, high=high)

    def written(self, value: float | None, language: Language) -> str:
        """A value with its unit."""
        if self.unit == "share":
            return language.percent(value, 1)
        if self.unit == "change":
            return language.change(value)
        if self.unit == "seconds":
            return language.duration(value)
        number = language.number(value, _DIGITS.get(self.unit, 0))
        return f"{number} ms" if self.unit == "ms" else number


def by_day(days: Sequence[str], found: Mapping[str, float | None]) -> list[float | None]:
    """The values of `found`, which has them by day, in the order of `days`."""
    return [found.get(day) for day in days]


def _rounded(values: Values) -> list[float | None]:
    return [None if value is None else float(f"{value:.6g}") for value in values]
