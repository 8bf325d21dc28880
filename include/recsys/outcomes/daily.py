"""What became of the served lists, by day: files, and the table ``daily_outcomes``.

``data/outcomes/day=YYYY-MM-DD/`` are the figures of the lists that were served on a day, as a whole
or not at all, ``data/outcomes/events/YYYY-MM-DD.parquet`` the events that happened on one, each
with its list. A day that is made again of the same lists and events has the same bytes."""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.database import HelperDatabase, transaction
from recsys.errors import InputError
from recsys.outcomes.attribution import FATE, ID_TYPE, LIST, LIST_TIME, POSITION
from recsys.outcomes.figures import COUNTS, DIMENSIONS, MONEY, WHOLE, DayFigures
from recsys.publishing import atomic_path, replaced_folder, write_json
from recsys.retention import Retention, RowRetention
from recsys.schedule import load_zone
from recsys.settings import Settings

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS daily_outcomes (
  day TEXT NOT NULL, placement TEXT NOT NULL, endpoint TEXT NOT NULL, model_id TEXT NOT NULL,
  source TEXT NOT NULL, experiment TEXT NOT NULL, variant TEXT NOT NULL,
  lists INTEGER NOT NULL, users INTEGER NOT NULL, items INTEGER NOT NULL,
  clicks INTEGER NOT NULL, carts INTEGER NOT NULL, purchases INTEGER NOT NULL,
  value REAL NOT NULL,
  PRIMARY KEY (day, placement, endpoint, model_id, source, experiment, variant)
);
"""
_COLUMNS: Final = (
    *("day", schema.PLACEMENT, "endpoint", "model_id", "source", "experiment", "variant"),
    *(*COUNTS, "value"),
)

KEPT: Final = timedelta(days=400)
"""Figures stay so long: a season can be compared with that of the year before."""

_DAY: Final = "day="
_EVENTS: Final = "events"
_TEXT: Final = pa.string()
_MOMENT: Final = pa.timestamp("us", "UTC")

EVENTS_SCHEMA: Final = pa.schema(
    [
        *((name, _TEXT) for name in (schema.EVENT, schema.USER, schema.SESSION, schema.PRODUCT)),
        (schema.KIND, _TEXT),
        (schema.TIMESTAMP, _MOMENT),
        (schema.QUANTITY, pa.float32()),
        (schema.VALUE, pa.float64()),
        (FATE, _TEXT),
        (LIST, ID_TYPE),
        (LIST_TIME, _MOMENT),
        (POSITION, pa.int32()),
    ]
)
_FILES: Final = {
    "groups": pa.schema(
        [
            *((name, _TEXT) for name in (*DIMENSIONS, "source")),
            *((name, pa.int64()) for name in COUNTS),
            ("value", pa.float64()),
        ]
    ),
    "slices": pa.schema(
        [
            *((name, _TEXT) for name in ("slice", "key")),
            *((name, pa.int64()) for name in ("block", *WHOLE)),
            *((name, pa.float64()) for name in MONEY),
        ]
    ),
    "units": pa.schema(
        [
            *((name, _TEXT) for name in ("experiment", "variant", "unit")),
            *((name, pa.int64()) for name in ("lists", "clicks", "carts", "purchases")),
            ("value", pa.float64()),
            ("fallbacks", pa.int64()),
        ]
    ),
    "products": pa.schema(
        [
            (schema.PRODUCT, _TEXT),
            *((name, pa.int64()) for name in ("shown", "clicks", "carts", "purchases")),
            ("value", pa.float64()),
        ]
    ),
    "explored": pa.schema(
        [(schema.PRODUCT, _TEXT), *((name, pa.int64()) for name in (POSITION, "shown", "clicks"))]
    ),
    "outcomes": pa.schema(
        [
            (LIST, ID_TYPE),
            *((name, _TEXT) for name in (schema.EVENT, schema.PRODUCT, schema.KIND)),
            (schema.TIMESTAMP, _MOMENT),
            (schema.QUANTITY, pa.float32()),
            (schema.VALUE, pa.float64()),
            (POSITION, pa.int32()),
            *((name, _TEXT) for name in ("source", "unit", *DIMENSIONS)),
        ]
    ),
}
"""File of a day's folder, without its suffix -> its columns. A day on which no place was explored
has no ``explored``."""
_NAMES: Final = (*(f"{name}.parquet" for name in _FILES), "totals.json")
GONE: Final = "-"
"""In a stamp, for a file that is not there."""
_TOTALS: Final = {
    *(*WHOLE, *MONEY, "anonymous_lists", "active_users", "robots", "repeated", "unvalued"),
    "happened",
}


def write_events(settings: Settings, day: date, events: pd.DataFrame) -> None:
    """Write what `attribution.Search` says of the events that happened on `day`."""
    with atomic_path(events_of(settings, day)) as temporary:
        _write(temporary, events, EVENTS_SCHEMA)


def read_happened(
    settings: Settings, day: date, columns: Sequence[str] = EVENTS_SCHEMA.names
) -> pd.DataFrame:
    """The events that happened on `day`, each with its list. Raises `InputError` if they are not
    there or cannot be read."""
    return _read(events_of(settings, day), list(columns))


def has_events(settings: Settings, day: date) -> bool:
    """Whether `write_events` has written those of `day`."""
    return events_of(settings, day).is_file()


def figures_of(settings: Settings, day: date) -> Path:
    """The folder of the figures of `day`."""
    return settings.outcomes / f"{_DAY}{day}"


def events_of(settings: Settings, day: date) -> Path:
    """The file of the events that happened on `day`."""
    return settings.outcomes / _EVENTS / f"{day}.parquet"


def stamp_of(path: Path) -> str:
    """What tells whether a folder of figures, or a file of events, is still as it was, unread."""
    files = [path] if path.suffix else [path / name for name in _NAMES]
    stats = [one.stat() if one.exists() else None for one in files]
    return " ".join(GONE if one is None else f"{one.st_size}.{one.st_mtime_ns}" for one in stats)


class OtherFormatError(InputError):
    """What can be read lacks something: code of before wrote it."""


def fault_of(settings: Settings, day: date) -> InputError | None:
    """Why the figures of `day` cannot be read, None if they can."""
    try:
        for name, columns in _FILES.items():
            path = figures_of(settings, day) / f"{name}.parquet"
            if name != "explored" or path.exists():
                _require(path, columns)
        read_totals(settings, day)
    except InputError as error:
        return error
    return None


def fault_of_events(settings: Settings, day: date) -> InputError | None:
    """The same of the events that happened on `day`."""
    try:
        _require(events_of(settings, day), EVENTS_SCHEMA)
    except InputError as error:
        return error
    return None


def write_day(settings: Settings, day: date, figures: DayFigures) -> None:
    """Put the figures of the lists of `day` in the place of those before, files and table."""
    tables = {
        "groups": figures.cube,
        "slices": figures.slices,
        "units": figures.units,
        "products": figures.products,
        "outcomes": figures.events,
    }
    if len(figures.explored):
        tables["explored"] = figures.explored
    with replaced_folder(figures_of(settings, day)) as folder:
        for name, table in tables.items():
            _write(folder / f"{name}.parquet", table, _FILES[name])
        write_json(folder / "totals.json", {"day": str(day), **figures.totals})
    with _database(settings) as connection:
        _replace_rows(connection, day, figures.cube)


def figured_days(settings: Settings) -> list[date]:
    """The days that have figures, in order."""
    found = []
    for path in settings.outcomes.glob(f"{_DAY}*"):
        with contextlib.suppress(ValueError):
            found.append(date.fromisoformat(path.name.removeprefix(_DAY)))
    return sorted(found)


def read_day(
    settings: Settings, day: date, name: str, columns: list[str] | None = None
) -> pd.DataFrame:
    """The table `name` (a key of the files) of the figures of `day`. Raises `InputError` naming the
    file if it cannot be read."""
    return _read(figures_of(settings, day) / f"{name}.parquet", columns)


def read_explored(settings: Settings, day: date) -> pd.DataFrame:
    """What was explored on `day`, see `figures.DayFigures`. Raises `InputError` like `read_day`."""
    if not (figures_of(settings, day) / "explored.parquet").exists():
        return _FILES["explored"].empty_table().to_pandas()
    return read_day(settings, day, "explored")


def read_totals(settings: Settings, day: date) -> dict[str, Any]:
    """The plain numbers of `day`, see `figures.DayFigures`. Raises `InputError` like `read_day`."""
    path = figures_of(settings, day) / "totals.json"
    try:
        totals = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(totals, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    _require_names(path, _TOTALS, totals)
    return totals


def restore_rows(settings: Settings) -> int:
    """Fill in days that have files and no rows, as when the database was lost; how many."""
    with _database(settings) as connection:
        known = {row[0] for row in connection.execute("SELECT DISTINCT day FROM daily_outcomes")}
        lacking = [day for day in figured_days(settings) if str(day) not in known]
        for day in lacking:
            _replace_rows(connection, day, read_day(settings, day, "groups"))
    return len(lacking)


def outcome_retentions(settings: Settings) -> list[Retention | RowRetention]:
    """Figures, events and rows go when their day is older than `KEPT`."""
    events = settings.outcomes / _EVENTS

    def older(found: Iterable[Path]) -> list[Path]:
        limit = str(datetime.now(load_zone(settings)).date() - KEPT)
        return [path for path in found if path.name.removeprefix(_DAY)[:10] < limit]

    return [
        Retention("outcomes", settings.outcomes, lambda: older(settings.outcomes.glob(f"{_DAY}*"))),
        Retention("attributed events", events, lambda: older(events.glob("[0-9]*.parquet"))),
        RowRetention(
            *("outcome rows", settings.outcomes_db, "daily_outcomes"),
            *(KEPT, "day < substr(?, 1, 10)"),
        ),
    ]


def _write(path: Path, frame: pd.DataFrame, columns: pa.Schema) -> None:
    table = pa.Table.from_pandas(frame[columns.names], columns, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd")


def _read(path: Path, columns: list[str] | None) -> pd.DataFrame:
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns).to_pandas()
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from error


def _require(path: Path, columns: pa.Schema) -> None:
    """Raises `InputError` if a file cannot be read, or lacks one of the `columns`."""
    try:
        with pq.ParquetFile(path) as file:
            found = file.read().column_names
    except (OSError, pa.ArrowException, ValueError) as error:
        raise _unreadable(path, error) from error
    _require_names(path, columns.names, found)


def _require_names(path: Path, expected: Iterable[str], found: Iterable[str]) -> None:
    if lacking := set(expected) - set(found):
        hint = f"it lacks {', '.join(sorted(lacking))}"
        raise OtherFormatError(f"{path}: was written by another version; {hint}")


def _unreadable(path: Path, error: Exception) -> InputError:
    hint = "run `python -m recsys outcomes --from DAY --to DAY` for its day"
    return InputError(f"{path}: cannot be read; {hint}: {error}")


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[sqlite3.Connection]:
    database = HelperDatabase(settings.outcomes_db, _prepare)
    try:
        with database.use() as connection:
            yield connection
    finally:
        database.close()


def _prepare(connection: sqlite3.Connection) -> None:
    connection.executescript(_SCHEMA)
    connection.execute(f"EXPLAIN {_INSERT}", (None,) * len(_COLUMNS))  # no table of others


_DELETE: Final = "DELETE FROM daily_outcomes WHERE day = ?"
_INSERT: Final = (
    "INSERT INTO daily_outcomes (day, placement, endpoint, model_id, source, experiment, variant,"
    " lists, users, items, clicks, carts, purchases, value)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def _replace_rows(connection: sqlite3.Connection, day: date, cube: pd.DataFrame) -> None:
    rows = cube.assign(day=str(day))[list(_COLUMNS)].astype(object).to_numpy().tolist()
    with transaction(connection):
        connection.execute(_DELETE, (str(day),))
        connection.executemany(_INSERT, rows)
