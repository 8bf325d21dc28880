"""Events of every kind: as lines of the staging area, as its archive, and as exports of the shop.

All become one table, `EVENT_COLUMNS`, in which an id stands for one event."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson
import pyarrow.parquet as pq

from recsys import schema
from recsys.arrays import BoolArray, Float64Array, Int64Array, UInt64Array
from recsys.columns import fold_series, id_faults, normalise_ids, read_events
from recsys.data import keys, staging
from recsys.data.cleaning import (
    CleanRows,
    Fault,
    Limits,
    column_text,
    parse_times,
    read_ratings,
    read_times,
    rejected_rows,
    settle_files,
    without,
)
from recsys.data.forgotten import NOBODY, without_forgotten
from recsys.data.keys import text_series
from recsys.data.prices import PriceFormat, read_prices
from recsys.data.reading import FILE, ROW, RawRows, parse_json_lines, read_rows
from recsys.data.sources import (
    EPOCH,
    ISO,
    EventFiles,
    EventSource,
    SourceConfig,
    TimestampFormat,
)
from recsys.data.staging import EVENT_ID, OF_RATINGS, OF_SIGNALS, RECEIVED_AT
from recsys.events import BAD_VALUE
from recsys.ids import IdRules
from recsys.privacy import Forgotten
from recsys.publishing import atomic_path
from recsys.settings import Settings

EVENT_COLUMNS = [
    *(schema.EVENT, schema.USER, schema.PRODUCT, schema.KIND, schema.TIMESTAMP, schema.RECEIVED),
    *(schema.QUANTITY, schema.VALUE),
    *(schema.RECOMMENDATION, schema.PLACEMENT, schema.SESSION),
]
"""USER is "" for a guest, who has a SESSION then; see `recsys.schema`."""

ARCHIVE_KEY = f"{staging.RAW_KEY}/events"
FIRST_AT = b"first_at"
"""In the metadata of an archive: the time of its earliest event."""

EVENT_TIMES = TimestampFormat(columns=((schema.TIMESTAMP,),), formats=(ISO, EPOCH))
LOOKED_AT = (schema.Kind.VIEW.value, schema.Kind.CLICK.value)
"""Kinds that count for a limited time."""
_LOOKED_AT = pa.array(LOOKED_AT, pa.large_string())
RATINGS = pa.array(["", schema.Kind.RATING.value], pa.large_string())
"""Lines of before there were signals have no kind."""

_SAID = (
    *(schema.USER, schema.SESSION, schema.QUANTITY, schema.VALUE),
    *(schema.RECOMMENDATION, schema.PLACEMENT),
)
_UNKNOWN = "?"
_ROWS = 1 << 40  # more than an export has

(TIME_COLUMN,) = EVENT_TIMES.candidates
_STAGED = {
    **{name: (name,) for name in OF_RATINGS if name != schema.COMMENT},
    TIME_COLUMN: (schema.TIMESTAMP,),
    schema.COMMENT: (schema.COMMENT,),
    RECEIVED_AT: (RECEIVED_AT,),
}
_OF_SIGNALS = {name: (name,) for name in OF_SIGNALS}  # which earlier archives lack


@dataclass(frozen=True)
class OnceEach:
    """Rows of events as they were staged, the first arrival of each id; the `ids` as hashes. What
    that leaves out is counted as repeated."""

    rows: RawRows
    ids: UInt64Array
    repeated_ratings: int
    repeated_signals: int

    @property
    def ratings(self) -> RawRows:
        """The ratings, as events were before there were signals; with what was left out of all."""
        table = self.rows.table.filter(_are_ratings(self.rows.table))
        return replace(self.rows, table=table.drop([EVENT_ID, RECEIVED_AT, *OF_SIGNALS]))

    @property
    def signals(self) -> RawRows:
        """All others."""
        table = self.rows.table.filter(pc.invert(_are_ratings(self.rows.table)))
        return replace(self.rows, table=table, rejected=[], forgotten=0)

    def between(self, since: datetime, until: datetime) -> RawRows:
        """Those that may have a time in [`since`, `until`): not all others, but the ids that
        `read_archived_ids` read are left out."""
        table = self.rows.table.filter(pc.not_equal(self.rows.table[TIME_COLUMN], ""))
        with contextlib.suppress(pa.ArrowInvalid):  # else they are looked at one by one
            times = table[TIME_COLUMN].cast(pa.timestamp("us", "UTC"))
            inside = pc.and_(pc.greater_equal(times, since), pc.less(times, until))
            table = table.filter(inside)
        return replace(self.rows, table=table)

    def taken(self, staged: pd.DataFrame) -> UInt64Array:
        """The ids of all that are not among the `staged` events."""
        return self.ids[~np.isin(self.ids, keys.hash_texts(staged[schema.EVENT]))]


def archives(settings: Settings, source: str) -> list[Path]:
    """What went through the staging area into a version of `source`, a file a version."""
    return sorted((settings.home / ARCHIVE_KEY / source).glob("*.parquet"))


def write_archive(path: Path, segments: list[RawRows]) -> None:
    """Keep the rows of `segments`, if there are any, with the time of the earliest event."""
    if not segments:
        return
    table = pa.concat_tables([_staged_table(raw) for raw in segments]).drop([ROW])
    times = parse_times(text_series(table[TIME_COLUMN]), EVENT_TIMES.formats, ZoneInfo("UTC"))
    names = [schema.TIMESTAMP if name == TIME_COLUMN else name for name in table.column_names]
    if times.notna().any():
        table = table.replace_schema_metadata({FIRST_AT: times.min().isoformat()})
    with atomic_path(path) as temporary:
        pq.write_table(table.rename_columns(names), temporary)


def read_segment(path: Path, forgotten: Forgotten = NOBODY) -> RawRows:
    """The lines of a segment of the staging area, but for those of who is `forgotten`. Raises
    `OSError` if it cannot be read."""
    return without_forgotten(_all_of_segment(path), forgotten)


def _all_of_segment(path: Path) -> RawRows:
    content = path.read_bytes()
    table = _lines_as_written(content[: content.rfind(b"\n") + 1])
    if table is not None:
        return RawRows(path, table)
    raw = parse_json_lines(path, staging.segment_lines(path), {}, _STAGED | _OF_SIGNALS)
    return replace(raw, table=_staged_table(raw))  # of no lines, too


def _lines_as_written(content: bytes) -> pa.Table | None:
    """Lines of nothing but ASCII, with nothing but texts, as the service writes them; None for
    others. Much faster than one by one."""
    names = {theirs: ours for ours, (theirs,) in (_STAGED | _OF_SIGNALS).items()}
    texts = pa.schema([(name, pa.large_string()) for name in names])
    options = pajson.ParseOptions(explicit_schema=texts, unexpected_field_behavior="ignore")
    table: pa.Table | None = None
    if content.isascii():
        with contextlib.suppress(pa.ArrowInvalid):
            table = pajson.read_json(pa.BufferReader(content), parse_options=options)
    if table is None or table.num_rows != content.count(b"\n"):
        return None
    columns = {ours: pc.fill_null(table[theirs], "") for theirs, ours in names.items()}
    return pa.table({**columns, ROW: pa.array(np.arange(1, len(table) + 1))})


def read_archive(path: Path, forgotten: Forgotten) -> RawRows:
    """The rows of segments that are in a version, but for those of who is `forgotten`. Raises
    `SourceError` if it cannot be read."""
    return without_forgotten(read_rows(path, _STAGED, _OF_SIGNALS), forgotten)


def without_expired(raw: RawRows, horizon: datetime) -> RawRows:
    """The rows but for views and clicks that were received before `horizon`: where their time is
    looked at they are older still, and there are many."""
    looked_at = pc.is_in(_staged_table(raw)[schema.KIND], value_set=_LOOKED_AT)
    old = pc.less(raw.table[RECEIVED_AT], horizon.astimezone(UTC).isoformat())
    return replace(raw, table=raw.table.filter(pc.invert(pc.and_(looked_at, old))))


def read_archived_ids(path: Path) -> RawRows:
    """The same of the ids alone: rows that take part in `once_each`, and are no events."""
    return read_rows(path, {EVENT_ID: (EVENT_ID,), RECEIVED_AT: (RECEIVED_AT,)}, {})


def _staged_table(raw: RawRows) -> pa.Table:
    """The rows with every column of the staging area, "" where they have none."""
    table = raw.table
    empty = pa.array([""] * table.num_rows, pa.large_string())
    names = (*_STAGED, *_OF_SIGNALS)
    columns = {name: table[name] if name in table.column_names else empty for name in names}
    return pa.table({**columns, ROW: table[ROW]})


def once_each(raws: list[RawRows]) -> OnceEach | None:
    """All rows in one table, the first arrival of each id. None if there are no `raws`."""
    if not raws:
        return None
    tables, rejected = [], []
    for raw in raws:
        table = _staged_table(raw)
        name = pa.array([str(raw.path)] * len(table), pa.large_string())
        tables.append(table.append_column(FILE, name))
        rejected += [(at, f"{reason} ({raw.path.name})", text) for at, reason, text in raw.rejected]
    table = pa.concat_tables(tables)
    left_out = np.zeros(len(table), dtype=np.bool_)
    ids = keys.hash_texts(text_series(table[EVENT_ID]))
    several = _of_several(ids)
    if len(several):
        tied = table.take(pa.array(several))
        names = (EVENT_ID, RECEIVED_AT, *_STAGED, *_OF_SIGNALS)
        order = pc.sort_indices(tied, sort_keys=[(name, "ascending") for name in names]).to_numpy()
        again = text_series(tied[EVENT_ID]).take(order).duplicated().to_numpy()
        left_out[several[order[again]]] = True
    ratings = np.asarray(_are_ratings(table).to_numpy(), dtype=np.bool_)
    forgotten = sum(raw.forgotten for raw in raws)
    once = RawRows(raws[-1].path, table.filter(pa.array(~left_out)), rejected, forgotten)
    return OnceEach(
        once, ids[~left_out], int((left_out & ratings).sum()), int((left_out & ~ratings).sum())
    )


def clean_staged(raw: RawRows, limits: Limits) -> CleanRows:
    """Check rows as they were staged: `EVENT_COLUMNS`."""
    raw = replace(raw, table=_with_kinds(raw.table))
    cleaned, _ = _clean(raw, raw.table[schema.KIND], EVENT_TIMES, limits, prices=None)
    return cleaned


def limits_of(source: EventSource, main: SourceConfig, limits: Limits) -> Limits:
    """What `limits` mean in a `source` of events beside the `main` one, whose aliases hold."""
    ids = IdRules.of(source.config.events.placeholders, main.products.aliases)
    return replace(limits, zone=ZoneInfo(source.config.timezone), ids=ids)


def read_event_file(path: Path, files: EventFiles, limits: Limits) -> CleanRows:
    """Read and check an export of events: `EVENT_COLUMNS` and ROW. A row without an id of its own
    gets one that follows from what it says. Raises `SourceError` as `read_rows` does."""
    settled = settle_files(path, files, limits)
    raw = read_rows(path, settled.needed, settled.optional, settled)
    raw = without_forgotten(raw, limits.forgotten)
    kinds, ignored = _kinds_of(raw.table, settled)
    taken_back = None
    if ignored.any():
        kept = pa.array(~ignored)
        taken_back = _taken_back(raw.table.filter(pa.array(ignored)))
        raw, kinds = replace(raw, table=raw.table.filter(kept)), kinds.filter(kept)
    cleaned, good = _clean(raw, kinds, settled.timestamp, limits, prices=settled.price_format)
    cleaned.accepted[ROW] = raw.table[ROW].to_numpy()[good]
    return replace(cleaned, ignored=int(ignored.sum()), taken_back=taken_back)


def take_back(staged: pd.DataFrame, exports: Sequence[CleanRows]) -> pd.DataFrame:
    """Leave out events that an ignored row of a later export, or one further down in the same, has
    the id of: an order was cancelled. Those of `exports`, in their order, count as ignored; returns
    those of the service, `staged`, that are left."""
    found = [
        pd.Series(number * _ROWS + rows, rows.index)
        for number, rows in enumerate(part.taken_back for part in exports)
        if rows is not None
    ]
    if not found:
        return staged
    last = pd.concat(found).groupby(level=0).max()
    for number, part in enumerate(exports):
        ids = keys.hash_texts(part.accepted[schema.EVENT])
        place = number * _ROWS + part.accepted[ROW].to_numpy(np.int64)
        stays = last.reindex(ids, fill_value=-1).to_numpy() < place
        part.ignored += int((~stays).sum())
        part.accepted = part.accepted[stays].reset_index(drop=True)
    gone = np.isin(keys.hash_texts(staged[schema.EVENT]), last.index.to_numpy())
    return staged[~gone].reset_index(drop=True)


def _taken_back(ignored: pa.Table) -> pd.Series | None:
    """The last row of each id; None without a column of ids: other rows then have other ids."""
    if schema.EVENT not in ignored.column_names:
        return None
    ids = normalise_ids(ignored[schema.EVENT])
    named = without(id_faults(ids, "event id")[:3])
    rows = pd.Series(ignored[ROW].to_numpy(), keys.hash_texts(text_series(ids)))[named]
    return rows.groupby(level=0).max()


def event_frame(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """All rows of the parts; none of the right types where there are no parts."""
    times = pd.Series([], dtype="datetime64[us, UTC]")
    texts = pd.Series([], dtype="str")
    empty = pd.DataFrame(dict.fromkeys(EVENT_COLUMNS, texts))
    empty[schema.TIMESTAMP] = empty[schema.RECEIVED] = times
    empty[schema.QUANTITY] = pd.Series([], dtype="float32")
    empty[schema.VALUE] = pd.Series([], dtype="float64")
    found = [part[EVENT_COLUMNS] for part in parts if len(part)]
    return pd.concat(found, ignore_index=True) if found else empty


def merge(
    staged: pd.DataFrame, exports: pd.DataFrame, taken: UInt64Array
) -> tuple[pd.DataFrame, BoolArray, BoolArray]:
    """Events that the service took and those of `exports`, each id once, and which of the exports
    do not count: those that are repeated, and those whose id is another product's, for it is no id
    of an event then. What the service took counts first (an export may say less of it), `taken` are
    further ids of its, as hashes; then what is earlier."""
    if exports.empty:
        none = np.zeros(0, np.bool_)
        return staged, none, none
    events = event_frame([staged, exports])
    of_file = np.arange(len(events)) >= len(staged)
    ids = keys.hash_texts(events[schema.EVENT])
    left_out = of_file & pd.Series(ids).isin(taken).to_numpy()
    left_out[: len(staged)] = False
    conflicting = np.zeros(len(events), np.bool_)
    several = _of_several(ids)
    if len(several):
        rows, files = events.take(several), of_file[several]
        received = keys.microseconds(rows[schema.RECEIVED])
        order = keys.ordered_by(ids[several], files.astype(np.int8), received, _content(rows))
        starts = keys.run_starts(ids[several][order])
        left_out[np.delete(several[order], starts)] = True
        product = keys.hash_texts(rows[schema.PRODUCT])[order]
        first = np.repeat(product[starts], np.diff(starts, append=len(order)))
        conflicting[several[order]] = files[order] & (product != first)
    kept = events[~left_out].reset_index(drop=True)
    return kept, (left_out & ~conflicting)[len(staged) :], conflicting[len(staged) :]


def _of_several(values: UInt64Array) -> Int64Array:
    """Positions of the values that occur more than once."""
    order = np.argsort(values)
    return np.sort(order[keys.tied(values[order])])


def _content(events: pd.DataFrame) -> UInt64Array:
    """A number for what each event says, apart from its id and when it came."""
    names = (schema.USER, schema.PRODUCT, schema.KIND, schema.SESSION)
    texts = [keys.hash_texts(events[name]) for name in (*names, *_LIST_COLUMNS)]
    numbers = [events[name].to_numpy(np.float64) for name in (schema.QUANTITY, schema.VALUE)]
    bits = [np.nan_to_num(number, nan=-1.0).view(np.uint64) for number in numbers]
    return keys.mix(*texts, *bits, keys.microseconds(events[schema.TIMESTAMP]).view(np.uint64))


_LIST_COLUMNS = (schema.RECOMMENDATION, schema.PLACEMENT)


def _are_ratings(table: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(table[schema.KIND], value_set=RATINGS)


def _with_kinds(table: pa.Table) -> pa.Table:
    at = table.column_names.index(schema.KIND)
    kinds = pc.if_else(_are_ratings(table), schema.Kind.RATING.value, table[schema.KIND])
    return table.set_column(at, schema.KIND, kinds.cast(pa.large_string()))


def _kinds_of(table: pa.Table, files: EventFiles) -> tuple[pa.ChunkedArray, BoolArray]:
    """The kind of each row of an export, `_UNKNOWN` where it is none; and which are ignored."""
    if files.kinds is None:
        kinds = np.full(len(table), str(files.kind), dtype=object)
    else:
        by_text = files.kinds.by_text
        folded = fold_series(text_series(column_text(table, schema.KIND)))
        kinds = folded.map(by_text).fillna(_UNKNOWN).to_numpy(object)
    return pa.chunked_array([pa.array(kinds, pa.large_string())]), kinds == ""


def _clean(
    raw: RawRows,
    kinds: pa.ChunkedArray,
    timestamp: TimestampFormat,
    limits: Limits,
    *,
    prices: PriceFormat | None,
) -> tuple[CleanRows, BoolArray]:
    """Check every row; and which rows of the table were accepted. `prices`: how values are written;
    None: as plain numbers, by the service, which also gave all rows their ids."""
    table, value_faults = raw.table, list[Fault]()
    said = {name: column_text(table, name) for name in _SAID}
    said |= {schema.PRODUCT: table[schema.PRODUCT], schema.KIND: kinds}
    if prices is not None:
        value, unclear = read_prices(text_series(said[schema.VALUE]), prices)
        said[schema.VALUE], value_faults = pa.array(value), [(unclear, BAD_VALUE)]
    columns, said_faults = read_events(pa.table(said), limits.ids)
    time, time_faults = read_times(table, timestamp, limits)
    events = pd.DataFrame({name: _series(column) for name, column in columns.items()}, copy=False)
    events[schema.QUANTITY] = events[schema.QUANTITY].astype(np.float32)
    events[schema.TIMESTAMP] = time
    events[schema.EVENT], id_faults_ = _event_ids(table, events, is_own=prices is None)
    events[schema.RECEIVED] = _received(table, time)
    is_rating = (events[schema.KIND] == schema.Kind.RATING).to_numpy(np.bool_)
    faults = [
        *id_faults_,
        *said_faults,
        *value_faults,
        *_rating_faults(table, is_rating),
        *time_faults,
    ]
    good = without(faults)
    in_view = good & (time < limits.as_of).to_numpy()
    accepted = events.loc[in_view, EVENT_COLUMNS].reset_index(drop=True)
    later = int((good & ~in_view).sum())
    rejected, forgotten = rejected_rows(raw, faults, limits.forgotten)
    return CleanRows(accepted, rejected, later, forgotten=forgotten), in_view


def _series(column: pa.ChunkedArray | Float64Array) -> pd.Series:
    return pd.Series(column) if isinstance(column, np.ndarray) else text_series(column)


def _event_ids(table: pa.Table, events: pd.DataFrame, *, is_own: bool) -> tuple[Any, list[Fault]]:
    """The ids of the rows; what an export lacks follows from what its row says."""
    if is_own:
        return text_series(table[EVENT_ID]), []
    if schema.EVENT in table.column_names:
        ids = normalise_ids(table[schema.EVENT])
        return text_series(ids), id_faults(ids, "event id")[:3]
    # Not the product's id of today: another alias would make other events of them.
    before = text_series(normalise_ids(table[schema.PRODUCT]))
    made = keys.event_ids(_content(events.assign(**{schema.PRODUCT: before})))
    return "file:" + made, []


def _received(table: pa.Table, time: pd.Series) -> pd.Series:
    if RECEIVED_AT not in table.column_names:
        return time
    received = table[RECEIVED_AT]
    try:  # all of it at once
        found = received.cast(pa.timestamp("us", "UTC")).to_pandas()
    except pa.ArrowInvalid:
        found = parse_times(text_series(received), (ISO,), ZoneInfo("UTC"))
    return found.astype(time.dtype).fillna(time)


def _rating_faults(table: pa.Table, is_rating: BoolArray) -> list[Fault]:
    if not is_rating.any():
        return []
    _, faults = read_ratings(table[schema.RATING])
    return [(bad & is_rating, reason) for bad, reason in faults]
