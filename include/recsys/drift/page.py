"""The page of a drift report: of each check a sentence, a picture and, folded, its statistics."""

import json
import math
from collections.abc import Callable, Mapping
from datetime import date, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final

from recsys.drift.report import checks_of, state_of
from recsys.language import Language
from recsys.reporting import Earlier, render_pages
from recsys.reporting.charts import Line, Row, columns, curves, rows

_TEMPLATE: Final = Path(__file__).parent / "templates" / "report.html"
_WEEKS: Final = 12
"""Earlier reports that a page leads to."""
STATES: Final = ("raised", "seen_once", "quiet", "not_judged")  # in the order of the page
_SEVERITIES: Final = {"low": "good", "medium": "warn", "high": "bad"}
_LISTED: Final = 20

Section = Mapping[str, Any]
Values = dict[str, object]


def render_drift_pages(report: Mapping[str, Any], page: Path, zone: tzinfo) -> dict[str, str]:
    """The HTML by language of a report made by `recsys.drift.report.build_report`, which is to be
    called `page`; it leads to the reports of before that lie there."""

    def values(language: Language) -> dict[str, Any]:
        found = [_check(name, one, report, language) for name, one in checks_of(report).items()]
        found.sort(key=lambda one: STATES.index(one["state"]))
        severity = report["overall_severity"]
        return {
            "report": report,
            "checks": found,
            "tone": _SEVERITIES.get(severity, "idle"),
            "tones": _SEVERITIES,
            "severity": severity.replace(" ", "_"),
            "last_day": _day_before(report["windows"]["new"]["end"]),
            "listed": _LISTED,
        }

    return render_pages(_TEMPLATE, page, zone, values, _earlier(page))


def _earlier(page: Path) -> list[Earlier]:
    """The reports in the same folder about earlier weeks, newest first."""
    found = sorted(page.parent.glob("drift_report_????????.html"), reverse=True)
    return [_link_to(one) for one in found if one.name < page.name][:_WEEKS]


def _link_to(page: Path) -> Earlier:
    monday = date.fromisoformat(page.stem[-8:])
    first, last = (str(monday - timedelta(days=days)) for days in (7, 1))
    try:
        report = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
        severity = str(report["overall_severity"]).replace(" ", "_")
    except (OSError, ValueError, KeyError, TypeError):  # the page is still there to be read
        return Earlier(page.name, first, last)
    return Earlier(page.name, first, last, severity)


def _day_before(moment: str) -> str:
    return str(date.fromisoformat(moment[:10]) - timedelta(days=1))


def _check(
    name: str, section: Section, report: Mapping[str, Any], language: Language
) -> dict[str, Any]:
    state = state_of(section)
    values = _common(section, language) | _VALUES.get(name, _of_means)(name, section, language)
    said = _said(name, state, section, values, language)
    tone = {"seen_once": "warn", "quiet": "good", "not_judged": "idle"}.get(state)
    judged = state != "not_judged"
    return {
        "name": name,
        "state": state,
        "tone": tone or _SEVERITIES[section["severity"]],
        "said": said,
        "do": language.say(f"do.{name}") if state in ("raised", "seen_once") else None,
        "picture": _picture(name, section, report, said, language) if judged else None,
        "statistics": _statistics(name, section, language),
    }


def _said(name: str, state: str, section: Section, values: Values, language: Language) -> str:
    if state == "not_judged":
        reasons = {"reason": "no_material", "data_end": "data_end", "sample_sizes": "few"}
        why = next((text for key, text in reasons.items() if key in section), "no_history")
        return language.say(f"unjudged.{name if why == 'no_material' else why}", **values)
    said = language.say(f"said.{name}.{state}", **values)
    if pattern := section.get("pattern"):
        said += " " + language.say(f"pattern.{pattern.replace(' ', '_')}")
    return said


