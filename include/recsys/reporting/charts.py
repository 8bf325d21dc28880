"""Pictures as SVG that stands inside a page: no script draws them, they take the page's colours,
and they are readable on a telephone, for whose width they are drawn."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from markupsafe import escape

_WIDTH: Final = 380
_HEIGHT: Final = 200
_RIGHT_EDGE, _TOP, _BOTTOM = 372, 14, 22
_LETTER: Final = 6.4  # width of a digit
_FLOOR: Final = _HEIGHT - _BOTTOM
_MOST_TICKS: Final = 4
_MOST_DOTS: Final = 100  # along a curve

Form = Callable[[float], str]
"""How a value is written."""


class Row(NamedTuple):
    """A bar with its name at the left and its value, as `text`, at the right; `low` and `high` are
    an interval. `series` is the number of its colour. A `foreign` name is a product's or a
    customer's own words, which no language of the page translates."""

    name: str
    value: float
    text: str
    series: int = 1
    low: float | None = None
    high: float | None = None
    foreign: bool = False


class Line(NamedTuple):
    """A curve: `values` has None for days without one, `low` and `high` are a band around it."""

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    dashed: bool = False


def rows(said: str, bars: Sequence[Row]) -> str:
    """Bars from zero, to the left where they are negative; `said` is the picture in words."""
    ends = [
        0.0,
        *(one for bar in bars for one in (bar.value, bar.low, bar.high) if one is not None),
    ]
    lowest, highest = min(ends), max(ends)
    reach = (highest - lowest) or 1.0

    def at(value: float) -> float:
        return 100 * (value - lowest) / reach

    drawn = []
    for bar in bars:
        start, end = sorted((at(0), at(bar.value)))
        parts = [f'<rect class="s{bar.series}" x="{start:.2f}" y="2" height="8" '
                 f'width="{max(end - start, 0.4):.2f}"/>']  # fmt: skip
        if bar.low is not None and bar.high is not None:
            parts.append(_stroke("whisker", (at(bar.low), 6, at(bar.high), 6)))
        if lowest < 0 < highest:
            parts.append(_stroke("axis", (at(0), 0, at(0), 12)))
        foreign = ' lang="und" translate="no"' if bar.foreign else ""
        drawn.append(
            f"<li><span{foreign}>{escape(bar.name)}</span>"
            f'<svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
            f"{''.join(parts)}</svg><b>{escape(bar.text)}</b></li>"
        )
    return f'<ul class="bars" aria-label="{escape(said)}">{"".join(drawn)}</ul>'


