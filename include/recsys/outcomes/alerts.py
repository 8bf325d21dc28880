"""What is wrong with the outcomes: a rate that fell, tracking that fell silent, lost lists.

Each is told once, until it is over. docs/decisions/139 says why these and how they are judged."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.alerting import Alert, AlertManager, Severity
from recsys.config import load_config
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.daily import figured_days, read_totals
from recsys.outcomes.ledger import Ledger
from recsys.outcomes.partitions import TIME, lost_lists, read_lists
from recsys.outcomes.period import METRICS, Metric, Period
from recsys.outcomes.rates import Sums, proven_fall, silent_after
from recsys.settings import Settings

REFERENCE_DAYS: Final = 28
SETTLED: Final = timedelta(hours=6)
"""A day is judged when it has been over for so long: most of what it led to has come."""

WATCHED: Final = {
    "click": (METRICS["click_rate"], 1),
    "purchase": (Metric("prompt_purchases", "lists"), 7),
}
"""Rates that are watched, and how many days are judged together."""

MIN_FALL: Final = 0.1
"""Rates that are proven to have fallen by less than this share are nobody's alarm."""

MIN_LOST_SHARE: Final = 0.01
LOST_DAYS: Final = 7
MIN_SERVED: Final = 1000
"""So many lists must have been served in `LOST_DAYS` before the share of the lost says anything."""

PATIENCE: Final = timedelta(hours=1)
"""Lists of the last hour may still lead to something."""
_FURTHEST: Final = timedelta(days=7)  # silence is looked at no further back


class Fall(NamedTuple):
    """The last judged day, the rates of the judged days and of those before, and by which share it
    fell at least (see `rates.proven_fall`)."""

    day: date
    now: float | None
    before: float | None
    proven: float | None


class Silence(NamedTuple):
    """How many customers were shown lists since the last event, and after how many that is no
    chance any more; None while there never was an event."""

    customers: int
    bound: float | None
    since: datetime | None


def tell(
    settings: Settings, ledger: Ledger, now: datetime, zone: ZoneInfo, page: str
) -> dict[str, Any]:
    """Alert for what is wrong at `now`, and resolve what is right again; `page` is the report's.
    Returns ``alerts`` (names), ``proven_falls`` by rate, ``silence`` (share of the bound) and
    ``lost_share``; None where nothing can be said."""
    manager, found = AlertManager(settings), []
    period, last = recent_days(settings, now, zone)
    falls = {name: fall_of(period, last, name) for name in WATCHED}
    for name, fall in falls.items():
        if fall.proven is not None and tell_of_fall(manager, name, fall, page):
            found.append(f"{name}_rate_fell")
    silence = silence_of(period, ledger)
    if silence.bound is not None and tell_of_silence(manager, silence, page):
        found.append("tracking_silent")
    lost, served = _lost(settings, now.astimezone(zone).date())
    if lost + served >= MIN_SERVED and tell_of_losses(manager, lost, served, page):
        found.append("served_lists_lost")
    return {
        "alerts": found,
        "proven_falls": {name: fall.proven for name, fall in falls.items()},
        "silence": None if silence.bound is None else silence.customers / silence.bound,
        "lost_share": lost / (lost + served) if lost + served else None,
    }


def recent_days(settings: Settings, now: datetime, zone: ZoneInfo) -> tuple[Period, date]:
    """The last settled day, and it with all that it may be compared with."""
    last = (now - SETTLED).astimezone(zone).date() - timedelta(days=1)
    most = REFERENCE_DAYS + max(days for _, days in WATCHED.values())
    days = [day for day in figured_days(settings) if last - timedelta(days=most) < day <= last]
    return Period(settings, days), last


def fall_of(period: Period, last: date, name: str) -> Fall:
    """Whether the rate `name` of `WATCHED` fell."""
    metric, count = WATCHED[name]
    first = last - timedelta(days=count - 1)
    sums = {day: period.sums(metric, day=number) for number, day in enumerate(period.days)}
    judged = [sums[day] for day in period.days if day >= first]
    before = first - timedelta(days=REFERENCE_DAYS)
    reference = [sums[day] for day in period.days if before <= day < first]
    now, then = (_pooled(part) for part in (judged, reference))
    return Fall(last, now, then, proven_fall(judged, reference) if judged else None)


def count_quiet(settings: Settings, ledger: Ledger, now: datetime, zone: ZoneInfo) -> None:
    """Bring `ledger.quiet` up to date: the customers who were shown lists since the last event."""
    until = now - PATIENCE
    began = datetime.fromisoformat(ledger.last_event) if ledger.last_event else until - _FURTHEST
    since = max(began, until - _FURTHEST)
    first, last = (moment.astimezone(zone).date() for moment in (since, until))
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    lists = read_lists(settings, days, [TIME, schema.USER, schema.SESSION])
    ledger.quiet = customers_between(lists, since, until, load_config(settings, OutcomesConfig))


