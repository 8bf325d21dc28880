"""What models of the registry would have earned, from the lists of the last weeks that explored.

The lists of a model are made as the service would make them, of what it was trained on and the
shop's catalogue, rules and placements of now. What the service knew besides is not recorded: what
customers did since, and what a page left out."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import schema
from recsys.arrays import Int64Array
from recsys.config import load_config
from recsys.errors import InputError
from recsys.merchandising.customers import standing_placements, standing_rules
from recsys.merchandising.placements import Placement
from recsys.merchandising.ranking import NOTHING, Wanted
from recsys.merchandising.recommending import Snapshot, history_of, recommend
from recsys.merchandising.rules import RuleSet
from recsys.merchandising.snapshots import load_snapshot, steered
from recsys.outcomes.attribution import ID_TYPE, LIST, POSITION, microseconds, places
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.daily import figured_days, read_day
from recsys.outcomes.figures import LAST_POSITION, OWN_LISTS
from recsys.outcomes.off_policy import Estimate, Lists, estimate
from recsys.outcomes.partitions import PRODUCTS, TIME, read_lists
from recsys.registry import Entry, Registry
from recsys.schema import Kind
from recsys.settings import Settings

logger = logging.getLogger(__name__)

DAYS: Final = 28
MOST_LISTS: Final = 20_000
"""Of the newest days; of a day with more the lists of some customers."""
MOST_MODELS: Final = 6
SECONDS: Final = 180.0
"""For the lists of all models together; each may take its share of what is left."""
METRICS: Final = ("recall_at_10", "ndcg_at_10")

_COLUMNS: Final = (
    *(schema.RECOMMENDATION, TIME, schema.USER, schema.PLACEMENT, "endpoint"),
    *(PRODUCTS, "sources", "propensities"),
)
_EXPLORE: Final = ord("e")
_ELSEWHERE: Final = 1 << 30
"""From here on products are numbered that the catalogue does not have."""


class _Sample(NamedTuple):
    """Lists of known customers, padded to ``(lists, places)`` with "" and 0."""

    users: list[str]
    placements: list[str]
    times: Int64Array  # seconds since 1970
    days: tuple[date, ...]
    shown: np.ndarray
    propensity: np.ndarray
    explored: np.ndarray
    clicks: np.ndarray

    def asked(self, row: int) -> tuple[str, str, int]:
        """User, placement and length of a list: a model makes one for all that are alike."""
        return self.users[row], self.placements[row], int((self.shown[row] != "").sum())


def judge_candidates(settings: Settings, last: date) -> dict[str, Any] | None:
    """Estimates for the deployed model and the newest of each type, from lists of the `DAYS` before
    `last`; None if none of those explored. What cannot be told of a model is said in its
    ``refused``. Raises `InputError` if lists or figures cannot be read."""
    sample = _read_sample(settings, last)
    if sample is None:
        return None
    registry = Registry(settings)
    entries = candidates(registry)
    rules, placements = _wishes(settings)
    until, rows = time.monotonic() + SECONDS, []
    for number, entry in enumerate(entries):
        left = max(0.0, until - time.monotonic()) / (len(entries) - number)
        found = _judge(settings, registry, entry, sample, (rules, placements), left)
        rows.append(_row(entry, found, deployed=number == 0))
    return {
        "first_day": str(sample.days[-1]),
        "last_day": str(sample.days[0]),
        "lists": len(sample.users),
        "customers": len(set(sample.users)),
        "models": rows,
    }


def candidates(registry: Registry) -> list[Entry]:
    """The model that is to be served, then the newest of each type that may be."""
    best = registry.current_best()
    active = [one for one in registry.list() if one.status == "active"]
    newest = {one.model_type: one for one in reversed(active)}.values()
    rest = sorted(newest, key=lambda one: one.created_at, reverse=True)
    chosen = {one.model_id: one for one in ([best] if best else []) + rest}
    return [*chosen.values()][:MOST_MODELS]


def _row(entry: Entry, found: Estimate, *, deployed: bool) -> dict[str, Any]:
    return {
        "model_id": entry.model_id,
        "model_type": entry.model_type,
        "deployed": deployed,
        "metrics": {name: entry.metrics.get(name) for name in METRICS},
        "clicks": {"value": found.value, "low": found.low, "high": found.high},
        "served": found.served,
        "support": found.support,
        "effective_customers": found.effective,
        "customers": found.units,
        "lists": found.lists,
        "refused": found.refused,
    }


def _refused(why: str) -> Estimate:
    return Estimate(None, None, None, None, 0.0, 0.0, 0, 0, why)


def _wishes(settings: Settings) -> tuple[RuleSet, Mapping[str, Placement]]:
    """Rules and placements as they are, but for exploring."""
    placements = standing_placements(settings)
    return standing_rules(settings), {
        name: one.model_copy(update={"explore": 0.0}) for name, one in placements.items()
    }


def _judge(
    settings: Settings,
    registry: Registry,
    entry: Entry,
    sample: _Sample,
    wishes: tuple[RuleSet, Mapping[str, Placement]],
    seconds: float,
) -> Estimate:
    until = time.monotonic() + seconds
    try:
        snapshot = load_snapshot(settings, registry.folder(entry), entry.model_id, 0.0)
    except (InputError, OSError) as error:
        return _refused(f"it cannot be loaded: {error}")
    rules, placements = wishes
    snapshot = steered(snapshot, rules, placements, datetime.now(UTC))
    known_until = int(snapshot.artifact.histories.times.max(initial=0))
    rows = np.array(
        [
            row
            for row, user in enumerate(sample.users)
            if sample.times[row] > known_until and snapshot.position(user) is not None
        ],
        dtype=np.int64,
    )
    made = _made(snapshot, placements, sample, rows, until)
    done = [row for row in rows.tolist() if sample.asked(row) in made]
    if not done:
        return _refused("none of the lists is of a customer whom it knows, and later than its data")
    chosen = np.array(done, dtype=np.int64)
    width = sample.shown.shape[1]
    candidate = np.full((len(chosen), width), -1, dtype=np.int64)
    for place, row in enumerate(done):
        items = made[sample.asked(row)]
        candidate[place, : len(items)] = items
    return estimate(
        Lists(
            unit=np.unique(np.array(sample.users)[chosen], return_inverse=True)[1],
            shown=_numbers(sample.shown[chosen], snapshot.catalogue.index),
            candidate=candidate,
            propensity=sample.propensity[chosen],
            explored=sample.explored[chosen],
            clicks=sample.clicks[chosen],
        )
    )


def _made(
    snapshot: Snapshot,
    placements: Mapping[str, Placement],
    sample: _Sample,
    rows: Iterable[int],
    until: float,
) -> dict[tuple[str, str, int], list[int]]:
    """What is asked for -> the columns of the candidate's list, as far as the time goes."""
    available = snapshot.catalogue.available
    made: dict[tuple[str, str, int], list[int]] = {}
    for row in rows:
        user, placement, length = key = sample.asked(row)
        if key in made:
            continue
        if time.monotonic() > until:
            break
        seen = bool(placements.get(placement, Placement()).exclude_seen)
        wanted = Wanted(length, seen, available, NOTHING, snapshot.steerings.of(placement))
        now = int(sample.times[row])
        history = history_of(snapshot, user, (), [], now)
        made[key] = recommend(snapshot, history, wanted, now).ranked.items
    return made


