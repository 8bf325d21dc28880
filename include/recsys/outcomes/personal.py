"""What is kept of whom lists were shown to and what they did with them; see `recsys.personal`."""

import itertools
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.config import load_config
from recsys.erasing import from_parquet
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.daily import KEPT
from recsys.outcomes.job import make_again
from recsys.outcomes.partitions import leave_out, look_at_all, table_of, take_over
from recsys.personal import (
    Doubtful,
    Erased,
    Forgot,
    Found,
    PersonalData,
    Record,
    Sought,
    Unread,
    files_at,
    place_of,
)
from recsys.served_lists import ROLL_SECONDS, SERVED_KEY, SUFFIX, read_segment
from recsys.settings import Settings
from recsys.traces import in_parquet, of_rows, owners_of, reading, unread

_WAITING: Final = ("open", "sealed", "collected", "seen")
_SEGMENTS: Final = tuple(f"{SERVED_KEY}/{at}/*{SUFFIX}" for at in _WAITING)
_DAYS: Final = f"{SERVED_KEY}/day=*/*.parquet"
_EVENTS: Final = "data/outcomes/events/*.parquet"
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_OF_UNITS: Final = tuple(f"data/outcomes/day=*/{one}.parquet" for one in ("outcomes", "units"))


def session_pairs(settings: Settings) -> Iterator[pa.Table]:
    """Tables of USER and SESSION of all served lists."""
    look_at_all(settings)
    for path in files_at(settings, _DAYS):
        with pq.ParquetFile(path) as file:
            yield file.read([schema.USER, schema.SESSION])
    for path in files_at(settings, *_SEGMENTS):
        for block in read_segment(path).blocks:
            yield table_of(block).select([schema.USER, schema.SESSION])


def id_columns(settings: Settings) -> Iterator[pa.ChunkedArray]:
    """The customers of lists that wait; of all else the files themselves say which column it is."""
    for path in files_at(settings, *_SEGMENTS):
        with reading(path):
            yield from (table_of(block)[schema.USER] for block in read_segment(path).blocks)


def _in_segments(settings: Settings, sought: Sought) -> Found:
    for path in files_at(settings, *_SEGMENTS):
        with reading(path) as problem:
            for block in read_segment(path).blocks:
                table, place = table_of(block), place_of(settings, path)
                yield from of_rows(sought, place, table, [schema.USER], session=schema.SESSION)
        yield from unread(settings, path, problem)


def _in_days(settings: Settings, sought: Sought) -> Found:
    paths = files_at(settings, _DAYS)
    yield from in_parquet(settings, sought, paths, [schema.USER], session=schema.SESSION)


def _in_events(settings: Settings, sought: Sought) -> Found:
    paths = files_at(settings, _EVENTS)
    yield from in_parquet(settings, sought, paths, [schema.USER], session=schema.SESSION)


def _in_figures(settings: Settings, sought: Sought) -> Found:
    """A unit is a customer, or a session without one."""
    yield from in_parquet(settings, sought, files_at(settings, *_OF_UNITS), ["unit"])


def _out_of_segments(settings: Settings, sought: Sought) -> Forgot:
    """What waits is taken over into days, where `_out_of_days` finds it; a living writer seals what
    it has in a minute."""
    deadline = time.monotonic() + 2 * ROLL_SECONDS
    take_over(settings)
    while waiting := {found.place for found in _in_segments(settings, sought) if _is_open(found)}:
        if time.monotonic() > deadline:
            yield from (Unread(place, "is still being written") for place in sorted(waiting))
            break
        time.sleep(1)
        take_over(settings)
    shutil.rmtree(settings.home / SERVED_KEY / "seen", ignore_errors=True)


def _is_open(found: Record | Unread | Doubtful) -> bool:
    return isinstance(found, Record) and found.place.startswith(f"{SERVED_KEY}/open/")


def _out_of_days(settings: Settings, sought: Sought) -> Forgot:
    def owners(lists: pa.Table) -> pa.ChunkedArray:
        return owners_of(sought, lists, [schema.USER], schema.SESSION)

    for path, gone in leave_out(settings, owners):
        yield Erased(place_of(settings, path), gone)


def _out_of_events(settings: Settings, sought: Sought) -> Forgot:
    """Days whose lists and events can be had are made again, events and figures: they are then
    those of a shop without the customers. Of older ones the rows go."""
    found = itertools.chain(_in_events(settings, sought), _in_figures(settings, sought))
    counts = Counter(one.place for one in found if isinstance(one, Record))
    make_again(
        settings, {date.fromisoformat(found[0]) for found in map(_DATE.search, counts) if found}
    )
    events, units = files_at(settings, _EVENTS), files_at(settings, *_OF_UNITS)
    rest = [
        *from_parquet(settings, sought, events, [schema.USER], session=schema.SESSION),
        *from_parquet(settings, sought, units, ["unit"]),
    ]
    yield from (Erased(*one) for one in counts.items())
    yield from (one for one in rest if not isinstance(one, Erased))


def _keep_served_days(settings: Settings) -> float:
    return load_config(settings, OutcomesConfig).keep_served_days


PERSONAL: Final = (
    PersonalData(
        "lists that wait for the job `outcomes`",
        _SEGMENTS,
        "to count what became of them",
        "until the next run, an hour; at most {days} days (`keep_served_days` of `outcomes.yaml`)",
        _in_segments,
        _keep_served_days,
        _out_of_segments,
    ),
    PersonalData(
        "lists that were shown",
        (_DAYS,),
        "to count what became of them, and to tell what another model would have done",
        "{days} days (`keep_served_days` of `outcomes.yaml`)",
        _in_days,
        _keep_served_days,
        _out_of_days,
    ),
    PersonalData(
        "what was done after a list was shown",
        (_EVENTS,),
        "figures of a day are made again when late events come",
        f"{KEPT.days} days",
        _in_events,
        forget=_out_of_events,
    ),
    PersonalData(
        "outcomes by customer",
        _OF_UNITS,
        "experiments compare customers, not clicks",
        f"{KEPT.days} days",
        _in_figures,
        forget=None,  # with the events
    ),
)
