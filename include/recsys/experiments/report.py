"""``reports/experiments/<name>.json`` and ``.html``: question, sides, interval by day, advice."""

from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.ticker import PercentFormatter

from recsys.experiments.state import MOMENT, REPORTS
from recsys.experiments.verdicts import METRIC_NAMES
from recsys.pages import templates
from recsys.plots import mark_days, picture
from recsys.publishing import write_json, write_text
from recsys.schedule import load_zone
from recsys.settings import Settings

_COLOURS = ("#2f6f8f", "#b5533c", "#4d7c4a", "#8a5a9e", "#a07a2c", "#5b6b76", "#a34a6b")
_INK, _LINE = "#33424d", "#c3ccd3"


def write_pages(settings: Settings, report: dict[str, Any]) -> Path:
    """Write both; the path of the page."""
    folder = settings.reports / REPORTS
    write_json(folder / f"{report['name']}.json", report)
    page = folder / f"{report['name']}.html"
    zone = load_zone(settings)
    template = templates(Path(__file__).parent).get_template("page.html.jinja")
    moments = {
        name: _moment(report[name], zone).strftime(MOMENT)
        for name in ("started_at", "generated_at")
    }
    picture = _picture(report, _moment(report["started_at"], zone).date())
    shown = {"report": report, "moments": moments, "picture": picture, "names": METRIC_NAMES}
    write_text(page, template.render(**shown))
    return page


def _moment(text: str, zone: ZoneInfo) -> datetime:
    return datetime.fromisoformat(text).astimezone(zone)


def _picture(report: dict[str, Any], began: date) -> str | None:
    """The running intervals as an image in the page, whose days are those since the one on which it
    `began`; None if nothing is said yet."""
    courses = {
        variant: [row for row in rows if row["low"] is not None]
        for variant, rows in report["running"].items()
    }
    if not any(courses.values()):
        return None
    effect = report["smallest_effect"]

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=_INK, linewidth=1)
        axes.axhspan(-effect, effect, color=_LINE, alpha=0.35, linewidth=0)
        for colour, (variant, rows) in zip(_COLOURS, courses.items(), strict=False):
            days = [float(date2num(date.fromisoformat(row["day"]))) for row in rows]
            low, high, value = ([row[name] for row in rows] for name in ("low", "high", "value"))
            axes.fill_between(days, low, high, color=colour, alpha=0.22, linewidth=0)
            axes.plot(days, value, color=colour, marker="o", markersize=3, label=variant)
        # What was wide at first must not make flat what is narrow now.
        ends = [rows[-1] for rows in courses.values() if rows]
        reach = max(effect, *(abs(row[name]) for row in ends for name in ("low", "high")))
        axes.set_ylim(-2.5 * reach, 2.5 * reach)
        first = float(date2num(began))
        planned = report["planned_days"]
        axes.set_xlim(first - 0.5, first + max(planned or 0, report["days"], 7))
        if planned:
            axes.axvline(first + planned, color=_INK, linestyle="--", linewidth=1)
        mark_days(axes)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(frameon=False, fontsize=8, loc="upper right")

    return picture(METRIC_NAMES[report["metric"]][1], draw)
