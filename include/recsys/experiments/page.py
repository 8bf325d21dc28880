"""The pages of an experiment: the verdict and what was found of each side in sentences, a picture
of every metric, what its guardrails and its division say, and the figures below."""

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from recsys.experiments.definitions import COLUMNS, Experiment
from recsys.experiments.planning import WHOLE_WEEK_DAYS
from recsys.experiments.state import BY
from recsys.experiments.statistics import ALPHA, MIN_ACTIVE_UNITS
from recsys.experiments.verdicts import Word, last_sign, written_effect
from recsys.language import Language
from recsys.reporting import Earlier, render_pages
from recsys.reporting.charts import Line, curves

_TEMPLATE: Final = Path(__file__).parent / "templates" / "report.html"
_EARLIER: Final = 8
_REACH: Final = 1.5  # of the last intervals: what was wide at first must not make them flat
_TONES: Final = {"running": "idle", "winner": "good", "no_difference": "idle", "stopped": "bad"}
_FOUND: Final = {"better": "good", "worse": "bad"}
_GUARDED: Final = ("error_rate", "fallback_rate", "avg_latency_ms", "fallbacks")

Report = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]


def render_experiment_pages(
    report: Report, page: Path, zone: tzinfo, before: Sequence[Experiment] = ()
) -> dict[str, str]:
    """The HTML by language of a report made by `recsys.experiments.evaluation`, which is to be
    called `page`; it leads to those of the experiments `before` it that lie there."""
    state = _state(report["verdict"], report["ended_by"])

    def values(language: Language) -> dict[str, Any]:
        return {
            "report": report,
            "state": state,
            "tone": _TONES.get(str(state), "idle"),
            "tones": _TONES,
            "said": None if state == "ended" else _begun(report[language.code]),
            "promote": state == "winner" and not _stays(report),
            "control": report["sides"][0]["variant"],
            "effect": written_effect(language, report["smallest_effect"]),
            "found": _found(report, language),
            "drawn": _deciding(report, language),
            "others": _others(report, language),
            "split": _split(report, language),
            "guards": _guards(report, language),
            "figures": _figures(report, language),
            "statistics": _statistics(report, language),
        }

    return render_pages(_TEMPLATE, page, zone, values, _earlier(page, before))


def _earlier(page: Path, before: Sequence[Experiment]) -> list[Earlier]:
    there = [one for one in before if page.with_name(f"{one.name}.html").is_file()]
    return [_link_to(page, one) for one in there[:_EARLIER]]


def _link_to(page: Path, one: Experiment) -> Earlier:
    path = page.with_name(f"{one.name}.html")
    try:
        verdict = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["verdict"]
    except (OSError, ValueError, KeyError, TypeError):  # the page is still there to be read
        verdict = None
    last = None if one.ended_at is None else one.ended_at.isoformat()
    state = _state(verdict, one.ended_by)
    return Earlier(path.name, one.started_at.isoformat(), last, state, one.name)


def _state(verdict: object, ended_by: str | None) -> str | None:
    """The verdict as the texts call it, ``ended`` where a person ended it; None if nobody knows."""
    if ended_by is not None and ended_by != BY:
        return "ended"
    return str(verdict).replace(" ", "_") if verdict in get_args(Word) else None


def _stays(report: Report) -> bool:
    """Whether what has won is what everybody gets without the experiment."""
    control = report["sides"][0]
    return bool(report["winner"] == control["variant"] and control["model"] is None)


def _found(report: Report, language: Language) -> list[dict[str, Any]]:
    """Of each side a sentence about the metric that decides."""
    control, *others = (side["variant"] for side in report["sides"])
    found = []
    for side in others:
        rows = report["running"].get(side) or []
        state = _judged(report, rows)
        last = rows[-1] if rows else {}
        written = {name: language.change(last.get(name)) for name in ("value", "low", "high")}
        said = language.say(f"found.{state}", control=control, **written)
        found.append(
            {"side": side, "state": state, "tone": _FOUND.get(state, "idle"), "said": said}
        )
    return found


def _judged(report: Report, rows: Rows) -> str:
    """What may be said of a side, by the rule of the verdict."""
    if not rows or rows[-1]["low"] is None:
        return "few"
    if not report["sample_ratio"]["sound"]:
        return "void"
    if report["days"] < WHOLE_WEEK_DAYS:
        return "early"
    low, high = (np.array([row[end] for row in rows], dtype=float) for end in ("low", "high"))
    if sign := last_sign(low, high):  # a day of which nothing is said compares as false
        return "better" if sign > 0 else "worse"
    effect = report["smallest_effect"]
    return "alike" if -effect < low[-1] and high[-1] < effect else "unsure"


def _deciding(report: Report, language: Language) -> dict[str, Any] | None:
    """The picture of the metric that decides, and the planned last day that it reaches to."""
    planned = None
    if report["ended_at"] is None and report["planned_days"]:
        days = [row["day"] for rows in report["running"].values() for row in rows]
        if days:
            first = date.fromisoformat(min(days))
            planned = str(first + timedelta(days=report["planned_days"] - 1))
            planned = planned if planned > max(days) else None
    picture = _curves(report, report["metric"], report["running"], language, planned)
    return None if picture is None else {"picture": picture, "planned": planned}


def _others(report: Report, language: Language) -> list[dict[str, Any]]:
    """Of each metric that does not decide its differences and their picture."""
    found = []
    for metric, courses in report["others"].items():
        if picture := _curves(report, metric, courses, language):
            name = language.say(f"metric.{metric}")
            found.append(
                {"name": _begun(name), "said": _differences(courses, language), "picture": picture}
            )
    return found


