"""The hourly job: take served lists over, find what became of them, and tell."""

import logging
import time
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

import pandas as pd
from filelock import FileLock

from recsys import schema
from recsys.data.event_log import events_received, ids_taken_back
from recsys.errors import RequestError
from recsys.merchandising.exploring import IMPRESSION_DAYS, Impressions, write_impressions
from recsys.outcomes import alerts
from recsys.outcomes.attribution import REACH, WINDOWS
from recsys.outcomes.building import Builder
from recsys.outcomes.daily import figured_days, read_day, restore_rows
from recsys.outcomes.ledger import read_ledger
from recsys.outcomes.partitions import take_over
from recsys.schedule import DataInterval, load_zone
from recsys.settings import Settings

logger = logging.getLogger(__name__)

OVERLAP: Final = timedelta(hours=6)
"""Events that were received so long before the last run are looked at again: those of another
machine come in late."""
DAILY_OVERLAP: Final = timedelta(days=30)
"""The same, for the first run of a day."""


class Span(NamedTuple):
    """Days to make, both inclusive, as local dates."""

    first: date
    last: date

    @property
    def days(self) -> list[date]:
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]


def span_of(first: str | None, last: str | None, today: date) -> Span | None:
    """The days from `first` to `last` (ISO dates; without one of them, the other; `today` at the
    latest), None without both. Raises `RequestError` if they are none."""
    if first is None and last is None:
        return None
    try:
        begin = date.fromisoformat(first or last or "")
        end = date.fromisoformat(last or first or "")
    except ValueError:
        raise RequestError(f"from {first}, to {last}: expected days such as 2026-03-10") from None
    if end < begin:
        raise RequestError(f"to: {end} is before from: {begin}")
    if begin > today:
        raise RequestError(f"from: {begin} is still to come; today is {today}")
    return Span(begin, min(end, today))


def compute_outcomes(
    settings: Settings,
    interval: DataInterval,
    *,
    first: str | None = None,
    last: str | None = None,
    is_backfill: bool = False,
) -> dict[str, Any]:
    """Find out what became of the served lists as they are known at the end of `interval`.

    Makes the days whose lists or events are not what they were. From `first` to `last` (local
    dates), it makes those days again, whatever they were made of; as a backfill, the days of the
    interval. Returns ``day`` (the last one), ``made`` (days), ``attributed`` (how many days' events
    were looked at again), ``taken_over``, ``lost`` (lists), ``repaired`` (days with damaged files),
    ``duration_seconds``. Raises `InputError` if days or configuration are bad."""
    began = time.monotonic()
    today = interval.end.astimezone(load_zone(settings)).date()
    span = span_of(first, last, today)
    taken = take_over(settings)
    with _alone(settings):
        builder = Builder(settings, read_ledger(settings), today)
        repaired = builder.find_damage()
        if span is None and not is_backfill:
            attributed, made = _whatever_is_new(settings, builder, interval.end)
        else:
            span = span or _span_of_interval(interval, builder)
            attributed, made = _the_days(builder, span, again=not is_backfill)
        restored = restore_rows(settings)
    summary = {
        "day": str(today if span is None else span.last),
        "made": [str(day) for day in made],
        "attributed": len(attributed),
        "taken_over": taken.lists,
        "lost": taken.lost,
        "repaired": [str(day) for day in repaired],
        "duration_seconds": round(time.monotonic() - began, 2),
    }
    logger.info("Outcomes computed | %s, restored=%s", summary, restored)
    return summary


def make_again(settings: Settings, days: Iterable[date]) -> None:
    """Make `days` again whose events are not what they were, and those whose lists are not, as far
    as these are still there: where somebody has taken customers out of them."""
    with _alone(settings):
        today = datetime.now(load_zone(settings)).date()
        builder = Builder(settings, read_ledger(settings), today)
        builder.attribute({*days, *builder.touched_by_lists()})
        if builder.figure():
            _note_impressions(settings, builder)
        builder.ledger.save(settings)


def _alone(settings: Settings) -> FileLock:
    """Two who make days at a time would lose each other's notes in the ledger."""
    settings.outcomes.mkdir(parents=True, exist_ok=True)
    return FileLock(settings.outcomes / ".lock")


def _whatever_is_new(
    settings: Settings, builder: Builder, now: datetime
) -> tuple[list[date], list[date]]:
    ledger = builder.ledger
    since = builder.midnight(builder.first)
    if ledger.seen_until is not None:
        seen = datetime.fromisoformat(ledger.seen_until).astimezone(builder.zone)
        since = max(since, seen - (OVERLAP if seen.date() == builder.today else DAILY_OVERLAP))
    received = events_received(settings, since)
    days = set(builder.days_of(received[schema.TIMESTAMP]).unique())
    days |= set(builder.days_with(ids_taken_back(settings, since)))
    attributed = builder.attribute(days | set(builder.touched_by_lists()))
    made = builder.figure()
    _note_events(settings, builder, received, now)
    _note_impressions(settings, builder)
    ledger.seen_until = now.isoformat()
    ledger.forget_before(str(builder.first - REACH))
    ledger.save(settings)
    return attributed, made


def _the_days(builder: Builder, span: Span, *, again: bool) -> tuple[list[date], list[date]]:
    """All of `span`, and no figures beside it. What its lists led to came within `REACH`."""
    upto = Span(span.first, span.last + REACH)
    attributed = builder.attribute(upto.days, again=again)
    return attributed, builder.figure(only=span.days, again=again)


def _span_of_interval(interval: DataInterval, builder: Builder) -> Span:
    last = interval.end - timedelta(microseconds=1)
    ends = (one.astimezone(builder.zone).date() for one in (interval.start, last))
    return Span(*ends)


def _note_events(
    settings: Settings, builder: Builder, received: pd.DataFrame, now: datetime
) -> None:
    """Remember when the last event came that can be an outcome, and how long it was quiet."""
    ledger, today = builder.ledger, str(builder.today)
    kinds = received[received[schema.KIND].isin(list(WINDOWS))]
    latest = kinds[schema.RECEIVED].max().isoformat() if len(kinds) else ""
    if latest > (ledger.last_event or ""):
        ledger.longest_quiet[today] = max(ledger.quiet, ledger.longest_quiet.get(today, 0))
        ledger.last_event = latest
    alerts.count_quiet(settings, ledger, now, builder.zone)


def _note_impressions(settings: Settings, builder: Builder) -> None:
    """Tell the service how often each product was shown and clicked lately."""
    days = Span(builder.today - timedelta(days=IMPRESSION_DAYS - 1), builder.today).days
    there = sorted(set(days) & set(figured_days(settings)))
    columns = [schema.PRODUCT, "shown", "clicks"]
    frames = [read_day(settings, day, "products", columns) for day in there]
    products = {}
    if frames:
        sums = pd.concat(frames).groupby(schema.PRODUCT)[columns[1:]].sum()
        counts = zip(sums["shown"].tolist(), sums["clicks"].tolist(), strict=True)
        products = dict(zip(sums.index.tolist(), counts, strict=True))
    write_impressions(settings, Impressions(str(builder.today), products))


def alert_on_outcomes(settings: Settings, interval: DataInterval, page: str) -> dict[str, Any]:
    """Alert for what is wrong with the outcomes at the end of `interval`; see `alerts.tell`."""
    return alerts.tell(settings, read_ledger(settings), interval.end, load_zone(settings), page)
