"""What customers did besides rating products, as a version has it.

Signals are read and split anew in every run: they follow from the view alone. What concerns a user
follows from that user's rows and signals alone, as in `recsys.data.dataset`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather
from pydantic import Field

from recsys import schema
from recsys.arrays import BoolArray, Float64Array, UInt64Array
from recsys.config import ConfigModel
from recsys.data import keys
from recsys.data.cleaning import CleanRows, Limits, concatenate, reject_rows
from recsys.data.config import DataConfig
from recsys.data.dataset import named_sides, split_in_any_order
from recsys.data.events import (
    LOOKED_AT,
    OnceEach,
    clean_staged,
    event_frame,
    limits_of,
    merge,
    read_event_file,
    take_back,
)
from recsys.data.keys import EVENT_KEY, text_series
from recsys.data.reading import ROW
from recsys.data.sources import Source
from recsys.publishing import sha256_of

SIGNAL_COLUMNS = [
    *(schema.EVENT, schema.USER, schema.PRODUCT, schema.KIND, schema.TIMESTAMP),
    *(schema.QUANTITY, schema.VALUE),
]
"""What a version has of each signal, and `recsys.schema.SPLIT`."""

NO_SIGNALS = event_frame([])[SIGNAL_COLUMNS].assign(**{schema.SPLIT: pd.Series([], dtype="str")})
"""What a version without signals has."""

PURCHASE_COLUMNS = [schema.USER, schema.TIMESTAMP, EVENT_KEY]
"""What the split of a user's ratings must know of the purchases."""

OTHER_PRODUCT = "the event id is that of another product: expected one for each line of an order"
_TRAIN, _EXCLUDED = (schema.SPLITS.index(name) for name in (schema.TRAIN, schema.EXCLUDED))
_HELD_OUT = [schema.SPLITS.index(name) for name in (schema.VALIDATION, schema.TEST)]


class ExportCounts(ConfigModel):
    """What became of the rows of a source of events; `repeated` ones have an id that another event
    had before. `files` are path, SHA-256 and rows of each. Rows of customers who are `forgotten`
    are in no other count."""

    source: str
    files: list[dict[str, Any]]
    read: int
    valid: int
    later: int
    repeated: int
    ignored: int
    quarantined: int
    invalid_fraction: float
    forgotten: int = 0


class SignalCounts(ConfigModel):
    """What became of all signals, those of the service and of exports: `read` are `accepted`, of
    `guests` without an id, views and clicks that are `expired`, and what `ExportCounts` says.
    `fingerprint` changes when one of the accepted does; "" where a version has no signals."""

    read: int = 0
    accepted: int = 0
    by_kind: dict[str, int] = Field(default_factory=dict)
    guests: int = 0
    expired: int = 0
    later: int = 0
    repeated: int = 0
    ignored: int = 0
    quarantined: int = 0
    forgotten: int = 0
    fingerprint: str = ""
    exports: list[ExportCounts] = Field(default_factory=list)


@dataclass
class Signals:
    """The signals of a view: `rows` with `SIGNAL_COLUMNS`, one an event id, ordered by USER,
    TIMESTAMP and EVENT; the `rejected` ones as in `CleanRows`; and the `counts`."""

    rows: pd.DataFrame
    rejected: pd.DataFrame
    counts: SignalCounts


