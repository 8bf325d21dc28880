"""The pages of a data quality report: of each check a sentence and a picture, figures folded."""

import itertools
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Final

from recsys.language import Language
from recsys.quality.measures import LENGTH_EDGES, LISTED, PRICE_EDGES, QUALITY_EDGES, ROWS
from recsys.quality.verdicts import DOUBTFUL, NOT_JUDGED, SOUND
from recsys.reporting import Earlier, render_pages
from recsys.reporting.charts import Row, columns, rows
from recsys.sentences import Kind, tell

_TEMPLATE: Final = Path(__file__).parent / "templates" / "report.html"
_EARLIER: Final = 8
_MONTHS: Final = 36  # of reviews that are drawn
_TONES: Final = {SOUND: "good", DOUBTFUL: "warn", NOT_JUDGED: "idle"}
_ORDER: Final = (DOUBTFUL, SOUND, NOT_JUDGED)
# What the rules of the job say, and what the texts call that in few words.
_REASONS: Final = {
    "there is no user": "no_user",
    "there is no product": "no_product",
    "there is no rating": "no_rating",
    "there is no time": "no_time",
    "the rating is not a number": "rating_text",
    "the rating is outside": "rating_outside",
    "the time cannot be read": "time_unread",
    "the time is before": "time_before",
    "the time is in the future": "time_future",
    "the user is a placeholder": "user_for_many",
    "the user is a number": "id_cut",
    "the product is a number": "id_cut",
    "the user is not": "id_odd",
    "the product is not": "id_odd",
}

Figures = Mapping[str, Any]


def render_quality_pages(figures: Figures, page: Path, zone: tzinfo) -> dict[str, str]:
    """The HTML by language of the figures of a version, judged; to be called `page`. It leads to
    the reports of before that lie there."""

    def values(language: Language) -> dict[str, Any]:
        states = figures["states"]
        checks = [_check(name, state, figures, language) for name, state in states.items()]
        found = figures["duplicates"].items()
        duplicates = {language.say(f"duplicates.{name}"): number for name, number in found}
        checks.sort(key=lambda one: _ORDER.index(one["state"]))
        return {
            "figures": figures,
            "checks": checks,
            "tone": _TONES[figures["state"]],
            "tones": _TONES,
            "reasons": [_reason(one, language) for one in figures["refused"]],
            "sale": _sale(figures, language),
            "duplicates": _bars(language.say("title.duplicates"), duplicates, language),
            "listed": LISTED,
        }

    return render_pages(_TEMPLATE, page, zone, values, _earlier(page))


def _earlier(page: Path) -> list[Earlier]:
    found = sorted(page.parent.glob("????????T??????Z-*.json"), reverse=True)
    before = [one for one in found if one.stem < page.stem][:_EARLIER]
    return [_link_to(one) for one in before]


