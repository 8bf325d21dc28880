"""The plots of the report, as SVG that stands inside the page."""

import io
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recsys.quality.measures import LENGTH_EDGES, QUALITY_EDGES, ROWS

_NOW, _BEFORE, _REFUSED = "#2f6f8f", "#c3ccd3", "#b5533c"
_INK = "#33424d"
_SIZE = (5.4, 2.9)  # inches


def plots(figures: dict[str, Any]) -> list[dict[str, str]]:
    """Title and SVG of every plot, in the order of the page."""
    now, before = figures["distributions"], figures["distributions_before"] or {}
    stars = (list(found["rating"].values()) if found else None for found in (now, before))
    lengths = [f"{low:g}-{high - 1:g}" for low, high in itertools.pairwise(LENGTH_EDGES)]
    lengths = ["none", *lengths[1:-1], f"{LENGTH_EDGES[-2]:g}+"]
    qualities = [f"{edge:.1f}" for edge in QUALITY_EDGES[:-1]]
    drawn = {
        "Rows: in and out": _bars(
            {name: figures["counts"][name] for name in reversed(ROWS)},
            [_BEFORE, _REFUSED, _BEFORE, _NOW, _INK],
        ),
        "Refused rows by rule": _bars(
            dict(sorted(figures["rejected_by_rule"].items(), key=operator.itemgetter(1))), _REFUSED
        ),
        "Stars": _compared(list(now["rating"]), *stars),
        "Length of comments, characters": _compared(
            lengths, now["comment_length"], before.get("comment_length")
        ),
        "comment_quality": _compared(
            qualities, now["comment_quality"], before.get("comment_quality")
        ),
        "Accepted rows by month": _by_month(now["rows_by_month"]),
    }
    return [{"title": title, "svg": svg} for title, svg in drawn.items()]


def _bars(values: dict[str, int], colours: str | list[str]) -> str:
    figure, axes = _axes()
    if not values:
        axes.text(0.5, 0.5, "none", ha="center", va="center", color=_INK)
        axes.set_axis_off()
        return _svg(figure)
    bars = axes.barh(list(values), list(values.values()), color=colours)
    axes.bar_label(bars, [f"{value:,}" for value in values.values()], padding=3, color=_INK)
    axes.margins(x=0.2)
    return _svg(figure)


def _compared(names: Sequence[str], now: Any, before: Any) -> str:
    """Shares of this version's rows, beside those of the version before."""
    figure, axes = _axes()
    series = [("before", before, _BEFORE)] if before is not None else []
    series.append(("this version", now, _NOW))
    width = 0.8 / len(series)
    for number, (label, counts, colour) in enumerate(series):
        places = np.arange(len(names)) + (number - (len(series) - 1) / 2) * width
        shares = 100 * np.array(counts) / max(sum(counts), 1)
        axes.bar(places, shares, width, color=colour, label=label)
    axes.set_xticks(
        range(len(names)), list(names), fontsize=8, rotation=30 if len(names) > 7 else 0
    )
    axes.set_ylabel("% of rows")
    if before is not None:
        axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _by_month(rows: dict[str, int]) -> str:
    figure, axes = _axes()
    months = list(rows)
    axes.bar(range(len(months)), list(rows.values()), color=_NOW, width=0.9)
    shown = range(0, len(months), max(1, len(months) // 6))
    axes.set_xticks(list(shown), [months[at] for at in shown], fontsize=8)
    return _svg(figure)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _svg(figure: Figure) -> str:
    """The drawing without the XML prologue, which has no place inside a page."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
