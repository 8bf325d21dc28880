"""Which served list an event belongs to. Pure: tables in, a table out.

An event that names a list belongs to it, if the list was there before and holds the product. One
that names none belongs to the latest list before it, within the `WINDOWS`, that was shown to its
user or in its session and held the product. docs/decisions/138 says why."""

from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.arrays import BoolArray, Int64Array, UInt64Array
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.partitions import PRODUCTS, TIME
from recsys.schema import Kind

WINDOWS: Final = {
    Kind.CLICK: timedelta(hours=24),
    Kind.VIEW: timedelta(hours=24),
    Kind.CART: timedelta(days=7),
    Kind.PURCHASE: timedelta(days=7),
}
"""The kinds of events that are outcomes, and how long after a list one can belong to it unnamed."""

REACH: Final = max(WINDOWS.values())

LIST_COLUMNS: Final = (schema.RECOMMENDATION, TIME, schema.USER, schema.SESSION, PRODUCTS)
"""What `Search.look_in` needs of the lists."""

FATE: Final = "fate"  # str, one of Fate
POSITION: Final = "position"  # int32, place of the product in the list from 0, -1 without a list
LIST: Final = "list_id"  # 16 bytes: the id of the list; None without one
LIST_TIME: Final = "list_time"  # datetime64[us, UTC]; 1970 without a list
ID_TYPE: Final = pa.binary(16)
TIME_TYPE: Final = "datetime64[us, UTC]"

KEPT: Final = (
    *(schema.EVENT, schema.USER, schema.SESSION, schema.PRODUCT, schema.KIND),
    *(schema.TIMESTAMP, schema.QUANTITY, schema.VALUE),
)
"""Columns of an event that its attribution keeps."""

_UUID: Final = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

_NEVER: Final = -(2**62)
_LAST_MILLISECOND: Final = 2**42


class Fate(StrEnum):
    """What became of an event in search of its list."""

    ATTRIBUTED = "attributed"
    NO_LIST = "no_list"  # names none, and none that was shown held the product
    UNKNOWN_LIST = "unknown_list"  # names a list that is none of ours
    NOT_IN_LIST = "not_in_list"  # names a list without the product
    BEFORE_LIST = "before_list"  # is earlier than the list that it names
    ROBOT = "robot"


def attribute(
    lists: Iterable[pa.Table], events: pd.DataFrame, config: OutcomesConfig
) -> pd.DataFrame:
    """`Search` for the `events` of one day in all of the `lists`."""
    search = Search(events, config)
    for table in lists:
        search.look_in(table)
    return search.result()


def unit_of(users: pd.Series, sessions: pd.Series) -> pd.Series:
    """Whom an event or a list counts for: the user, else the session, else nobody (``""``)."""
    return users.where(users != "", sessions)


