"""What is kept of whom lists were shown to and what they did with them; see `recsys.personal`."""

from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.config import load_config
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.daily import KEPT
from recsys.outcomes.partitions import look_at_all, table_of
from recsys.personal import Found, PersonalData, Sought, files_at, place_of
from recsys.served_lists import SERVED_KEY, SUFFIX, read_segment
from recsys.settings import Settings
from recsys.traces import in_parquet, of_rows, reading, unread

_WAITING: Final = ("open", "sealed", "collected", "seen")
_SEGMENTS: Final = tuple(f"{SERVED_KEY}/{at}/*{SUFFIX}" for at in _WAITING)
_DAYS: Final = f"{SERVED_KEY}/day=*/*.parquet"
_EVENTS: Final = "data/outcomes/events/*.parquet"
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
    ),
    PersonalData(
        "lists that were shown",
        (_DAYS,),
        "to count what became of them, and to tell what another model would have done",
        "{days} days (`keep_served_days` of `outcomes.yaml`)",
        _in_days,
        _keep_served_days,
    ),
    PersonalData(
        "what was done after a list was shown",
        (_EVENTS,),
        "figures of a day are made again when late events come",
        f"{KEPT.days} days",
        _in_events,
    ),
    PersonalData(
        "outcomes by customer",
        _OF_UNITS,
        "experiments compare customers, not clicks",
        f"{KEPT.days} days",
        _in_figures,
    ),
)