def read_signals(
    events: OnceEach | None, source: Source, config: DataConfig, limits: Limits
) -> Signals:
    """What the service took (`events`, ratings among them) and what the exports beside `source`
    have. Raises `SourceError` if one of their files cannot be used."""
    staged = CleanRows(event_frame([]), reject_rows([], [], [], []), 0)
    taken = np.zeros(0, np.uint64)
    if events is not None:
        staged = clean_staged(events.signals, limits)
        staged.repeated = events.repeated_signals
        taken = events.taken(staged.accepted)
    exports = _read_exports(source, limits)
    parts = [export.part for export in exports]
    before = len(staged.accepted)
    staged.accepted = take_back(staged.accepted, parts)
    staged.ignored = before - len(staged.accepted)
    found = event_frame(part.accepted for part in parts)
    kept, repeated, conflicting = merge(staged.accepted, found, taken)
    ends = np.cumsum([len(part.accepted) for part in parts])[:-1]
    masks = zip(np.split(repeated, ends), np.split(conflicting, ends), strict=True)
    for export, (again, bad) in zip(exports, masks, strict=False):  # no exports make one mask
        _leave_out(export, again, bad)
    looked_at = kept[schema.KIND].isin(LOOKED_AT).to_numpy()
    old = (kept[schema.TIMESTAMP] < limits.as_of - config.views_count_for).to_numpy()
    guest = (kept[schema.USER] == "").to_numpy()
    expired = looked_at & old & ~guest
    rows = _ordered(kept.loc[~guest & ~expired, SIGNAL_COLUMNS])
    all_parts = concatenate([staged, *parts])
    kinds = rows[schema.KIND].value_counts()
    is_there = bool(source.events) or len(kept) > 0
    return Signals(
        rows,
        all_parts.rejected,
        SignalCounts(
            read=all_parts.rows_read,
            accepted=len(rows),
            by_kind={str(kind): int(count) for kind, count in kinds.sort_index().items()},
            guests=int(guest.sum()),
            expired=int(expired.sum()),
            later=all_parts.later,
            repeated=all_parts.repeated,
            ignored=all_parts.ignored,
            quarantined=len(all_parts.rejected),
            forgotten=all_parts.forgotten,
            fingerprint=_fingerprint(rows) if is_there else "",
            exports=[_count(one.name, exports) for one in source.events],
        ),
    )


