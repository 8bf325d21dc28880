"""Makes the days of which lists or events are not what they were: first which list each event of a
day belongs to, then what became of the lists of each day."""

import logging
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd

from recsys import schema
from recsys.config import load_config
from recsys.data.event_log import read_events
from recsys.outcomes import attribution, figures
from recsys.outcomes.attribution import FATE, LIST_TIME, REACH, Fate, Search
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.daily import (
    EVENTS_SCHEMA,
    figured_days,
    has_events,
    read_happened,
    write_day,
    write_events,
)
from recsys.outcomes.ledger import Ledger, digest_of, digest_of_rows
from recsys.outcomes.partitions import read_lists, served_stamps
from recsys.schedule import load_zone
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_REACH_DAYS: Final = REACH.days
_AT_ONCE: Final = 8
"""Days of events whose lists are looked for in one pass over the lists."""

_EVENT_COLUMNS: Final = (
    *(schema.EVENT, schema.USER, schema.SESSION, schema.PRODUCT, schema.KIND),
    *(schema.TIMESTAMP, schema.QUANTITY, schema.VALUE, schema.RECOMMENDATION),
)


class Builder:
    """Makes days, and notes in the `ledger` of what; nothing after `today` (a local date), and
    nothing whose lists may be gone already (`first`)."""

    def __init__(self, settings: Settings, ledger: Ledger, today: date) -> None:
        self._settings, self.ledger, self.today = settings, ledger, today
        self._config, self.zone = load_config(settings, OutcomesConfig), load_zone(settings)
        kept = timedelta(days=self._config.keep_served_days)
        self.first = today - kept + REACH
        self.stamps = {
            day: stamp
            for day, stamp in served_stamps(settings).items()
            if today - kept <= day <= today
        }
        config = self._config
        self._rules = digest_of(
            config.robot_lists_per_day, config.robot_events_per_day, *config.robots
        )

    def in_reach(self, days: Iterable[date]) -> list[date]:
        """The days that can be made, in order."""
        return sorted(day for day in set(days) if self.first <= day <= self.today)

    def days_of(self, moments: pd.Series) -> pd.Series:
        """The local dates of moments."""
        return moments.dt.tz_convert(self.zone).dt.date

    def touched_by_lists(self) -> list[date]:
        """The days whose events may belong to lists that were not there before."""
        every = {
            day + timedelta(days=after) for day in self.stamps for after in range(_REACH_DAYS + 1)
        }
        return [day for day in self.in_reach(every) if not self._is_attributed(day)]

    def attribute(self, days: Iterable[date], *, again: bool = False) -> list[date]:
        """Look for the lists of the events that happened on `days`, where events or lists are not
        what they were, or of all (`again`). Returns the days of which it did."""
        done: list[date] = []
        for group in _groups(self.in_reach(days)):
            begin, end = self.midnight(group[0]), self.midnight(group[-1] + timedelta(days=1))
            events = read_events(self._settings, begin, end)
            local = self.days_of(events[schema.TIMESTAMP])
            searches = {}
            for day in group:
                happened = events[(local == day).to_numpy()]
                self.ledger.events[str(day)] = digest_of_rows(happened, _EVENT_COLUMNS)
                if again or not self._is_attributed(day):
                    searches[day] = Search(happened, self._config)
            self._look(searches)
            for day, search in searches.items():
                self._keep(day, search.result())
            done += searches
            self.ledger.save(self._settings)
        return done

    def figure(self, *, only: Iterable[date] | None = None, again: bool = False) -> list[date]:
        """Make the figures of the days whose lists or outcomes are not what they were, or of all
        (`again`) of the days in `only`. Returns those that were made."""
        there, made = set(figured_days(self._settings)), []
        for day in self.in_reach(self.stamps if only is None else set(only) & set(self.stamps)):
            made_of = self._figured_of(day)
            if again or day not in there or self.ledger.days.get(str(day)) != made_of:
                write_day(self._settings, day, self._figures(day))
                self.ledger.days[str(day)] = made_of
                self.ledger.save(self._settings)
                made.append(day)
        return made

    def midnight(self, day: date) -> datetime:
        """The moment at which a local date begins."""
        return datetime(day.year, day.month, day.day, tzinfo=self.zone)

    def _attributed_with(self, day: date) -> str:
        lists = (self.stamps.get(day - timedelta(days=back)) for back in range(_REACH_DAYS + 1))
        return digest_of(self.ledger.events.get(str(day)), self._rules, *lists)

    def _is_attributed(self, day: date) -> bool:
        with_these = self.ledger.attributed.get(str(day)) == self._attributed_with(day)
        return with_these and has_events(self._settings, day)

    def _look(self, searches: dict[date, Search]) -> None:
        """One pass over the lists of all days that any of the searches can reach."""
        reach: dict[date, list[Search]] = {}
        for day, search in searches.items():
            back = search.looks_back
            before = set() if back is None else {day - timedelta(n) for n in range(back.days + 1)}
            for one in before | set(self.days_of(search.named_at())):
                reach.setdefault(one, []).append(search)
        for day in sorted(reach.keys() & self.stamps.keys()):
            lists = read_lists(self._settings, [day], attribution.LIST_COLUMNS)
            for search in reach[day]:
                search.look_in(lists)

    def _keep(self, day: date, result: pd.DataFrame) -> None:
        write_events(self._settings, day, result)
        outcomes = result[result[FATE] == Fate.ATTRIBUTED]
        by_day = outcomes.groupby(self.days_of(outcomes[LIST_TIME]))
        self.ledger.reaches[str(day)] = {
            str(of): digest_of_rows(rows, EVENTS_SCHEMA.names) for of, rows in by_day
        }
        self.ledger.attributed[str(day)] = self._attributed_with(day)

    def _reaching(self, day: date) -> list[tuple[str, str]]:
        """The days with outcomes of the lists of `day`, and their digests."""
        reaches = sorted(self.ledger.reaches.items())
        return [(event_day, by[str(day)]) for event_day, by in reaches if str(day) in by]

    def _figured_of(self, day: date) -> str:
        happened = self.ledger.events.get(str(day))
        return digest_of(self.stamps[day], happened, self._rules, *self._reaching(day))

    def _figures(self, day: date) -> figures.DayFigures:
        lists = read_lists(self._settings, [day], figures.LIST_COLUMNS)
        happened = read_happened(self._settings, day)
        others = (date.fromisoformat(name) for name, _ in self._reaching(day))
        frames = [happened if one == day else read_happened(self._settings, one) for one in others]
        outcomes = pd.concat(frames or [happened], ignore_index=True)
        of_lists = self.days_of(outcomes[LIST_TIME]) == day
        own = (outcomes[FATE] == Fate.ATTRIBUTED) & np.asarray(of_lists, dtype=np.bool_)
        return figures.day_figures(lists, outcomes[own], happened, self._config)


def _groups(days: Sequence[date]) -> list[list[date]]:
    """Days that follow one another, at most `_AT_ONCE` together."""
    groups: list[list[date]] = []
    for day in days:
        follows = groups and groups[-1][-1] + timedelta(days=1) == day
        if follows and len(groups[-1]) < _AT_ONCE:
            groups[-1].append(day)
        else:
            groups.append([day])
    return groups
