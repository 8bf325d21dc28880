"""The pages of the report about outcomes: a sentence and a picture for each question, the figures
folded below."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.language import DASH, Language
from recsys.outcomes.attribution import Fate
from recsys.reporting import Earlier, render_pages
from recsys.reporting.charts import Line, Row, curves, rows

_TEMPLATE: Final = Path(__file__).parent / "templates" / "report.html"
_WEEKS: Final = 8
"""Earlier reports that a page leads to, each a week before the next."""
_ROWS: Final = 20
_KINDS: Final = ("view", "click", "cart", "purchase")
_BY: Final = ("model", "placement", "source", "side")
_USUAL_WIDTHS: Final = 4  # of the median: what is wider is no day to measure the others by

Report = Mapping[str, Any]


def render_outcome_pages(report: Report, page: Path, zone: tzinfo) -> dict[str, str]:
    """The HTML by language of a report made by `recsys.outcomes.report.build_report`, which is to
    be called `page`; it leads to the reports of the weeks before that lie there."""

    def values(language: Language) -> dict[str, Any]:
        written = _Written(language)
        return {
            "report": report,
            "written": written,
            "courses": _courses(report, written) if report["days"] else [],
            "slices": _slices(report, written),
            "positions": _positions(report, written),
            "uplift": _uplift(report, written),
            "silent": [language.day(day) for day in report["silent"]],
            "fates": list(Fate),
            "kinds": _KINDS,
            "most": _ROWS,
        }

    return render_pages(_TEMPLATE, page, zone, values, _earlier(page, report))


def _earlier(page: Path, report: Report) -> list[Earlier]:
    last = date.fromisoformat(report["last_day"])
    found = []
    for week in range(1, _WEEKS + 1):
        day = last - timedelta(weeks=week)
        name = f"outcomes_{day:%Y%m%d}.html"
        if (page.parent / name).is_file():
            found.append(Earlier(name, str(day)))
    return found


class _Written:
    """Rates and their intervals in the form of a language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self.say = language.say

    def share(self, value: float | None) -> str:
        return self.language.percent(value, 2)

    def change(self, value: float | None) -> str:
        return self.language.change(value)

    def money(self, value: float | None) -> str:
        return self.language.number(value)

    def amount(self, value: float) -> str:
        """Of a customer and a day: dong, or how many there were."""
        return self.language.number(value, 0 if value >= 100 else 4)

    def between(self, rate: Report, write: Callable[[float | None], str]) -> str:
        """The interval; empty without one."""
        if rate["low"] is None:
            return ""
        return f"{write(rate['low'])} – {write(rate['high'])}"

    def rate(self, rate: Report, write: Callable[[float | None], str]) -> str:
        """The value with its interval in brackets."""
        between = self.between(rate, write)
        return f"{write(rate['value'])} ({between})" if between else write(rate["value"])


def _courses(report: Report, written: _Written) -> list[dict[str, Any]]:
    """Clicks, purchases and value per list, day by day."""
    found = []
    for name, write in (
        ("click_rate", written.share),
        ("purchase_rate", written.share),
        ("value_per_1000_lists", written.money),
    ):
        said = written.say(f"said.{name}", rate=written.rate(report["rates"][name], write))
        days = [{"day": one["day"], "rate": one[name]} for one in report["days"]]
        open_since = None if name == "click_rate" else report["open_since"]
        lines = {written.say("picture.all"): days}
        picture = _curves(said, report, lines, write, written.language, open_since)
        is_open = open_since is not None and open_since <= report["days"][-1]["day"]
        found.append({"name": name, "said": said, "picture": picture, "open": is_open})
    return found


def _curves(
    said: str,
    report: Report,
    lines: Mapping[str, Sequence[Report]],
    write: Callable[[float | None], str],
    language: Language,
    open_since: str | None = None,
) -> str:
    days = [one["day"] for one in report["days"]]
    drawn = []
    for name, points in lines.items():
        # Of a silent day nobody knows what customers did: it is no day without clicks.
        rates = {one["day"]: one["rate"] for one in points if one["day"] not in report["silent"]}
        value, low, high = (
            [rates[day][end] if day in rates else None for day in days]
            for end in ("value", "low", "high")
        )
        drawn.append(Line(name or language.say("picture.none"), value, low, high))
    since = next((n for n, day in enumerate(days) if open_since and day >= open_since), None)
    top = _top([one["rate"] for points in lines.values() for one in points])
    return curves(said, [language.day(day) for day in days], drawn, write, open_from=since, top=top)