class Search:
    """The events of one day in search of their lists: ``look_in`` the lists of every day in reach,
    in any order and division, then ask for the `result`.

    `events` has the columns that `recsys.data.event_log` gives; of equal event ids the first
    received counts. Robots are units with more than ``robot_events_per_day`` of them, and those
    that the configuration names."""

    def __init__(self, events: pd.DataFrame, config: OutcomesConfig) -> None:
        order = [schema.RECEIVED, schema.TIMESTAMP, schema.EVENT]
        events = events.sort_values(order, kind="stable").drop_duplicates(schema.EVENT)
        events = events.astype({schema.KIND: "str"})
        robot = _are_robots(events, config)
        chosen = events[schema.KIND].isin(list(WINDOWS))
        events = events.assign(**{FATE: np.where(robot, Fate.ROBOT, Fate.NO_LIST)})[chosen]
        events = events.sort_values([schema.TIMESTAMP, schema.EVENT], ignore_index=True)
        self._events = events
        self._time = microseconds(events[schema.TIMESTAMP])
        searching = (events[FATE] != Fate.ROBOT).to_numpy()
        self._named = (events[schema.RECOMMENDATION] != "").to_numpy() & searching
        unnamed = searching & ~self._named
        self._products, self._product = _codes(events[schema.PRODUCT], searching)
        ids, self._id = _codes(events[schema.RECOMMENDATION].str.lower(), self._named)
        self._ids = _id_bytes(ids)
        self._keys = {schema.RECOMMENDATION: (self._ids, self._id)}
        for key in (schema.USER, schema.SESSION):
            self._keys[key] = _codes(events[key], unnamed & (events[key] != "").to_numpy())
        self._wanted = {key: np.unique(self._pair(code)) for key, (_, code) in self._keys.items()}
        self._found: list[pd.DataFrame] = []
        self._list_time = np.full(len(ids), _NEVER, dtype=np.int64)

    @property
    def looks_back(self) -> timedelta | None:
        """How long before an event a list can be that none names; None if all are named."""
        unnamed = self._events[(self._events[FATE] != Fate.ROBOT).to_numpy() & ~self._named]
        return max((WINDOWS[Kind(one)] for one in unnamed[schema.KIND].unique()), default=None)

    def named_at(self) -> pd.Series:
        """When the lists that the events name were made, by their ids (datetime64[us, UTC])."""
        high, _ = halves(pc.drop_null(self._ids))
        milliseconds = (high >> np.uint64(16)).astype(np.int64)
        inside = milliseconds[milliseconds < _LAST_MILLISECOND]  # what is no UUIDv7 says anything
        return pd.Series(pd.to_datetime(inside, unit="ms", utc=True)).astype(TIME_TYPE)

    def look_in(self, lists: pa.Table) -> None:
        """Note what `lists` (columns `LIST_COLUMNS`) have of what is looked for."""
        ids = lists[schema.RECOMMENDATION].cast(ID_TYPE)
        lists = lists.set_column(lists.column_names.index(schema.RECOMMENDATION), "id", ids)
        lists = lists.rename_columns({"id": schema.RECOMMENDATION})
        codes = {key: places(lists[key], sought) for key, (sought, _) in self._keys.items()}
        rows = np.flatnonzero(np.logical_or.reduce([code >= 0 for code in codes.values()]))
        if not len(rows):
            return
        codes = {key: code[rows] for key, code in codes.items()}
        chosen = lists.select(LIST_COLUMNS).take(pa.array(rows)).combine_chunks()
        time = microseconds(chosen[TIME])
        named = codes[schema.RECOMMENDATION] >= 0
        self._list_time[codes[schema.RECOMMENDATION][named]] = time[named]
        at, product, position = _shown(chosen[PRODUCTS], self._products)
        pairs = {key: self._pair(code[at], product) for key, code in codes.items()}
        wanted = {key: np.isin(pair, self._wanted[key]) for key, pair in pairs.items()}
        kept = np.flatnonzero(np.logical_or.reduce([*wanted.values()]))
        high, low = halves(chosen[schema.RECOMMENDATION].combine_chunks())
        at = at[kept]
        about = {"time": time[at], "high": high[at], "low": low[at], POSITION: position[kept]}
        sides = {key: np.where(wanted[key], pair, -1)[kept] for key, pair in pairs.items()}
        self._found.append(pd.DataFrame(about | sides))

    def result(self) -> pd.DataFrame:
        """The events of `WINDOWS`' kinds, each once, in order of time and id: columns `KEPT`,
        `FATE`, `LIST`, `LIST_TIME`, `POSITION`."""
        found = pd.concat([_NO_LIST, *self._found])
        # The later list has the higher row; of a product that stands twice in it, the first place.
        order = found.assign(last=-found[POSITION])
        found = order.sort_values(["time", "high", "low", "last"], ignore_index=True)
        fate = self._events[FATE].to_numpy(dtype=object)
        row = np.maximum(self._latest(found, schema.USER), self._latest(found, schema.SESSION))
        named, by_name = self._named, self._by_name(found)
        list_time = self._list_time[np.where(named, self._id, 0)] if named.any() else self._time
        age = self._time - found["time"].to_numpy()[row]
        windows = {kind: window // timedelta(microseconds=1) for kind, window in WINDOWS.items()}
        in_time = age <= self._events[schema.KIND].map(windows).to_numpy(dtype=np.int64)
        row = np.where(named, by_name, np.where(in_time, row, 0))
        fate[named] = Fate.NOT_IN_LIST
        fate[named & (list_time > self._time)] = Fate.BEFORE_LIST
        fate[named & (list_time == _NEVER)] = Fate.UNKNOWN_LIST
        row[named & (fate != Fate.NOT_IN_LIST)] = 0
        fate[row > 0] = Fate.ATTRIBUTED
        return self._told(fate, found, row)

    def _told(self, fate: np.ndarray, found: pd.DataFrame, row: Int64Array) -> pd.DataFrame:
        told = self._events[list(KEPT)].copy()
        told[FATE] = pd.Series(fate, dtype="str")
        has = row > 0
        halves = [found[half].to_numpy()[row[has]] for half in ("high", "low")]
        lists = np.full(len(told), None, dtype=object)
        lists[has] = _joined(*halves)
        told[LIST] = lists
        told[LIST_TIME] = pd.to_datetime(
            np.where(has, found["time"].to_numpy()[row], 0), unit="us", utc=True
        ).astype(TIME_TYPE)
        told[POSITION] = found[POSITION].to_numpy(dtype=np.int32)[row]
        return told

    def _pair(self, code: Int64Array, product: Int64Array | None = None) -> Int64Array:
        """Key and product as one number, -1 without one of them."""
        product = self._product if product is None else product
        one = code * max(1, len(self._products)) + product
        return np.where((code < 0) | (product < 0), -1, one)

    def _by_name(self, found: pd.DataFrame) -> Int64Array:
        """The row in `found` of the product in the list that an event names, else 0."""
        rows = pd.Series(found.index, index=found[schema.RECOMMENDATION])
        rows = rows[(rows.index >= 0) & ~rows.index.duplicated(keep="last")]
        pair = pd.Series(self._pair(self._id))
        return pair.map(rows).fillna(0).to_numpy(dtype=np.int64)

    def _latest(self, found: pd.DataFrame, key: str) -> Int64Array:
        """The last row in `found` that is not later than an event and has its `key`, else 0."""
        shown = pd.DataFrame({"pair": found[key], "time": found["time"], "row": found.index})
        events = pd.DataFrame({"pair": self._pair(self._keys[key][1]), "time": self._time})
        shown = shown[shown["pair"] >= 0].astype(np.int64)
        matched = pd.merge_asof(events, shown, on="time", by="pair")
        return matched["row"].fillna(0).to_numpy(dtype=np.int64)


def _are_robots(events: pd.DataFrame, config: OutcomesConfig) -> BoolArray:
    units = unit_of(events[schema.USER], events[schema.SESSION])
    many = units.map(units.value_counts()) > config.robot_events_per_day
    named = events[schema.USER].isin(config.robots) | events[schema.SESSION].isin(config.robots)
    return np.asarray(((units != "") & many) | named, dtype=np.bool_)


def _codes(texts: pd.Series, chosen: BoolArray) -> tuple[pa.Array, Int64Array]:
    """The distinct ones of the chosen texts, and which of them stands in a row (-1: none)."""
    code, distinct = pd.factorize(texts.where(chosen, None))
    return pa.array(distinct, pa.string()), code.astype(np.int64)


def places(column: pa.Array | pa.ChunkedArray, sought: pa.Array) -> Int64Array:
    """Which of those `sought` stands in a row (-1: none)."""
    found = pc.index_in(column.cast(sought.type), value_set=sought, skip_nulls=True)
    return np.asarray(pc.fill_null(found, -1), dtype=np.int64)


def _shown(lists: pa.ChunkedArray, products: pa.Array) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Of every place in `lists`: which list, which of the `products` (-1: none), which place."""
    array = lists.combine_chunks()
    at = np.asarray(pc.list_parent_indices(array), dtype=np.int64)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    position = np.arange(len(at), dtype=np.int64) - starts[at]
    return at, places(pc.list_flatten(array), products), position


def _id_bytes(texts: pa.Array) -> pa.Array:
    """UUIDs as 16 bytes; null for a text that is none."""
    valid = pc.match_substring_regex(texts, _UUID)
    digits = pc.replace_substring(pc.filter(texts, valid), "-", "")
    raw = bytes.fromhex("".join(digits.to_pylist()))
    known = pa.Array.from_buffers(ID_TYPE, len(digits), [None, pa.py_buffer(raw)])
    place = np.cumsum(np.asarray(valid, dtype=np.bool_)) - 1
    return known.take(pa.array(place, mask=~np.asarray(valid, dtype=np.bool_)))


def halves(ids: pa.Array) -> tuple[UInt64Array, UInt64Array]:
    """Ids without nulls as two numbers each, in whose order they sort."""
    raw = b"" if not len(ids) else ids.buffers()[1][16 * ids.offset : 16 * (ids.offset + len(ids))]
    numbers = np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return numbers[:, 0], numbers[:, 1]


def _joined(high: UInt64Array, low: UInt64Array) -> np.ndarray:
    """The ids that `_halves` took apart, as bytes."""
    raw = np.column_stack([high, low]).astype(">u8").tobytes()
    array = pa.Array.from_buffers(ID_TYPE, len(high), [None, pa.py_buffer(raw)])
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=object)


def microseconds(times: pd.Series | pa.ChunkedArray) -> Int64Array:
    """Moments as microseconds since 1970."""
    if isinstance(times, pd.Series):
        return times.astype(TIME_TYPE).to_numpy(dtype="datetime64[us]").astype(np.int64)
    return np.asarray(times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()), dtype=np.int64)


# The first row of what was found: it is earlier than any list.
_NO_LIST: Final = pd.DataFrame(
    {
        "time": np.array([_NEVER], dtype=np.int64),
        **dict.fromkeys(("high", "low"), np.zeros(1, dtype=np.uint64)),
        **dict.fromkeys(
            (POSITION, schema.RECOMMENDATION, schema.USER, schema.SESSION),
            np.array([-1], dtype=np.int64),
        ),
    }
)
