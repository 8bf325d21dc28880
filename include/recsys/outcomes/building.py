"""Makes the days of which lists or events are not what they were: first which list each event of a
day belongs to, then what became of the lists of each day."""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from recsys import schema
from recsys.alerting import Alert, Severity
from recsys.arrays import UInt64Array
from recsys.config import load_config
from recsys.data.event_log import read_events
from recsys.data.keys import hash_texts
from recsys.errors import InputError
from recsys.outcomes import attribution, figures
from recsys.outcomes.attribution import FATE, LIST_TIME, REACH, Fate, Search
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.daily import (
    EVENTS_SCHEMA,
    GONE,
    OtherFormatError,
    events_of,
    fault_of,
    fault_of_events,
    figured_days,
    figures_of,
    has_events,
    read_happened,
    stamp_of,
    write_day,
    write_events,
)
from recsys.outcomes.ledger import Ledger, digest_of, digest_of_rows
from recsys.outcomes.partitions import read_lists, served_stamps, tell_once
from recsys.publishing import set_aside
from recsys.schedule import load_zone
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_REACH_DAYS: Final = REACH.days
DAMAGE_ALERT = "outcomes_damaged"
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
        self._damaged: set[date] = set()  # days whose figures cannot be read
        self._without_events: set[date] = set()  # days whose events are gone, or cannot be read

    def find_damage(self) -> list[date]:
        """Look for files that are not what was written, and cannot be read: `attribute` and
        `figure` make those of every day again, whatever else they are asked for. Figures whose
        lists are gone are set aside, and that is told. Returns the days of all."""
        attributed = {date.fromisoformat(day) for day in self.ledger.attributed}
        for day in self.in_reach(attributed):
            path = events_of(self._settings, day)
            if not has_events(self._settings, day) or self._fault(path, fault_of_events, day):
                self._without_events.add(day)
        given_up = set()
        for day in figured_days(self._settings):
            path = figures_of(self._settings, day)
            fault = self._fault(path, fault_of, day)
            if fault and day in self.in_reach(self.stamps):
                self._damaged.add(day)
            elif isinstance(fault, OtherFormatError):  # it is what it is, and looked at once
                self._note_sound(path)
            elif fault:
                given_up.add(day)
                self._give_up(path, fault)
        there = {events_of(self._settings, day).name for day in attributed}
        there |= {figures_of(self._settings, day).name for day in figured_days(self._settings)}
        sound = self.ledger.sound
        self.ledger.sound = {name: stamp for name, stamp in sound.items() if name in there}
        return sorted(self._without_events | self._damaged | given_up)

    def _fault(
        self, path: Path, look: Callable[[Settings, date], InputError | None], day: date
    ) -> InputError | None:
        """Why a file or folder of `day` cannot be read; it is only read if it is another."""
        stamp, before = stamp_of(path), self.ledger.sound.get(path.name, "")
        if before == stamp:
            return None
        fault = look(self._settings, day)
        if before and before.count(GONE) < stamp.count(GONE):
            fault = InputError(f"{path}: a file that was written is gone")
        if fault is None:
            self.ledger.sound[path.name] = stamp
        else:
            logger.warning("Outcomes are damaged | reason=%s", fault)
        return fault

    def _give_up(self, path: Path, fault: InputError) -> None:
        aside = set_aside(path).relative_to(self._settings.home).as_posix()
        file = path.relative_to(self._settings.home).as_posix()
        message = f"{file} was damaged and is set aside as {aside}; its lists are gone: {fault}"
        facts = {"file": file, "reason": str(fault)}
        alert = Alert(DAMAGE_ALERT, message, Severity.WARNING, facts=facts)
        tell_once(self._settings, alert, aside)

    def _note_sound(self, path: Path) -> None:
        self.ledger.sound[path.name] = stamp_of(path)

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

    def days_with(self, ids: UInt64Array) -> list[date]:
        """The days on which an event happened whose id has one of these hashes."""
        if not len(ids):
            return []

        def has_one(day: date) -> bool:
            happened = read_happened(self._settings, day, [schema.EVENT])
            return bool(np.isin(hash_texts(happened[schema.EVENT]), ids).any())

        days = (date.fromisoformat(day) for day in self.ledger.attributed)
        return [day for day in self.in_reach(set(days) - self._without_events) if has_one(day)]

    def attribute(self, days: Iterable[date], *, again: bool = False) -> list[date]:
        """Look for the lists of the events that happened on `days`, where events or lists are not
        what they were, or of all (`again`). Returns the days of which it did."""
        done: list[date] = []
        for group in _groups(self.in_reach({*days, *self._without_events})):
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
        there, made = set(figured_days(self._settings)) - self._damaged, []
        chosen = set(self.stamps) if only is None else {*only, *self._damaged} & set(self.stamps)
        for day in self.in_reach(chosen):
            made_of = self._figured_of(day)
            if again or day not in there or self.ledger.days.get(str(day)) != made_of:
                write_day(self._settings, day, self._figures(day))
                self._note_sound(figures_of(self._settings, day))
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
        return with_these and day not in self._without_events

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
        self._note_sound(events_of(self._settings, day))
        self._without_events.discard(day)
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