def _common(section: Section, language: Language) -> Values:
    sizes = section.get("sample_sizes") or {}
    return {
        "new": language.number(sizes.get("new")),
        "old": language.number(sizes.get("historical", sizes.get("old"))),
        "end": language.day(section.get("data_end")),
    }


def _of_rating(name: str, section: Section, language: Language) -> Values:
    shares = section["rating_comparison"]
    moved = shares[str(section["star"] or 5)]
    return {
        "star": section["star"],
        "before": language.percent(moved["historical"]),
        "now": language.percent(moved["new"]),
        "five": language.percent(shares["5"]["new"]),
        "five_before": language.percent(shares["5"]["historical"]),
    }


def _of_popularity(name: str, section: Section, language: Language) -> Values:
    entered, top = len(section["new_trending"]), section["top_k"]
    return {"top": language.number(top), "entered": language.number(entered)}


def _of_volume(name: str, section: Section, language: Language) -> Values:
    low, high = section.get("band_99") or (None, None)
    return {
        "events": language.number(section["events"]),
        "expected": language.number(section.get("expected")),
        "low": language.number(low),
        "high": language.number(high),
    }


def _of_campaign(name: str, section: Section, language: Language) -> Values:
    return {
        "copied": language.number(section["copied_events"]),
        "share": language.percent(section["effect_size"]),
    }


def _of_means(name: str, section: Section, language: Language) -> Values:
    write = _WRITTEN[name](language)
    keys = {"before": "historical", "now": "new"}
    return {blank: write(section[key]) for blank, key in keys.items() if key in section}


def _of_embedding(name: str, section: Section, language: Language) -> Values:
    return {}


def _of_model(name: str, section: Section, language: Language) -> Values:
    against = section.get("past_hit_rate")
    kind = "popularity" if against is None else "before"
    against = section.get("popularity_hit_rate") if against is None else against
    return {
        "model": section.get("model_id"),
        "rate": language.percent(section.get("hit_rate"), 1),
        "against": language.say(f"model.{kind}", rate=language.percent(against, 1)),
    }


def _of_kinds(name: str, section: Section, language: Language) -> Values:
    kind = section.get("kind")
    shares = section["kinds"].get(kind) or {"historical": None, "new": None}
    return {
        "kind": language.known("kind", kind).lower(),
        "before": language.percent(shares["historical"]),
        "now": language.percent(shares["new"]),
    }


_VALUES: Final[Mapping[str, Callable[[str, Section, Language], Values]]] = {
    "rating": _of_rating,
    "popularity": _of_popularity,
    "volume": _of_volume,
    "campaign": _of_campaign,
    "embedding": _of_embedding,
    "model": _of_model,
    "kinds": _of_kinds,
}


def _characters(language: Language) -> Callable[[float], str]:
    """Of a mean logarithm of a length."""
    return lambda value: language.number(math.exp(value))


def _hundredths(language: Language) -> Callable[[float], str]:
    return lambda value: language.number(value, 2)


def _shares(language: Language) -> Callable[[float], str]:
    return language.percent


_WRITTEN: Final = {
    "activity": _hundredths,
    "new_users": _shares,
    "comment_length": _characters,
    "comment_missing": _shares,
    "comment_language": _shares,
    "comment_quality": _hundredths,
}


def _picture(
    name: str, section: Section, report: Mapping[str, Any], said: str, language: Language
) -> str | None:
    before, now = language.say("picture.before"), language.say("picture.now")
    if name == "volume":
        return _volume_picture(section, report, said, language)
    if name == "rating":
        shares = section["rating_comparison"]
        series = [(now, [one["new"] for one in shares.values()])]
        series.append((before, [one["historical"] for one in shares.values()]))
        return columns(said, [f"{star}★" for star in shares], series, language.percent)
    if name == "kinds":
        kinds = section["kinds"]
        series = [(now, [one["new"] for one in kinds.values()])]
        series.append((before, [one["historical"] for one in kinds.values()]))
        names = [language.known("kind", kind) for kind in kinds]
        return columns(said, names, series, language.percent)
    bars = _bars(name, section, language, before, now)
    return rows(said, bars) if bars else None


