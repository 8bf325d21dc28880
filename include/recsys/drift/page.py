"""The report as one static HTML page: every plot inline, nothing loaded from elsewhere."""

import base64
import io
from collections.abc import Mapping
from datetime import date
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure

_OLD, _NEW, _ALARM = "#9aa5b1", "#2563eb", "#c2410c"
_CHECKS = {
    "rating": "Ratings",
    "popularity": "Popularity",
    "volume": "Volume",
    "activity": "Activity per customer",
    "new_users": "New customers",
    "campaign": "Campaign",
    "comment_length": "Comment length",
    "comment_missing": "Missing comments",
    "comment_language": "Comment language",
    "comment_quality": "Comment quality",
    "embedding": "Kind of product",
    "model": "Model",
}


def render_page(report: Mapping[str, Any]) -> str:
    """The HTML page of a report made by `recsys.drift.report.build_report`."""
    environment = Environment(
        loader=PackageLoader("recsys.drift", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        report=report,
        checks=_rows(report),
        star_plot=_inline(_star_plot(report)),
        volume_plot=_inline(_volume_plot(report)),
        mover_plot=_inline(_mover_plot(report)),
    )


def _rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    interactions = report["interaction_drift"]
    sections = {
        "rating": report["rating_drift"],
        "popularity": report["popularity_drift"],
        **{name: interactions[name] for name in ("volume", "activity", "new_users")},
        "campaign": report["campaign"],
        **{
            name: section
            for name, section in report["comment_drift"].items()
            if name.startswith("comment_")
        },
        "embedding": report["embedding_drift"],
        "model": report["model_drift"],
    }
    return [
        {
            "title": _CHECKS[name],
            "state": _state(section),
            "severity": section["severity"],
            "effect": section["effect_size"],
            "unit": section.get("unit", ""),
            "p_value": section["p_value"],
            "test": section.get("test", ""),
            "raised": name in report["raised"],
        }
        for name, section in sections.items()
    ]


def _state(section: Mapping[str, Any]) -> str:
    if section["status"] == "insufficient_data":
        return "not enough data"
    if section.get("drift_detected") or section.get("shift_detected"):
        return "raised"
    return "seen once" if section["evidence_this_week"] else "quiet"


def _star_plot(report: Mapping[str, Any]) -> Figure:
    figure, axes = _figure("Share of stars")
    comparison = report["rating_drift"]["rating_comparison"]
    places = range(len(comparison))
    for offset, key, colour, label in (
        (-0.2, "historical", _OLD, "reference"),
        (0.2, "new", _NEW, "this week"),
    ):
        heights = [100 * shares[key] for shares in comparison.values()]
        bars = axes.bar([place + offset for place in places], heights, 0.38, color=colour)
        bars.set_label(label)
        axes.bar_label(bars, fmt="%.0f", fontsize=8)
    axes.set_xticks(list(places), [f"{star}★" for star in comparison])
    axes.set_ylabel("percent of reviews")
    axes.set_ylim(0, 110)
    axes.legend(frameon=False, loc="upper left")
    return figure


def _volume_plot(report: Mapping[str, Any]) -> Figure:
    figure, axes = _figure("Reviews a week")
    series = report["interaction_drift"]["series"]
    days = [date2num(date.fromisoformat(point["week"])) for point in series]
    known = [(day, point) for day, point in zip(days, series, strict=True) if point["expected"]]
    if known:
        axes.fill_between(
            [day for day, _ in known],
            [point["low"] for _, point in known],
            [point["high"] for _, point in known],
            color=_OLD,
            alpha=0.3,
            linewidth=0,
            label="99 % band",
        )
        axes.plot(
            [day for day, _ in known],
            [point["expected"] for _, point in known],
            color=_OLD,
            label="expected",
        )
    axes.plot(days, [point["events"] for point in series], "o-", color=_NEW, ms=3, label="reviews")
    if "volume" in report["raised"]:
        axes.plot(days[-1:], [series[-1]["events"]], "o", color=_ALARM, ms=9, label="alarm")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("reviews, each counted once")
    axes.legend(frameon=False, loc="upper left")
    return figure


def _mover_plot(report: Mapping[str, Any]) -> Figure:
    figure, axes = _figure("Change of share, percentage points", left=0.36)
    movers = list(reversed(report["popularity_drift"]["top_movers"]))
    changes = [100 * (one["new_share"] - one["historical_share"]) for one in movers]
    axes.barh(range(len(movers)), changes, color=[_NEW if c > 0 else _OLD for c in changes])
    labels = [_shortened(one["product_name"] or one["product_id"]) for one in movers]
    axes.set_yticks(range(len(movers)), labels, fontsize=8)
    axes.axvline(0, color="black", linewidth=0.6)
    return figure


def _figure(title: str, left: float = 0.08) -> tuple[Figure, Any]:
    """A figure of its own canvas: pyplot's global state is not safe in long-lived workers."""
    figure = Figure(figsize=(8.4, 3.2))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left, 0.13, 0.98 - left, 0.76))
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _inline(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _shortened(text: str, length: int = 44) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