def _top(rates: Sequence[Report]) -> float | None:
    """Where the axis ends: a day of few lists, such as the first, is known so badly that its
    interval would press all other days to the ground. None: wherever it may."""
    known = [one for one in rates if one["high"] is not None]
    widths = [one["high"] - one["low"] for one in known]
    usual = _USUAL_WIDTHS * float(np.median(widths)) if widths else 0.0
    highs = [one["high"] for one, width in zip(known, widths, strict=True) if width <= usual]
    return float(max(highs)) if max(highs, default=0) > 0 else None


def _slices(report: Report, written: _Written) -> list[dict[str, Any]]:
    """Of each way to divide the lists: a sentence, curves where there are some, and its rows."""
    found = []
    for name in _BY:
        parts = report["by"][name]
        if not parts or (name == "side" and len(parts) == 1):
            continue
        best = max(parts, key=lambda one: one["click_rate"]["value"] or 0.0)
        key = best["key"] or written.say("picture.none")
        said = written.say(
            f"said.{name}", key=key, rate=written.rate(best["click_rate"], written.share)
        )
        picture = None
        if series := report["series"].get(name):
            picture = _curves(said, report, series, written.share, written.language)
        bars = [
            Row(
                one["key"] or written.say("picture.none"),
                one["click_rate"]["value"] or 0.0,
                written.share(one["click_rate"]["value"]),
                *(min(place, 5), one["click_rate"]["low"], one["click_rate"]["high"]),
                foreign=True,
            )
            for place, one in enumerate(parts[:_ROWS], start=1)
        ]
        shown = {"said": said, "picture": picture, "bars": rows(said, bars)}
        found.append({"name": name, "parts": parts, **shown})
    return found


def _positions(report: Report, written: _Written) -> dict[str, Any] | None:
    places = report["positions"]
    if not places:
        return None
    first, last = places[0], places[-1]
    said = written.say(
        "said.positions",
        first=written.share(first["value"]),
        last=written.share(last["value"]),
        position=written.language.number(last["position"]),
    )
    value, low, high = ([one[end] for one in places] for end in ("value", "low", "high"))
    names = [written.language.number(one["position"]) for one in places]
    line = Line(written.say("picture.all"), value, low, high)
    return {"said": said, "picture": curves(said, names, [line], written.share)}


def _uplift(report: Report, written: _Written) -> dict[str, Any] | None:
    """What the recommender earns against the holdout; its state is that of all spending."""
    found = report["uplift"]
    if found is None:
        return None
    spent = found.get("spent_per_user") or next(iter(found.values()))
    if spent["low"] is None:
        state = "not_judged"
    else:
        state = "more" if spent["low"] > 0 else "less" if spent["high"] < 0 else "unsure"
    said = written.say(f"uplift.{state}", change=written.rate(spent, written.change))
    known = {name: one for name, one in found.items() if one["low"] is not None}
    bars = [
        Row(
            written.say(f"rate.{name}"),
            one["value"],
            written.change(one["value"]),
            *(1 if one["low"] > 0 or one["high"] < 0 else 2, one["low"], one["high"]),
        )
        for name, one in known.items()
    ]
    tone = {"not_judged": "idle", "more": "good", "less": "bad", "unsure": ""}[state]
    table = [
        {
            "name": written.say(f"rate.{name}"),
            "rest": written.amount(one["rest"]),
            "holdout": written.amount(one["holdout"]),
            "change": written.change(one["value"]) if one["value"] is not None else DASH,
            "between": written.between(one, written.change) or written.say("uplift.few"),
        }
        for name, one in found.items()
    ]
    picture = rows(said, bars) if bars else None
    return {"said": said, "tone": tone, "picture": picture, "table": table}