def _differences(courses: Mapping[str, Rows], language: Language) -> list[tuple[str, str]]:
    """The last difference of each side in words."""
    return [
        (side, _difference(rows[-1], language))
        for side, rows in courses.items()
        if rows and rows[-1]["low"] is not None
    ]


def _difference(row: Mapping[str, Any], language: Language) -> str:
    written = {name: language.change(row[name]) for name in ("value", "low", "high")}
    return language.say("picture.difference", **written)


def _curves(
    report: Report,
    metric: str,
    courses: Mapping[str, Rows],
    language: Language,
    planned: str | None = None,
) -> str | None:
    """The differences with their intervals day by day, up to the day `planned`; None where nothing
    is said yet."""
    said = {side: [row for row in rows if row["low"] is not None] for side, rows in courses.items()}
    ends = [rows[-1] for rows in said.values() if rows]
    if not ends:
        return None
    days = [row["day"] for row in max(courses.values(), key=len)]
    last = date.fromisoformat(days[-1])
    more = (date.fromisoformat(planned) - last).days if planned else 0
    days += [str(last + timedelta(days=number)) for number in range(1, more + 1)]

    def known(rows: Rows, part: str) -> list[float | None]:
        # An estimate of few customers, of which nothing is said, may be anywhere.
        values = [None if row["low"] is None else row[part] for row in rows]
        return values + [None] * (len(days) - len(values))

    lines = [
        Line(side, known(rows, "value"), known(rows, "low"), known(rows, "high"))
        for side, rows in courses.items()
    ]
    effect = report["smallest_effect"] if metric == report["metric"] else 0.0
    least = max(effect, *(abs(row[end]) / 4 for row in ends for end in ("low", "high")))
    words = [f"{side}: {text}" for side, text in _differences(courses, language)]
    return curves(
        " ".join([_begun(language.say(f"metric.{metric}")) + ".", *words]),
        [language.day(day) for day in days],
        lines,
        lambda value: _tick(value, language),
        top=max(least, _REACH * max(row["high"] for row in ends)),
        bottom=min(-least, _REACH * min(row["low"] for row in ends)),
        zone=(-effect, effect) if effect else None,
    )


def _tick(value: float, language: Language) -> str:
    digits = 0 if round(100 * value, 6).is_integer() else 1
    return ("+" if value > 0 else "") + language.percent(value, digits)


def _split(report: Report, language: Language) -> dict[str, Any]:
    """Whether the customers are divided as intended, and the shares of the sides."""
    ratio, sides = report["sample_ratio"], report["sides"]
    state = "wrong" if not ratio["sound"] else "sound" if ratio["enough"] else "few"
    meant = sum(side["share"] for side in sides)
    units = sum(side["units"] for side in sides)
    rows = [
        {
            "side": side["variant"],
            "meant": language.percent(side["share"] / meant, 1),
            "actual": language.percent(side["units"] / units if units else None, 1),
            "units": language.number(side["units"]),
        }
        for side in sides
    ]
    statistics = [
        (language.say("statistic.evidence"), language.number(ratio["evidence"], 2)),
        (language.say("statistic.evidence_limit"), language.number(ratio["limit"], 2)),
    ]
    tone = {"wrong": "bad", "sound": "good"}.get(state, "idle")
    return {"state": state, "tone": tone, "rows": rows, "statistics": statistics}


def _guards(report: Report, language: Language) -> dict[str, Any]:
    """Which guardrails it has, and whether one stopped it."""
    limits = report["guardrails"]
    times = language.amount(limits["max_latency_ratio"])
    state = "kept" if limits["watched"] else "partly"
    if report["why"] in _GUARDED:
        state = "broken"
    rows = {
        "errors": language.percent(limits["max_error_rate"], 1),
        "fallbacks": language.percent(limits["max_fallback_increase"], 1),
        "latency": language.say("guards.times", number=times),
        "requests": language.number(limits["min_requests"]),
    }
    tone = {"broken": "bad", "kept": "good"}.get(state, "idle")
    limits_said = [(language.say(f"guard.{name}"), value) for name, value in rows.items()]
    return {"state": state, "tone": tone, "limits": limits_said}


def _figures(report: Report, language: Language) -> list[dict[str, Any]]:
    """The rates of all sides by metric, with the differences from the control."""
    courses = {report["metric"]: report["running"], **report["others"]}
    found = []
    for metric in COLUMNS:
        cells = []
        for side in report["sides"]:
            rate, rows = side["rates"][metric], courses.get(metric, {}).get(side["variant"])
            known = rows and rows[-1]["low"] is not None
            cells.append(
                {
                    "side": side["variant"],
                    "rate": language.number(rate, 0 if (rate or 0) >= 100 else 4),
                    "difference": _difference(rows[-1], language) if known else None,
                }
            )
        name = _begun(language.say(f"metric.{metric}"))
        found.append({"name": name, "decides": metric == report["metric"], "cells": cells})
    return found


def _statistics(report: Report, language: Language) -> list[tuple[str, str]]:
    others = len(report["sides"]) - 1
    return [
        (language.say("statistic.method"), language.say("statistic.sequence")),
        (language.say("statistic.alpha"), language.percent(ALPHA)),
        (language.say("statistic.comparisons"), language.number(others)),
        (language.say("statistic.least"), language.number(MIN_ACTIVE_UNITS)),
        (language.say("statistic.effect"), written_effect(language, report["smallest_effect"])),
    ]


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]
