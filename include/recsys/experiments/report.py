"""``reports/experiments/<name>.json`` and ``.html``: question, sides, interval by day, advice."""

import io
import json
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from recsys.experiments.verdicts import METRIC_NAMES
from recsys.pages import templates
from recsys.publishing import write_json, write_text
from recsys.settings import Settings

FOLDER = "experiments"

_COLOURS = ("#2f6f8f", "#b5533c", "#4d7c4a", "#8a5a9e", "#a07a2c", "#5b6b76", "#a34a6b")
_INK, _LINE = "#33424d", "#c3ccd3"
_SIZE = (8.6, 3.6)  # inches


def write_pages(settings: Settings, report: dict[str, Any]) -> Path:
    """Write both; the path of the page."""
    folder = settings.reports / FOLDER
    write_json(folder / f"{report['name']}.json", report)
    page = folder / f"{report['name']}.html"
    template = templates(Path(__file__).parent).get_template("page.html.jinja")
    shown = {"report": report, "picture": _picture(report), "names": METRIC_NAMES}
    write_text(page, template.render(**shown))
    return page


def read_report(settings: Settings, name: str) -> dict[str, Any]:
    """What was written last of the experiment `name`; empty if nothing is there or sound."""
    try:
        found = json.loads((settings.reports / FOLDER / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _picture(report: dict[str, Any]) -> str | None:
    """The running intervals, as SVG that stands inside the page; None if nothing is said yet."""
    courses = {
        variant: [row for row in rows if row["low"] is not None]
        for variant, rows in report["running"].items()
    }
    if not any(courses.values()):
        return None
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8)
    days = [row["day"] for row in next(iter(report["running"].values()))]
    axes.axhline(0, color=_INK, linewidth=1)
    effect = report["smallest_effect"]
    axes.axhspan(-effect, effect, color=_LINE, alpha=0.35, linewidth=0)
    for colour, (variant, rows) in zip(_COLOURS, courses.items(), strict=False):
        at = [days.index(row["day"]) for row in rows]
        low, high, value = ([row[name] for row in rows] for name in ("low", "high", "value"))
        axes.fill_between(at, low, high, color=colour, alpha=0.22, linewidth=0)
        axes.plot(at, value, color=colour, linewidth=1.8, marker="o", markersize=3, label=variant)
    # What was wide at first must not make flat what is narrow now.
    ends = [rows[-1] for rows in courses.values() if rows]
    reach = max(effect, *(abs(row[name]) for row in ends for name in ("low", "high")))
    axes.set_ylim(-2.5 * reach, 2.5 * reach)
    axes.set_xlim(-0.5, max(len(days) - 0.5, (report["planned_days"] or 0)))
    if report["planned_days"]:
        axes.axvline(report["planned_days"] - 1, color=_LINE, linestyle="--", linewidth=1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter(
        lambda place, _: days[int(place)][5:] if 0 <= place < len(days) else ""
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
