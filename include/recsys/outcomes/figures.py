"""What became of one day's lists, in numbers that add up. Pure: tables in, tables out.

Users fall into `BLOCKS` blocks by a hash of their ids, the same on every day. Sums by block are all
that intervals need which treat the user as the unit (see `recsys.outcomes.rates`), for a day as for
a month, and stay small however many users there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.arrays import AnyArray, BoolArray, Int64Array, UInt8Array
from recsys.experiments.definitions import HOLDOUT
from recsys.merchandising.recommending import POPULARITY
from recsys.models.model_types import ranks_alike
from recsys.outcomes.attribution import (
    FATE,
    ID_TYPE,
    LIST,
    POSITION,
    Fate,
    halves,
    microseconds,
    places,
    unit_of,
)
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.partitions import PRODUCTS, TIME
from recsys.schema import Kind
from recsys.served_lists import SOURCES

Sums = dict[str, AnyArray]

BLOCKS: Final = 256

OWN_LISTS: Final = ("recommend", "batch_recommend", "export_lists")
"""Endpoints of lists for one customer: what the holdout gets otherwise. Lists like a product, or
for some words, are the same for everybody, and are on neither side."""
REST: Final = "rest"

LAST_POSITION: Final = 30
"""The position curve goes so far; what stands behind counts for the place after it."""

PROMPT: Final = timedelta(hours=24)
"""Purchases so soon after their list are known a day later: days can be compared before the windows
of purchases are over."""

DIMENSIONS: Final = (schema.PLACEMENT, "endpoint", "model_id", "experiment", "variant")
LIST_COLUMNS: Final = (
    *(schema.RECOMMENDATION, TIME, schema.USER, schema.SESSION, *DIMENSIONS),
    *("fallback_method", PRODUCTS, "sources", "propensities"),
)
"""What a day's figures need of its lists."""

COUNTS: Final = ("lists", "users", "items", "clicks", "carts", "purchases")
WHOLE: Final = (*COUNTS, "prompt_purchases", "fallbacks", "bought")
MONEY: Final = ("value", "spent")
"""Measures of `DayFigures.slices`: whole numbers, and dong. ``bought`` and ``spent`` are all that
the users bought on that day after their first list, attributed or not."""

SOURCE_NAMES: Final = (*SOURCES.values(), "unknown")

EXPLORED: Final = ("explored", "beside_explored")
"""Slices by position of lists in which places were given away: places that were, and the others, of
which nobody has pinned the product."""

_EXPLORE, _RULE = (SOURCE_NAMES.index(name) for name in ("explore", "rule"))
_POSITIONS: Final = tuple(str(place) for place in range(LAST_POSITION + 1))
_KINDS: Final = {"clicks": Kind.CLICK, "carts": Kind.CART, "purchases": Kind.PURCHASE}


@dataclass(frozen=True)
class DayFigures:
    """The figures of the lists that were served on one day, without robots.

    `cube`: one row for each of `DIMENSIONS` and ``source`` with ``lists`` and ``users`` (that had
    one of its products), ``items``, ``clicks``, ``carts``, ``purchases``, ``value``. `slices`: all
    measures by ``slice`` (total, placement, endpoint, model, source, side, holdout, position; where
    places are explored also those of `EXPLORED`), ``key`` and ``block``. `units`: by experiment,
    variant and unit. `products`: how often each was shown, and its outcomes. `explored`: by product
    and position how often it was drawn, and clicked then. `events`: the outcomes with what their
    list says. `totals`: plain numbers."""

    cube: pd.DataFrame
    slices: pd.DataFrame
    units: pd.DataFrame
    products: pd.DataFrame
    explored: pd.DataFrame
    events: pd.DataFrame
    totals: Mapping[str, Any]