def split_signals(
    rows: Path, catalogue: pd.Series, signals: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`signals` with SPLIT, and the purchases that are events of the split (`PURCHASE_COLUMNS`).

    `rows` is the feather file of the view's latest rows, `catalogue` the ids of its products. A
    purchase is a positive event beside the ratings, unless its product is rated, which says more,
    or unknown, or bought again later: of a user and product there is one event. All other signals
    are on no side if they are later than the first held-out event, or of a held-out user and
    product at any time."""
    reviews = _rows_of(rows, signals[schema.USER])
    rated = pc.unique(feather.read_table(rows, [schema.PRODUCT], memory_map=True)[schema.PRODUCT])
    known = pd.concat([catalogue, text_series(rated)])
    signals = signals.assign(**{EVENT_KEY: keys.hash_texts(signals[schema.EVENT])})
    is_event = _are_events(reviews, signals, known)
    bought = signals[is_event]
    events = pd.concat([reviews, bought], ignore_index=True)
    split = split_in_any_order(
        pd.factorize(events[schema.USER])[0].astype(np.int32),
        keys.microseconds(events[schema.TIMESTAMP]),
        events[EVENT_KEY].to_numpy(),
        events[schema.RATING].fillna(schema.POSITIVE_RATING).to_numpy(np.float32),
    )
    excluded = _excluded(signals, events[np.isin(split.side, _HELD_OUT)])
    side = np.where(excluded, _EXCLUDED, _TRAIN).astype(np.int8)
    side[is_event] = split.side[len(reviews) :]
    signals = signals.assign(**{schema.SPLIT: named_sides(side)})
    return signals[[*SIGNAL_COLUMNS, schema.SPLIT]], bought[PURCHASE_COLUMNS].reset_index(drop=True)


def signal_statistics(signals: pd.DataFrame, products: pd.Series) -> dict[str, Any]:
    """What ``data_stats.json`` says of `signals` with SPLIT, in a version with `products`."""
    kinds = signals[schema.KIND].value_counts()
    sides = signals[schema.SPLIT].value_counts()
    times = signals[schema.TIMESTAMP]
    return {
        "rows": len(signals),
        "by_kind": {kind.value: int(kinds[kind]) for kind in schema.Kind if kind in kinds},
        "rows_by_split": {name: int(sides.get(name, 0)) for name in schema.SPLITS},
        "users": int(signals[schema.USER].nunique()),
        "products": int(signals[schema.PRODUCT].nunique()),
        "of_unknown_products": int((~signals[schema.PRODUCT].isin(products)).sum()),
        "first_at": times.min().isoformat() if len(times) else None,
        "last_at": times.max().isoformat() if len(times) else None,
    }


@dataclass
class _Export:
    """One file of a source of events, and what was read of it."""

    source: str
    path: Path
    sha256: str
    part: CleanRows


def _read_exports(source: Source, limits: Limits) -> list[_Export]:
    found = []
    for one in source.events:
        own = limits_of(one, source.config, limits)
        for path in one.files:
            part = read_event_file(path, one.config.events, own)
            found.append(_Export(one.name, path, sha256_of(path), part))
    return found


def _leave_out(export: _Export, repeated: BoolArray, conflicting: BoolArray) -> None:
    """Take out of what was read what other events had before."""
    part = export.part
    part.repeated += int(repeated.sum())
    if conflicting.any():
        bad = part.accepted[conflicting]
        text = bad[schema.EVENT].str.cat(bad[SIGNAL_COLUMNS[1:4]], sep=" | ")
        rejected = reject_rows(
            str(export.path), bad[ROW].to_numpy(), OTHER_PRODUCT, text.to_numpy()
        )
        both = pd.concat([part.rejected, rejected])
        part.rejected = both.sort_values(ROW, kind="stable", ignore_index=True)
    part.accepted = part.accepted[~(repeated | conflicting)].reset_index(drop=True)


def _count(source: str, exports: Sequence[_Export]) -> ExportCounts:
    own = [export for export in exports if export.source == source]
    total = concatenate([export.part for export in own])
    return ExportCounts(
        source=source,
        files=[
            {"path": str(one.path), "sha256": one.sha256, "rows": one.part.rows_read} for one in own
        ],
        read=total.rows_read,
        valid=len(total.accepted) + total.repeated,
        later=total.later,
        repeated=total.repeated,
        ignored=total.ignored,
        quarantined=len(total.rejected),
        invalid_fraction=total.bad_rows / max(total.rows_read, 1),
        forgotten=total.forgotten,
    )


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    names = (schema.USER, schema.TIMESTAMP, schema.EVENT)
    table = pa.table({name: pa.array(rows[name]) for name in names})
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names]).to_numpy()
    return rows.take(order).reset_index(drop=True)


def _fingerprint(rows: pd.DataFrame) -> str:
    texts = (schema.EVENT, schema.USER, schema.PRODUCT, schema.KIND)
    numbers: list[Float64Array] = [
        rows[name].to_numpy(np.float64) for name in (schema.QUANTITY, schema.VALUE)
    ]
    columns = [
        *(keys.hash_texts(rows[name]) for name in texts),
        *(np.nan_to_num(number, nan=-1.0).view(np.uint64) for number in numbers),
        keys.microseconds(rows[schema.TIMESTAMP]).view(np.uint64),
    ]
    return f"{int(np.bitwise_xor.reduce(keys.mix(*columns), initial=np.uint64(len(rows)))):016x}"


def _rows_of(rows: Path, users: pd.Series) -> pd.DataFrame:
    """The rows of these users: USER, PRODUCT, RATING, TIMESTAMP and EVENT_KEY."""
    names = [schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP, EVENT_KEY]
    table = feather.read_table(rows, names, memory_map=True)
    wanted = pc.unique(pa.array(users)).cast(table[schema.USER].type)
    found: pd.DataFrame = table.filter(pc.is_in(table[schema.USER], value_set=wanted)).to_pandas()
    return found


def _are_events(reviews: pd.DataFrame, signals: pd.DataFrame, products: pd.Series) -> BoolArray:
    """The purchases of known products that are not rated, the latest of each user and product."""
    pairs = _pairs(signals)
    bought = (signals[schema.KIND] == schema.Kind.PURCHASE.value).to_numpy()
    known = signals[schema.PRODUCT].isin(products).to_numpy()
    at = np.flatnonzero(bought & known & ~np.isin(pairs, _pairs(reviews)))
    time = keys.microseconds(signals[schema.TIMESTAMP])[at]
    order = at[keys.ordered_by(pairs[at], time, signals[EVENT_KEY].to_numpy()[at])]
    last = np.ones(len(order), np.bool_)
    last[:-1] = pairs[order[1:]] != pairs[order[:-1]]
    chosen = np.zeros(len(signals), np.bool_)
    chosen[order[last]] = True
    return chosen


def _excluded(signals: pd.DataFrame, held_out: pd.DataFrame) -> BoolArray:
    """What is later than the first of the `held_out` events of its user, or of the user and product
    of one."""
    if held_out.empty:
        return np.zeros(len(signals), dtype=np.bool_)
    first = held_out.groupby(schema.USER)[schema.TIMESTAMP].min()
    late = (signals[schema.TIMESTAMP] > signals[schema.USER].map(first)).to_numpy(np.bool_)
    return np.asarray(late | np.isin(_pairs(signals), _pairs(held_out)))


def _pairs(rows: pd.DataFrame) -> UInt64Array:
    """A number for the user and product of each row."""
    return keys.mix(keys.hash_texts(rows[schema.USER]), keys.hash_texts(rows[schema.PRODUCT]))