def _link_to(path: Path) -> Earlier:
    day = datetime.strptime(path.name[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).isoformat()
    page = path.with_suffix(".html").name
    try:
        return Earlier(page, day, state=str(json.loads(path.read_text("utf-8"))["state"]))
    except (OSError, ValueError, KeyError, TypeError):  # an older one; its page can be read
        return Earlier(page, day)


def _check(name: str, state: str, figures: Figures, language: Language) -> dict[str, Any]:
    said, picture = _PARTS[name](figures, state, language)
    do = language.say(f"do.{name}") if state == DOUBTFUL else None
    return {
        **{"name": name, "state": state, "tone": _TONES[state]},
        **{"said": said, "do": do, "picture": picture},
    }


Part = tuple[str, str | None]


def _rows(figures: Figures, state: str, language: Language) -> Part:
    counts, before = figures["counts"], figures["counts_before"]
    said = language.say(
        "said.rows",
        **{name: language.number(counts[name]) for name in ("read", *_COUNTS)},
    )
    if before is None:
        said += " " + language.say("said.no_before")
    else:
        known = {name: language.number(before[name]) for name in _COUNTS}
        said += " " + language.say("said.rows_before", **known)
    named = {language.say(f"rows.{name}"): counts[name] for name in ROWS}
    return said, _bars(said, named, language)


_COUNTS: Final = ("accepted", "users", "products")


def _refused(figures: Figures, state: str, language: Language) -> Part:
    counts = figures["counts"]
    limit = figures["limits"][0]["limit"]
    share = counts["quarantined"] / max(counts["read"], 1)
    said = language.say(
        "said.refused" if counts["quarantined"] else "said.none_refused",
        number=language.number(counts["quarantined"]),
        share=language.percent(share, 2),
        limit=language.percent(limit),
    )
    by_rule = sorted(figures["rejected_by_rule"].items(), key=operator.itemgetter(1), reverse=True)
    bars = []
    for reason, number in by_rule:
        name, foreign = _reason_name(reason, language)
        bars.append(Row(name, number, language.number(number), 3, foreign=foreign))
    return said, rows(said, bars) if bars else None


def _dates(figures: Figures, state: str, language: Language) -> Part:
    dates = figures["dates"]
    kind = "none" if dates["newest"] is None else state
    said = language.say(
        f"dates.{kind}",
        newest=language.moment(dates["newest"]),
        age=language.number(dates["age_days"], 1),
        pause=language.number(dates["longest_pause_days"], 1),
    )
    months = list(figures["distributions"]["rows_by_month"].items())[-_MONTHS:]
    if not months:
        return said, None
    names = [f"{month[5:]}/{month[2:4]}" for month, _ in months]
    series = [(language.say("picture.reviews"), [float(number) for _, number in months])]
    return said, columns(said, names, series, language.number)


def _prices(figures: Figures, state: str, language: Language) -> Part:
    prices = figures["prices"]
    if prices is None:
        return language.say("said.no_prices"), None
    money = {name: language.number(prices[name]) for name in ("lowest", "median", "highest")}
    counts = {name: language.number(prices[name]) for name in ("products", "with_price", "odd")}
    said = language.say("said.prices", **money, **counts)
    if prices["odd"]:
        said += " " + language.say("said.odd_prices", **counts)
    if prices["changed"] is not None:
        moved = {name: language.number(prices[name]) for name in ("changed", "jumped")}
        said += " " + language.say("said.changed_prices", **moved)
    edges = [_thousands(edge, language) for edge in PRICE_EDGES[:-1]]
    names = [*(f"<{edge}" for edge in edges[1:]), f"{edges[-1]}+"]
    series = [(language.say("picture.products"), [float(one) for one in prices["histogram"]])]
    return said, columns(said, names, series, language.number)


def _thousands(dong: float, language: Language) -> str:
    if dong >= 1e6:
        return language.say("picture.millions", number=language.amount(dong / 1e6))
    return f"{language.amount(dong / 1e3)}k"


def _stars(figures: Figures, state: str, language: Language) -> Part:
    return _compared("stars", "rating", [f"{star}★" for star in range(1, 6)], figures, language)


def _lengths(figures: Figures, state: str, language: Language) -> Part:
    names = [f"<{high:g}" for _, high in itertools.pairwise(LENGTH_EDGES)][1:-1]
    names = [language.say("picture.empty"), *names, f"{LENGTH_EDGES[-2]:g}+"]
    return _compared("lengths", "comment_length", names, figures, language)


def _qualities(figures: Figures, state: str, language: Language) -> Part:
    names = [language.number(edge, 1) for edge in QUALITY_EDGES[:-1]]
    return _compared("qualities", "comment_quality", names, figures, language)


def _compared(
    name: str, key: str, names: Sequence[str], figures: Figures, language: Language
) -> Part:
    """Shares of this version's rows beside those of the version before."""
    shares = _shares(figures["distributions"][key])
    before = figures["distributions_before"]
    series = [(language.say("picture.now"), shares)]
    blanks = {"last": language.percent(shares[-1]), "first": language.percent(shares[0])}
    said = language.say(f"said.{name}", **blanks, upper=language.percent(sum(shares[5:])))
    if before is None:
        said += " " + language.say("said.no_before")
    else:
        then = _shares(before[key])
        series.append((language.say("picture.before"), then))
        moved = max(abs(one - other) for one, other in zip(shares, then, strict=True))
        said += " " + language.say("said.moved", points=language.number(100 * moved, 1))
    return said, columns(said, names, series, language.percent)


def _shares(counts: Any) -> list[float]:
    values = list(counts.values()) if isinstance(counts, Mapping) else list(counts)
    return [value / max(sum(values), 1) for value in values]


def _campaigns(figures: Figures, state: str, language: Language) -> Part:
    share = figures["spam_share"]
    if share is None:
        return language.say("said.no_campaigns"), None
    said = language.say("said.campaigns", share=language.percent(share, 1))
    bars = [
        Row(_short(one["text"]), one["users"], language.number(one["users"]), foreign=True)
        for one in figures["comments"].get("campaigns") or []
    ]
    return said, rows(said, bars) if bars else None


def _encoding(figures: Figures, state: str, language: Language) -> Part:
    garbled = {name: language.number(one) for name, one in figures["mojibake"].items()}
    return language.say(f"encoding.{state}", **garbled), None


def _missing(figures: Figures, state: str, language: Language) -> Part:
    shares = {
        f"{table}: {column}": share
        for table, found in figures["missing"].items()
        for column, share in found.items()
        if share > 0
    }
    said = language.say(f"missing.{state}") + " "
    said += language.say("said.missing" if shares else "said.none_missing")
    ordered = sorted(shares.items(), key=operator.itemgetter(1), reverse=True)
    bars = [Row(name, one, language.percent(one, 1), 2, foreign=True) for name, one in ordered]
    return said, rows(said, bars) if bars else None


_PARTS: Final[Mapping[str, Callable[[Figures, str, Language], Part]]] = {
    "rows": _rows,
    "refused": _refused,
    "dates": _dates,
    "prices": _prices,
    "stars": _stars,
    "lengths": _lengths,
    "qualities": _qualities,
    "campaigns": _campaigns,
    "encoding": _encoding,
    "missing": _missing,
}


def _bars(said: str, values: Mapping[str, int], language: Language) -> str:
    bars = [
        Row(name, number, language.number(number), place % 2 + 1)
        for place, (name, number) in enumerate(values.items())
    ]
    return rows(said, bars)


def _sale(figures: Figures, language: Language) -> list[tuple[str, str]]:
    """Picture by picture with its title: what is not for sale, and by which status."""
    sale, found = figures["sale"], []
    for name in ("not_for_sale", "by_status"):
        bars = [
            Row(one or "–", number, language.number(number), 2, foreign=True)
            for one, number in sale.get(name, {}).items()
        ]
        if bars:
            title = language.say(f"title.{name}")
            found.append((title, rows(title, bars)))
    return found


def _reason(found: Mapping[str, Any], language: Language) -> dict[str, Any]:
    name, foreign = _reason_name(found["reason"], language)
    return {**found, "name": name, "foreign": foreign}


def _reason_name(reason: str, language: Language) -> tuple[str, bool]:
    """In few words, and whether they are not of the language."""
    key = next((key for start, key in _REASONS.items() if reason.startswith(start)), None)
    if key is not None:
        return language.say(f"reason.{key}"), False
    told = tell(reason, language)
    return "".join(one.text for one in told), any(one.kind is Kind.FOREIGN for one in told)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