def day_figures(
    lists: pa.Table, outcomes: pd.DataFrame, happened: pd.DataFrame, config: OutcomesConfig
) -> DayFigures:
    """The figures of the `lists` of one day (columns `LIST_COLUMNS`). `outcomes` are the events
    attributed to them, of whatever day, and `happened` all events of this day, both as
    `attribution.Search` gives them. The order of rows does not matter."""
    served = lists.num_rows
    lists, robots = _without_robots(lists.select(LIST_COLUMNS), config)
    counted, lost = _each_once(lists, outcomes)
    day = _Day(lists, counted, happened[happened[FATE] != Fate.ROBOT])
    slices, units = day.slices(), day.units()
    whole = slices[slices["slice"] == "total"]
    fates = happened.groupby([FATE, schema.KIND]).size()
    totals = {
        **{name: int(whole[name].sum()) for name in WHOLE},
        **{name: float(whole[name].sum()) for name in MONEY},
        "anonymous_lists": int((~day.known).sum()),
        "active_users": day.active_users,
        "robots": {"units": robots, "lists": served - lists.num_rows, "outcomes": lost[0]},
        "repeated": lost[1],
        "unvalued": int(day.outcomes[day.is_kind["purchases"]][schema.VALUE].isna().sum()),
        "happened": {str(fate): _by_kind(fates, fate) for fate in Fate},
    }
    return DayFigures(
        day.cube(), slices, units, day.products(), day.explored(), day.events(), totals
    )


def _without_robots(lists: pa.Table, config: OutcomesConfig) -> tuple[pa.Table, int]:
    """The lists of everybody else, and how many robots there are."""
    units = _units(lists)
    counts = pc.value_counts(units)
    many = pc.greater(counts.field("counts"), config.robot_lists_per_day)
    named = pc.not_equal(counts.field("values"), "")
    above = counts.field("values").filter(pc.and_(many, named))
    robots = pa.chunked_array([above, pa.array(config.robots, pa.string())])
    is_robot = np.zeros(lists.num_rows, dtype=np.bool_)
    for column in (units, lists[schema.USER], lists[schema.SESSION]):
        is_robot |= places(column, robots.combine_chunks()) >= 0
    if not is_robot.any():
        return lists, 0
    found = pc.count_distinct(units.filter(pa.array(is_robot))).as_py()
    return lists.filter(pa.array(~is_robot)), found


def _each_once(lists: pa.Table, outcomes: pd.DataFrame) -> tuple[pd.DataFrame, tuple[int, int]]:
    """The outcomes of the `lists` with the ``row`` of theirs, the first of each list, product and
    kind; how many are of other lists, and how many are repeats."""
    ids = lists[schema.RECOMMENDATION].cast(ID_TYPE).combine_chunks()
    outcomes = outcomes.sort_values([schema.TIMESTAMP, schema.EVENT], ignore_index=True)
    sought = pa.array(outcomes[LIST], ID_TYPE)
    # Looked up in the many, not the other way round: a table of a million ids is slower.
    found = places(ids, sought.unique())
    row_of = np.full(len(sought.unique()), -1, dtype=np.int64)
    row_of[found[found >= 0]] = np.flatnonzero(found >= 0)
    row = row_of[places(sought, sought.unique())] if len(sought) else np.empty(0, dtype=np.int64)
    own = outcomes.assign(row=row)[row >= 0]
    once = own.drop_duplicates(schema.EVENT).drop_duplicates(["row", schema.PRODUCT, schema.KIND])
    return once.reset_index(drop=True), (len(outcomes) - len(own), len(own) - len(once))