def _numbers(shown: np.ndarray, index: Mapping[str, int]) -> Int64Array:
    """Columns of the ``(lists, places)`` ids `shown`, -1 for ""."""
    ids, code = np.unique(shown, return_inverse=True)
    numbers = [
        -1 if not one else index.get(one, _ELSEWHERE + place) for place, one in enumerate(ids)
    ]
    return np.asarray(np.array(numbers, dtype=np.int64)[code].reshape(shown.shape))


def _read_sample(settings: Settings, last: date) -> _Sample | None:
    config = load_config(settings, OutcomesConfig)
    tables, clicks, days, left = [], [], [], MOST_LISTS
    there = set(figured_days(settings))
    for day in (last - timedelta(days=back) for back in range(1, DAYS + 1)):
        if day not in there or left <= 0:
            continue
        lists = _of_known(read_lists(settings, [day], _COLUMNS), config)
        lists = _some(lists, left)
        if not lists.num_rows:
            continue
        outcomes = read_day(settings, day, "outcomes", [LIST, schema.KIND, POSITION])
        tables.append(lists)
        clicks.append(outcomes[outcomes[schema.KIND] == Kind.CLICK])
        days.append(day)
        left -= lists.num_rows
    return _padded(pa.concat_tables(tables), pd.concat(clicks), tuple(days)) if tables else None