def customers_between(
    lists: pa.Table, since: datetime, until: datetime, config: OutcomesConfig
) -> int:
    """How many customers were shown lists after `since` and until `until`; robots are none."""
    inside = pc.and_(pc.greater(lists[TIME], since), pc.less_equal(lists[TIME], until))
    lists = lists.filter(inside)
    users, sessions = lists[schema.USER], lists[schema.SESSION]
    units = pc.if_else(pc.not_equal(users, ""), users, sessions)
    counts = pc.value_counts(units)
    names, often = counts.field("values"), np.asarray(counts.field("counts"))
    person = ~np.asarray(pc.is_in(names, value_set=pa.array(["", *config.robots], pa.string())))
    return int((person & (often <= config.robot_lists_per_day)).sum())


def silence_of(period: Period, ledger: Ledger) -> Silence:
    """Whether it is no chance that no event came. A shop whose events come by nightly files is
    silent every day: twice the longest silence of the last weeks is none."""
    totals = period.totals.values()
    users = sum(one["users"] for one in totals)
    active = sum(one["active_users"] for one in totals)
    since = datetime.fromisoformat(ledger.last_event) if ledger.last_event else None
    if not active or since is None:
        return Silence(ledger.quiet, None, since)
    usual = 2 * max(ledger.longest_quiet.values(), default=0)
    return Silence(ledger.quiet, max(silent_after(active / users), usual), since)


def silent_days(totals: Mapping[date, Mapping[str, Any]], until: date) -> list[date]:
    """The days before `until` on which no event happened, though so many customers were shown lists
    that this is no chance. `totals` are the plain numbers of days, see `figures.DayFigures`."""
    users = sum(one["users"] for one in totals.values())
    active = sum(one["active_users"] for one in totals.values())
    if not active:
        return []
    bound = silent_after(active / users)
    heard = {
        day
        for day, one in totals.items()
        if any(count for kinds in one["happened"].values() for count in kinds.values())
    }
    lists = (day for day, one in totals.items() if one["users"] >= bound)
    return [day for day in lists if day < until and day not in heard]


def _pooled(days: Sequence[Sums]) -> float | None:
    numerators, denominators = (sum(day[side].sum() for day in days) for side in (0, 1))
    return float(numerators / denominators) if denominators else None


def _lost(settings: Settings, today: date) -> tuple[int, int]:
    """How many lists of the last days got lost, and how many did not."""
    days = [day for day in figured_days(settings) if day > today - timedelta(days=LOST_DAYS)]
    every = [read_totals(settings, day) for day in days]
    served = sum(totals["lists"] + totals["robots"]["lists"] for totals in every)
    return sum(lost_lists(settings, days).values()), served


def tell_of_fall(manager: AlertManager, name: str, fall: Fall, page: str) -> bool:
    """Whether the rate `name` fell so far that somebody has to know."""
    proven = fall.proven or 0.0
    if proven <= MIN_FALL:
        manager.resolve(f"{name}_rate_fell", f"the {name} rate is no longer proven to be lower")
        return False
    facts = {
        "day": str(fall.day),
        "rate": _percent(fall.now),
        "rate_before": _percent(fall.before),
        "proven": _percent(proven),
        "page": page,
    }
    message = (
        f"the {name} rate fell from {facts['rate_before']} to {facts['rate']},"
        f" by at least {facts['proven']} of it"
    )
    manager.deliver(
        Alert(f"{name}_rate_fell", message, Severity.WARNING, facts=facts, until_resolved=True)
    )
    return True


def tell_of_silence(manager: AlertManager, silence: Silence, page: str) -> bool:
    """Whether tracking is silent."""
    if silence.bound is None or silence.since is None or silence.customers <= silence.bound:
        manager.resolve("tracking_silent", "events are coming again")
        return False
    since = manager.local_time(silence.since)
    facts = {"customers": str(silence.customers), "since": since, "page": page}
    message = (
        f"no event has come since {since}, though {silence.customers} customers were shown lists;"
        f" with {silence.bound:.0f} that is no chance any more"
    )
    manager.deliver(
        Alert("tracking_silent", message, Severity.CRITICAL, facts=facts, until_resolved=True)
    )
    return True


def tell_of_losses(manager: AlertManager, lost: int, served: int, page: str) -> bool:
    """Whether too many lists were lost, when so many were not."""
    share = lost / (lost + served)
    if share <= MIN_LOST_SHARE:
        manager.resolve("served_lists_lost", "fewer served lists are lost")
        return False
    facts = {"lost": str(lost), "lost_share": _percent(share), "page": page}
    message = f"{lost} served lists of the last {LOST_DAYS} days are lost, {_percent(share)}"
    manager.deliver(
        Alert("served_lists_lost", message, Severity.WARNING, facts=facts, until_resolved=True)
    )
    return True


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"