class _Day:
    """The lists as arrays, one cell a list, with the rows of their outcomes."""

    def __init__(self, lists: pa.Table, outcomes: pd.DataFrame, happened: pd.DataFrame) -> None:
        self.lists, self.outcomes = lists, outcomes
        kind = outcomes[schema.KIND]
        self.is_kind = {name: (kind == one).to_numpy() for name, one in _KINDS.items()}
        self.row = outcomes["row"].to_numpy(dtype=np.int64)
        self._name_units()
        self._place_products()
        self.value = outcomes[schema.VALUE].fillna(0.0).to_numpy() * self.is_kind["purchases"]
        age = microseconds(outcomes[schema.TIMESTAMP]) - self.time[self.row]
        prompt = age <= PROMPT // timedelta(microseconds=1)
        self.is_kind["prompt_purchases"] = self.is_kind["purchases"] & prompt
        self._add_purchases(happened)

    def _name_units(self) -> None:
        encoded = _units(self.lists).dictionary_encode()
        self.names = encoded.dictionary
        unit = np.asarray(encoded.indices, dtype=np.int64)
        self.known = np.asarray(pc.not_equal(encoded, ""), dtype=np.bool_)
        hashes = pd.util.hash_array(np.asarray(self.names, dtype=object))
        _, low = halves(self.lists[schema.RECOMMENDATION].cast(ID_TYPE).combine_chunks())
        # A list that was shown to nobody known stands for a customer of its own.
        own = len(self.names) + np.arange(len(unit), dtype=np.int64)
        self.unit = np.where(self.known, unit, own)
        block = np.where(self.known, (hashes % BLOCKS)[unit], low % BLOCKS)
        self.block = block.astype(np.int64)
        self.block_of = np.append((hashes % BLOCKS).astype(np.int64), self.block)
        self.time = microseconds(self.lists[TIME])
        method = pc.fill_null(self.lists["fallback_method"], "")
        # What is popular is no fallback of a model that is nothing else.
        models = pc.unique(self.lists["model_id"]).to_pylist()
        alike = pa.array([one for one in models if one and ranks_alike(one)], pa.string())
        own = pc.and_(pc.is_in(self.lists["model_id"], alike), pc.equal(method, POPULARITY))
        self.fallback = np.asarray(pc.and_not(pc.not_equal(method, ""), own), dtype=np.bool_)

    def _place_products(self) -> None:
        array = self.lists[PRODUCTS].combine_chunks()
        self.lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), dtype=np.int64)
        self.at = np.asarray(pc.list_parent_indices(array), dtype=np.int64)
        starts = np.cumsum(self.lengths) - self.lengths
        self.position = np.arange(len(self.at), dtype=np.int64) - starts[self.at]
        self.product = pc.list_flatten(array).dictionary_encode()
        letters = _letters(self.lists["sources"].combine_chunks(), self.lengths)
        codes = np.full(256, len(SOURCES), dtype=np.int64)
        codes[[ord(letter) for letter in SOURCES]] = np.arange(len(SOURCES))
        source = codes[letters]
        exploring = pc.list_value_length(self.lists["propensities"].combine_chunks())
        self.source = source
        self.exploring = np.asarray(pc.fill_null(exploring, 0), dtype=np.int64) > 0
        place = starts[self.row] + self.outcomes[POSITION].to_numpy(dtype=np.int64)
        self.outcome_place, self.outcome_source = place, source[place]
        self.outcome_product = np.asarray(self.product.indices, dtype=np.int64)[place]
        width = len(SOURCE_NAMES)
        of_source = np.bincount(self.at * width + source, minlength=len(self.lengths) * width)
        self.of_source = of_source.reshape(-1, width)

    def _add_purchases(self, happened: pd.DataFrame) -> None:
        """What each unit bought on this day after its first list, whatever led to it."""
        units = pa.array(unit_of(happened[schema.USER], happened[schema.SESSION]), pa.string())
        unit = places(units, self.names)
        first = np.full(len(self.names), np.iinfo(np.int64).max, dtype=np.int64)
        np.minimum.at(first, self.unit[self.known], self.time[self.known])
        named = (unit >= 0) & np.asarray(pc.not_equal(units, ""), dtype=np.bool_)
        self.active_users = len(np.unique(unit[named]))
        bought = named & (happened[schema.KIND] == Kind.PURCHASE).to_numpy()
        bought[bought] = microseconds(happened[schema.TIMESTAMP])[bought] >= first[unit[bought]]
        value = happened[schema.VALUE].fillna(0.0).to_numpy()[bought]
        every = len(self.names) + len(self.unit)
        self.bought = np.bincount(unit[bought], minlength=every)
        self.spent = np.bincount(unit[bought], weights=value, minlength=every)

    def slices(self) -> pd.DataFrame:
        frames = []
        for name, (code, keys) in self._list_keys().items():
            counted = self._sums(code, len(keys), BLOCKS) | self._people(
                np.arange(len(code)), code, len(keys), BLOCKS
            )
            frames.append(_table(name, keys, counted))
        rows, source = np.nonzero(self.of_source)
        counted = self._people(rows, source, len(SOURCE_NAMES), BLOCKS)
        counted |= self._source_sums(np.zeros_like(self.block), 1, BLOCKS)
        frames.append(_table("source", SOURCE_NAMES, counted))
        everywhere = np.ones(len(self.at), dtype=np.bool_)
        frames.append(_table("position", _POSITIONS, self._position_sums(everywhere)))
        if self.exploring.any():
            drawn = self.source == _EXPLORE
            own = self.exploring[self.at] & ~drawn & (self.source != _RULE)
            for name, chosen in zip(EXPLORED, (drawn, own), strict=True):
                frames.append(_table(name, _POSITIONS, self._position_sums(chosen)))
        table = pd.concat(frames).fillna(0)
        whole = dict.fromkeys((*WHOLE, "block"), np.int64)
        table = table[["slice", "key", "block", *WHOLE, *MONEY]].astype(whole)
        return table.sort_values(["slice", "key", "block"], ignore_index=True)

    def cube(self) -> pd.DataFrame:
        columns = [_coded(self.lists[name]) for name in DIMENSIONS]
        code = np.zeros(len(self.unit), dtype=np.int64)
        for part, keys in columns:
            code = code * len(keys) + part
        distinct, code = np.unique(code, return_inverse=True)
        sums = self._source_sums(code, len(distinct), 1)
        rows, source = np.nonzero(self.of_source)
        width = len(SOURCE_NAMES)
        sums |= self._people(rows, code[rows] * width + source, len(distinct) * width, 1)
        cell = np.flatnonzero(sums["lists"])
        table = pd.DataFrame({name: sums[name][cell] for name in (*COUNTS, "value")})
        rest = distinct[cell // width]
        for name, (_, keys) in reversed([*zip(DIMENSIONS, columns, strict=True)]):
            table[name] = np.array(keys, dtype=object)[rest % len(keys)]
            rest //= len(keys)
        table["source"] = np.array(SOURCE_NAMES, dtype=object)[cell % width]
        order = [*DIMENSIONS, "source"]
        return table[[*order, *COUNTS, "value"]].sort_values(order, ignore_index=True)

    def units(self) -> pd.DataFrame:
        """By experiment, variant and unit the sums that experiments are judged by."""
        sides, keys = _sides(self.lists)
        shown = np.flatnonzero(self.known)
        pair, inverse = np.unique(
            sides[shown] * len(self.names) + self.unit[shown], return_inverse=True
        )
        code = np.full(len(self.unit), len(pair), dtype=np.int64)
        code[shown] = inverse
        sums = self._sums(code, len(pair) + 1, 1)
        side = np.array(keys, dtype=object).reshape(-1, 2)[pair // max(1, len(self.names))]
        unit = self.names.take(pa.array(pair % max(1, len(self.names)))).to_pylist()
        wanted = ("lists", "clicks", "carts", "purchases", "value", "fallbacks")
        about = {"experiment": side[:, 0], "variant": side[:, 1], "unit": unit}
        table = pd.DataFrame(about | {name: sums[name][: len(pair)] for name in wanted})
        return table.sort_values(list(about), ignore_index=True)

    def products(self) -> pd.DataFrame:
        """How often each product was shown, and its outcomes."""
        ids = self.product.dictionary.to_pylist()
        shown = np.bincount(np.asarray(self.product.indices, dtype=np.int64), minlength=len(ids))
        sums = self._outcomes(self.outcome_product, len(ids))
        kept = {name: sums[name] for name in (*_KINDS, "value")}
        table = pd.DataFrame({schema.PRODUCT: ids, "shown": shown} | kept)
        return table.sort_values(schema.PRODUCT, ignore_index=True)

    def explored(self) -> pd.DataFrame:
        """How often each product was drawn for each position, and clicked there."""
        ids, width = self.product.dictionary.to_pylist(), len(_POSITIONS)
        position = np.minimum(self.position, LAST_POSITION)
        cell = np.asarray(self.product.indices, dtype=np.int64) * width + position
        drawn = (self.source == _EXPLORE) & self.exploring[self.at]
        clicked = self.is_kind["clicks"] & drawn[self.outcome_place]
        shown = np.bincount(cell[drawn], minlength=len(ids) * width)
        clicks = np.bincount(cell[self.outcome_place[clicked]], minlength=len(shown))
        found = np.flatnonzero(shown)
        table = pd.DataFrame(
            {
                schema.PRODUCT: np.array(ids, dtype=object)[found // width],
                POSITION: found % width,
                "shown": shown[found],
                "clicks": clicks[found],
            }
        )
        return table.sort_values([schema.PRODUCT, POSITION], ignore_index=True)

    def events(self) -> pd.DataFrame:
        """The outcomes, each with what its list says."""
        own = (LIST, schema.EVENT, schema.PRODUCT, schema.KIND, schema.TIMESTAMP)
        table = self.outcomes[[*own, schema.QUANTITY, schema.VALUE, POSITION]].copy()
        table["source"] = np.array(SOURCE_NAMES, dtype=object)[self.outcome_source]
        rows = pa.array(self.row)
        table["unit"] = _units(self.lists).take(rows).to_pylist()
        for name in DIMENSIONS:
            table[name] = _filled(self.lists[name]).take(rows).to_pylist()
        return table

    def _list_keys(self) -> dict[str, tuple[Int64Array, list[str]]]:
        """Slice -> which of its keys each list has, and the keys."""
        sides, keys = _sides(self.lists)
        return {
            "total": (np.zeros(len(self.unit), dtype=np.int64), [""]),
            "placement": _coded(self.lists[schema.PLACEMENT]),
            "endpoint": _coded(self.lists["endpoint"]),
            "model": _coded(self.lists["model_id"]),
            "side": (sides, ["/".join(pair).strip("/") for pair in keys]),
            "holdout": (self._compared(), ["", HOLDOUT, REST]),
        }

    def _compared(self) -> Int64Array:
        """Whether a list is one of the holdout (1), one of everybody else (2), or neither."""
        held = pc.equal(_filled(self.lists["experiment"]), HOLDOUT)
        own = pc.is_in(_filled(self.lists["endpoint"]), value_set=pa.array(OWN_LISTS))
        return np.where(own, np.where(held, 1, 2), 0).astype(np.int64)

    def _sums(self, code: Int64Array, keys: int, blocks: int) -> Sums:
        """Sums by key and block, of lists that have one key each."""
        cell = code * blocks + self.block % blocks
        most = keys * blocks
        return {
            "lists": np.bincount(cell, minlength=most),
            "items": np.bincount(cell, weights=self.lengths, minlength=most),
            "fallbacks": np.bincount(cell[self.fallback], minlength=most),
            **self._outcomes(cell[self.row], most),
        }

    def _source_sums(self, code: Int64Array, keys: int, blocks: int) -> Sums:
        """The same by source as well: a list counts for each source that it has products of."""
        width, most = len(SOURCE_NAMES), keys * len(SOURCE_NAMES) * blocks
        block = self.block % blocks

        def cell(row: Int64Array, source: Int64Array) -> Int64Array:
            return (code[row] * width + source) * blocks + block[row]

        rows, source = np.nonzero(self.of_source)
        at = cell(rows, source)
        return {
            "lists": np.bincount(at, minlength=most),
            "items": np.bincount(at, weights=self.of_source[rows, source], minlength=most),
            **self._outcomes(cell(self.row, self.outcome_source), most),
        }

    def _position_sums(self, places: BoolArray) -> Sums:
        """By position, of the ``(all places,)`` `places`."""
        most = len(_POSITIONS) * BLOCKS
        cell = np.minimum(self.position, LAST_POSITION) * BLOCKS + self.block[self.at]
        # What is not asked for goes to a cell of its own behind all others.
        cell = np.where(places, cell, most)
        shown = np.bincount(cell, minlength=most + 1)
        outcomes = self._outcomes(cell[self.outcome_place], most + 1)
        sums = {"lists": shown, "items": shown, **outcomes}
        return {name: one[:most] for name, one in sums.items()}

    def _outcomes(self, cell: Int64Array, most: int) -> Sums:
        """How many outcomes of each kind, and the value of purchases, are in each cell."""
        counts = {n: np.bincount(cell[one], minlength=most) for n, one in self.is_kind.items()}
        return {**counts, "value": np.bincount(cell, weights=self.value, minlength=most)}

    def _people(self, rows: Int64Array, code: Int64Array, keys: int, blocks: int) -> Sums:
        """How many units had a list of each key, and what they bought in all."""
        every, most = len(self.bought), keys * blocks
        pair = pd.unique(code * every + self.unit[rows])  # NumPy's takes ten times as long
        unit = pair % every
        cell = pair // every * blocks + self.block_of[unit] % blocks
        return {
            "users": np.bincount(cell, minlength=most),
            "bought": np.bincount(cell, weights=self.bought[unit], minlength=most),
            "spent": np.bincount(cell, weights=self.spent[unit], minlength=most),
        }


def _table(name: str, keys: Sequence[str], sums: Sums) -> pd.DataFrame:
    """The cells that have lists, of one slice."""
    cell = np.flatnonzero(sums["lists"])
    about = {"slice": name, "key": np.array(keys, dtype=object)[cell // BLOCKS]}
    return pd.DataFrame(about | {"block": cell % BLOCKS} | {n: s[cell] for n, s in sums.items()})


def _filled(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(column.cast(pa.string()), "")


def _units(lists: pa.Table) -> pa.Array:
    """As `attribution.unit_of`."""
    user, session = (_filled(lists[name]) for name in (schema.USER, schema.SESSION))
    return pc.if_else(pc.not_equal(user, ""), user, session).combine_chunks()


def _coded(column: pa.ChunkedArray) -> tuple[Int64Array, list[str]]:
    encoded = _filled(column).combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices, dtype=np.int64), encoded.dictionary.to_pylist()


def _sides(lists: pa.Table) -> tuple[Int64Array, list[tuple[str, str]]]:
    """Experiment and variant of each list."""
    experiment, names = _coded(lists["experiment"])
    variant, variants = _coded(lists["variant"])
    pairs, code = np.unique(experiment * max(1, len(variants)) + variant, return_inverse=True)
    sides = (divmod(int(pair), len(variants)) for pair in pairs)
    return code, [(names[one], variants[other]) for one, other in sides]


def _letters(sources: pa.Array, lengths: Int64Array) -> UInt8Array:
    """The letters of all places, one after the other; of a list that has another number of them
    than of products nothing is known."""
    fits = np.asarray(pc.fill_null(pc.binary_length(sources), 0), dtype=np.int64) == lengths
    if not fits.all():
        sources = pc.if_else(pa.array(fits), sources, pc.binary_repeat("?", pa.array(lengths)))
    offsets = np.frombuffer(sources.buffers()[1], dtype=np.int32) if len(sources) else [0]
    first, last = offsets[sources.offset], offsets[sources.offset + len(sources)]
    data = sources.buffers()[2] if last > first else b""
    return np.frombuffer(data, dtype=np.uint8, count=last - first, offset=first)


def _by_kind(fates: pd.Series, fate: str) -> dict[str, int]:
    found = fates[fates.index.get_level_values(FATE) == fate].droplevel(FATE)
    return {str(kind): int(count) for kind, count in found.items()}