def _bars(name: str, section: Section, language: Language, before: str, now: str) -> list[Row]:
    if name == "popularity":
        moved = [
            (one["product_name"] or one["product_id"], one["new_share"] - one["historical_share"])
            for one in section["top_movers"]
        ]
        return [
            Row(_short(product), change, _points(change, language), 1 if change > 0 else 2,
                foreign=True)
            for product, change in moved
        ]  # fmt: skip
    if name == "campaign":
        return [
            Row(_short(one["text"]), one["users"], language.number(one["users"]), foreign=True)
            for one in section["sentences"]
        ]
    if name == "embedding":
        chance = language.say("picture.chance")
        values = {now: section["distance"], chance: section["expected_by_chance"]}
        return _pair(values, lambda value: language.percent(value, 1))
    if name == "model":
        known = {"model.this_week": "hit_rate", "model.weeks_before": "past_hit_rate"}
        known["model.of_popularity"] = "popularity_hit_rate"
        values = {language.say(text): section.get(key) for text, key in known.items()}
        return _pair(values, lambda value: language.percent(value, 1))
    return _pair({now: section["new"], before: section["historical"]}, _WRITTEN[name](language))


def _pair(values: Mapping[str, float | None], write: Callable[[float], str]) -> list[Row]:
    return [
        Row(name, value, write(value), min(place, 2))
        for place, (name, value) in enumerate(values.items(), start=1)
        if value is not None
    ]


def _volume_picture(
    section: Section, report: Mapping[str, Any], said: str, language: Language
) -> str:
    series = report["interaction_drift"]["series"]
    days = [language.day(one["week"]) for one in series]
    events = [float(one["events"]) for one in series]
    expected, low, high = (
        [None if one[end] is None else float(one[end]) for one in series]
        for end in ("expected", "low", "high")
    )
    lines = [Line(language.say("picture.reviews"), events)]
    lines.append(Line(language.say("picture.expected"), expected, low, high, dashed=True))
    marked = len(series) - 1 if "volume" in report["raised"] else None
    return curves(said, days, lines, language.number, marked=marked)


def _statistics(name: str, section: Section, language: Language) -> list[tuple[str, str]]:
    """Name and value of what the check measured."""
    write: dict[str, Callable[[Any], str]] = {
        "effect_size": lambda value: language.number(value, 3),
        "p_value": lambda value: language.small(value),
        "sample_sizes": lambda sizes: " / ".join(language.number(one) for one in sizes.values()),
        "threshold": lambda value: language.number(value, 2),
        "null_bound": lambda value: language.number(value, 3),
        "jaccard_similarity": lambda value: language.number(value, 3),
        "expected_jaccard": lambda value: language.number(value, 3),
        "expected": lambda value: language.number(value, 1),
        "band_99": lambda ends: " – ".join(language.number(one, 1) for one in ends),
        "band_95": lambda ends: " – ".join(language.number(one, 3) for one in ends),
        "dispersion": lambda value: language.number(value, 2),
        "history_weeks": language.number,
        "trained_until": language.moment,
    }
    found = [
        (language.say(f"statistic.{key}"), form(section[key]))
        for key, form in write.items()
        if section.get(key) is not None
    ]
    found.append((language.say("statistic.test"), language.say(f"test.{_TESTS.get(name, name)}")))
    return [*found, (language.say("statistic.unit"), language.say(f"unit.{name}"))]


_TESTS: Final = dict.fromkeys(_WRITTEN, "means") | {"kinds": "rating"}


def _points(share: float, language: Language) -> str:
    sign = "+" if share > 0 else "−"
    return sign + language.say("picture.points", number=language.number(100 * abs(share), 1))


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