def columns(
    said: str, names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], form: Form
) -> str:
    """Columns side by side, one of each of the `series` (name, values) above each of `names`."""
    top = max((value for _, values in series for value in values), default=0.0) or 1.0
    ticks, top = _ticks(0.0, top)
    side = _side(ticks, form)
    room = (_RIGHT_EDGE - side) / max(len(names), 1)
    width = 0.8 * room / len(series)
    parts = _grid(ticks, side, form)
    for number, (_, values) in enumerate(series):
        for place, value in enumerate(values):
            left = side + room * place + 0.1 * room + width * number
            height = (_FLOOR - _TOP) * value / top
            parts.append(
                f'<rect class="s{number + 1}" x="{left:.1f}" y="{_FLOOR - height:.1f}" '
                f'width="{width - 1:.1f}" height="{height:.1f}"/>'
            )
    every = -(-len(names) // 7)
    parts += [
        _text(side + room * (place + 0.5), _HEIGHT - 6, name, "middle")
        for place, name in enumerate(names)
        if place % every == 0
    ]
    legend = [name for name, _ in series] if len(series) > 1 else []
    return _picture(said, parts, legend)


def curves(
    said: str,
    days: Sequence[str],
    lines: Sequence[Line],
    form: Form,
    *,
    open_from: int | None = None,
    marked: int | None = None,
    top: float | None = None,
    bottom: float = 0.0,
    zone: tuple[float, float] | None = None,
) -> str:
    """Curves over `days`, which are written as they are given. From the day at `open_from` on,
    values are still to grow; that at `marked` is an alarm. `top` is where the axis ends, where not
    at the highest value, `bottom` where it begins; values within `zone` are too small to matter."""
    known = [v for line in lines for v in (*line.values, *line.high) if v is not None]
    ticks, top = _ticks(bottom, (max(known, default=0.0) if top is None else top) or 1.0)
    bottom = ticks[0]
    side = _side(ticks, form)
    step = (_RIGHT_EDGE - side) / max(len(days) - 1, 1)

    def at(place: int, value: float) -> tuple[float, float]:
        return side + step * place, _height(min(max(value, bottom), top), ticks)

    parts = []
    if zone is not None:
        low, high = (at(0, end)[1] for end in zone)
        parts.append(f'<rect class="open" x="{side:.1f}" y="{high:.1f}" '
                     f'width="{_RIGHT_EDGE - side:.1f}" height="{low - high:.1f}"/>')  # fmt: skip
    parts += _grid(ticks, side, form)
    if bottom < 0:
        parts.append(_stroke("axis", (side, at(0, 0.0)[1], _RIGHT_EDGE, at(0, 0.0)[1])))
    if open_from is not None:
        left = max(side, side + step * (open_from - 0.5))
        parts.append(f'<rect class="open" x="{left:.1f}" y="{_TOP}" '
                     f'width="{_RIGHT_EDGE - left:.1f}" height="{_FLOOR - _TOP}"/>')  # fmt: skip
    for number, line in enumerate(lines, start=1):
        for stretch in _stretches(zip(line.low, line.high, strict=True)):
            there = [at(place, high) for place, (_, high) in stretch]
            back = [at(place, low) for place, (low, _) in reversed(stretch)]
            parts.append(f'<polygon class="band s{number}" points="{_points([*there, *back])}"/>')
        dashes = " dashed" if line.dashed else ""
        for stretch in _stretches((value,) for value in line.values):
            points = [at(place, value) for place, (value,) in stretch]
            parts.append(f'<polyline class="line s{number}{dashes}" points="{_points(points)}"/>')
            if not line.dashed and (len(points) == 1 or len(days) <= _MOST_DOTS):
                parts += [_dot(f"s{number}", point, 1.6) for point in points]
    if marked is not None and (value := lines[0].values[marked]) is not None:
        parts.append(_dot("alarm", at(marked, value), 4.5))
    shown = sorted({0, len(days) // 2, len(days) - 1}) if days else []
    anchors = {0: "start", len(days) - 1: "end"}
    parts += [
        _text(side + step * place, _HEIGHT - 6, days[place], anchors.get(place, "middle"))
        for place in shown
    ]
    return _picture(said, parts, [line.name for line in lines] if len(lines) > 1 else [])


def _picture(said: str, parts: Iterable[str], legend: Sequence[str]) -> str:
    named = "".join(
        f'<li><i class="s{number}"></i>{escape(name)}</li>'
        for number, name in enumerate(legend, start=1)
    )
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
        + (f'<ul class="legend">{named}</ul>' if named else "")
    )


def _side(ticks: Sequence[float], form: Form) -> float:
    """Where the drawing begins: right of what is written at its left."""
    return 10 + _LETTER * max(len(form(tick)) for tick in ticks)


def _grid(ticks: Sequence[float], side: float, form: Form) -> list[str]:
    parts = []
    for tick in ticks:
        high = _height(tick, ticks)
        parts.append(_stroke("grid", (side, high, _RIGHT_EDGE, high)))
        parts.append(_text(side - 5, high + 3.5, form(tick), "end"))
    return parts


def _height(value: float, ticks: Sequence[float]) -> float:
    """Where a value of the axis is, from above."""
    return _TOP + (_FLOOR - _TOP) * (ticks[-1] - value) / (ticks[-1] - ticks[0])


def _ticks(low: float, high: float) -> tuple[list[float], float]:
    """Round values, the first one not above `low`; the last one, not below `high`, is where the
    axis ends."""
    rough = (high - low) / _MOST_TICKS
    size = 10.0 ** np.floor(np.log10(rough))
    step = float(next(one * size for one in (1, 2, 2.5, 5, 10) if one * size >= rough * 0.999))
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return [step * number for number in range(first, last + 1)], step * last


def _stretches(
    values: Iterable[tuple[float | None, ...]],
) -> list[list[tuple[int, tuple[Any, ...]]]]:
    """Neighbouring places that have all their values."""
    found: list[list[tuple[int, tuple[Any, ...]]]] = [[]]
    for place, several in enumerate(values):
        if None in several:
            found.append([])
        else:
            found[-1].append((place, several))
    return [one for one in found if one]


def _stroke(kind: str, ends: tuple[float, float, float, float]) -> str:
    x1, y1, x2, y2 = ends
    return f'<line class="{kind}" x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"/>'


def _dot(kind: str, point: tuple[float, float], radius: float) -> str:
    return f'<circle class="{kind}" cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