def _of_known(lists: pa.Table, config: OutcomesConfig) -> pa.Table:
    """Those that explored and were for one customer, without robots."""
    explored = pc.greater(pc.fill_null(pc.list_value_length(lists["propensities"]), 0), 0)
    own = pc.is_in(lists["endpoint"], value_set=pa.array(OWN_LISTS))
    known = pc.not_equal(pc.fill_null(lists[schema.USER], ""), "")
    counts = pc.value_counts(lists[schema.USER])
    robots = counts.field("values").filter(
        pc.greater(counts.field("counts"), config.robot_lists_per_day)
    )
    robot = pc.is_in(
        lists[schema.USER],
        value_set=pa.concat_arrays([robots, pa.array(config.robots, pa.string())]),
    )
    return lists.filter(pc.and_(pc.and_(explored, own), pc.and_(known, pc.invert(robot))))


def _some(lists: pa.Table, most: int) -> pa.Table:
    """All lists of some customers, about as many as `most`."""
    if lists.num_rows <= most:
        return lists
    chance = pd.util.hash_array(lists[schema.USER].to_numpy(zero_copy_only=False)) / 2.0**64
    return lists.filter(pa.array(chance < most / lists.num_rows))


def _padded(lists: pa.Table, clicks: pd.DataFrame, days: tuple[date, ...]) -> _Sample:
    products = lists[PRODUCTS].to_pylist()
    width = min(LAST_POSITION, max(map(len, products)))
    ids = lists[schema.RECOMMENDATION].cast(ID_TYPE).combine_chunks()
    row = places(pa.array(clicks[LIST], ID_TYPE), ids)
    place = clicks[POSITION].to_numpy(dtype=np.int64)
    ours = (row >= 0) & (place < width)
    clicked = np.zeros((lists.num_rows, width))
    np.add.at(clicked, (row[ours], place[ours]), 1)
    sources = [[ord(letter) for letter in text] for text in lists["sources"].to_pylist()]
    return _Sample(
        users=lists[schema.USER].to_pylist(),
        placements=lists[schema.PLACEMENT].to_pylist(),
        times=microseconds(lists[TIME]) // 1_000_000,
        days=days,
        shown=_matrix(products, width, "", object),
        propensity=_matrix(lists["propensities"].to_pylist(), width, 1.0, float),
        explored=_matrix(sources, width, 0, int) == _EXPLORE,
        clicks=clicked,
    )


def _matrix(rows: Sequence[Sequence[Any]], width: int, empty: Any, kind: type) -> np.ndarray:
    """``(rows, width)`` what stands in `rows`, which are cut or filled up with `empty`."""

    def cells() -> Iterator[list[Any]]:
        for row in rows:
            yield [*row[:width], *[empty] * (width - len(row))]

    return np.array([*cells()], dtype=kind).reshape(len(rows), width)
