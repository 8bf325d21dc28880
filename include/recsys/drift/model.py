"""How well did a model that could not know the week predict what customers chose in it?"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from recsys import schema
from recsys.arrays import BoolArray, Int64Array
from recsys.data.keys import microseconds
from recsys.drift.checks import Check
from recsys.drift.config import DriftConfig
from recsys.drift.weeks import Week
from recsys.errors import InputError
from recsys.evaluation.ranking import HeldOut, rank_targets
from recsys.models.artifacts import Artifact, load_artifact
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes
from recsys.models.popularity import RecentPopularity
from recsys.models.storage import read_array
from recsys.registry import Entry, Registry
from recsys.settings import Settings

MIN_USERS = 100
"""Users of a week with a history and a new product below which its hit rate says nothing."""
_TOP_K = 10
_PAST_WEEKS = 4  # before the examined one, that the model's hit rate is compared with

logger = logging.getLogger(__name__)

COLUMNS = (schema.USER, schema.PRODUCT, schema.TIMESTAMP, schema.CONFIDENCE, schema.WEIGHT)


@dataclass(frozen=True)
class PastModel:
    """A registered model, and until when it knew what customers did."""

    artifact: Artifact
    trained_until: datetime


@dataclass(frozen=True)
class Hits:
    """Per user of a week: was something they chose among the first K recommendations?"""

    model: BoolArray
    popularity: BoolArray


@dataclass(frozen=True)
class Purchases:
    """All interactions with a model's products, oldest first, as parallel arrays.

    `entries` holds one long history of everybody; `users` tells whose each entry is.
    """

    users: Int64Array
    entries: Histories

    @classmethod
    def of(cls, interactions: pd.DataFrame, item_ids: list[str]) -> "Purchases":
        """Needs the `COLUMNS`. Rows of products that the model does not know are left out."""
        items = pd.Index(item_ids).get_indexer(pd.Index(interactions[schema.PRODUCT]))
        times = microseconds(interactions[schema.TIMESTAMP]) // 1_000_000
        rows = np.flatnonzero(items >= 0)
        rows = rows[np.argsort(times[rows], kind="stable")]
        users = pd.factorize(interactions[schema.USER])[0]
        return cls(
            users=users[rows].astype(np.int64),
            entries=Histories(
                indptr=np.array([0, len(rows)], dtype=np.int64),
                items=items[rows].astype(np.int32),
                confidence=interactions[schema.CONFIDENCE].to_numpy(np.float32)[rows],
                weight=interactions[schema.WEIGHT].to_numpy(np.float32)[rows],
                times=times[rows],
            ),
        )


class Prediction:
    """What a past model and recent popularity would have recommended, week by week."""

    def __init__(self, past: PastModel, interactions: pd.DataFrame) -> None:
        self.past = past
        self._items = len(past.artifact.item_ids)
        self._purchases = Purchases.of(interactions, past.artifact.item_ids)
        self._popularity = RecentPopularity().fit(self._purchases.entries, self._items)
        self._hits: dict[int, Hits] = {}

    def hits(self, week: Week) -> Hits:
        """Hits of both among the first ten, each seeing only what was before `week`.

        Counts users with a history who chose a product that is new to them and known to the
        model.
        """
        if week.number not in self._hits:
            self._hits[week.number] = self._count(week)
        return self._hits[week.number]

    def _count(self, week: Week) -> Hits:
        held_out = self._held_out(week)
        if held_out is None:
            return Hits(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool))
        first = held_out.indptr[:-1]
        best = [
            np.minimum.reduceat(rank_targets(scorer, held_out).ranks, first)
            for scorer in (self.past.artifact.model, self._popularity)
        ]
        return Hits(best[0] <= _TOP_K, best[1] <= _TOP_K)

    def _held_out(self, week: Week) -> HeldOut | None:
        users, entries = self._purchases.users, self._purchases.entries
        start, end = int(week.start.timestamp()), int(week.end.timestamp())
        low, high = np.searchsorted(entries.times, [start, end])
        pairs = users * self._items + entries.items
        active = np.zeros(int(users.max(initial=0)) + 1, dtype=bool)
        active[users[low:high]] = True
        known = np.flatnonzero(active[users[:low]])
        with_history = np.zeros_like(active)
        with_history[users[known]] = True
        chosen = np.unique(pairs[low:high][with_history[users[low:high]]])
        chosen = chosen[~np.isin(chosen, pairs[known])]
        asked, counts = np.unique(chosen // self._items, return_counts=True)
        if len(asked) == 0:
            return None
        known = known[np.isin(users[known], asked)]
        histories = histories_from_codes(
            np.searchsorted(asked, users[known]),
            entries.items[known],
            entries.times[known],
            count=len(asked),
            confidence=entries.confidence[known],
            weight=entries.weight[known],
        )
        return HeldOut(
            histories=histories,
            now=np.full(len(asked), start, dtype=np.int64),
            indptr=np.concatenate([[0], np.cumsum(counts)]),
            targets=(chosen % self._items).astype(np.int32),
        )


def model_before(settings: Settings, moment: datetime) -> PastModel | None:
    """The model that was trained last on nothing later than `moment`, None without one.

    The current best wins when it qualifies; else the newest that passed its gates.
    """
    registry = Registry(settings)
    best = registry.current_best()
    entries = [entry for entry in registry.list() if entry.baseline_comparison.get("passes")]
    for entry in [best, *entries] if best else entries:
        try:
            until = _trained_until(registry, entry)
            if until is not None and until < moment:
                return PastModel(load_artifact(registry.folder(entry)), until)
        except InputError as error:  # health_check tells of it; an older model may be sound
            logger.warning("Model cannot be read | model_id=%s, error=%s", entry.model_id, error)
    return None


def check_model(prediction: Prediction | None, week: Week, config: DriftConfig) -> Check:
    """Hit rate on the new products of `week`, against the model's own past and popularity.

    Without a model the answer is ``insufficient_data``.
    """
    details: dict[str, Any] = {
        "unit": "relative drop of the hit rate",
        "top_k": _TOP_K,
        "test": "exact binomial against the past weeks, else against popularity",
    }
    if prediction is None or prediction.past.trained_until >= week.start:
        reason = "no registered model was trained on nothing later than the week before"
        return Check("model", details=details | {"reason": reason})
    past = prediction.past
    now = prediction.hits(week)
    weeks = [week.before(count) for count in range(1, _PAST_WEEKS + 1)]
    earlier = [prediction.hits(one) for one in weeks if one.start > past.trained_until]
    before = np.concatenate([np.zeros(0, dtype=bool), *(hits.model for hits in earlier)])
    details |= {
        "model_id": past.artifact.model_id,
        "trained_until": past.trained_until.isoformat(),
        "sample_sizes": {"historical": len(before), "new": len(now.model)},
    }
    if len(now.model) < MIN_USERS:
        return Check("model", details=details)
    rate, popularity = float(now.model.mean()), float(now.popularity.mean())
    own_past = float(before.mean()) if len(before) >= MIN_USERS else None
    details |= {"hit_rate": rate, "popularity_hit_rate": popularity, "past_hit_rate": own_past}
    if own_past is not None:
        expected, p_value = own_past, _drop_p_value(now.model, before)
    else:
        expected, p_value = popularity, _worse_p_value(now)
    drop = 1 - rate / expected if expected else 0.0
    against = "before" if own_past is not None else "for popularity"
    return Check(
        "model",
        p_value=p_value,
        effect=drop,
        large=drop >= config.model.min_drop,
        direction=-1,
        severity="high",
        advice=f"The recommendations of {past.artifact.model_id} predict purchases less well: "
        f"hit rate {rate:.3f}, {against} {expected:.3f}. Retrain.",
        details=details,
    )


def _trained_until(registry: Registry, entry: Entry) -> datetime | None:
    """Time of the last interaction that the model was trained on; None without any."""
    times = read_array(registry.folder(entry) / "histories", "times", np.int64, 1)
    return datetime.fromtimestamp(int(times.max()), UTC) if len(times) else None


def _drop_p_value(now: BoolArray, before: BoolArray) -> float:
    table = [[int(hits.sum()), int((~hits).sum())] for hits in (now, before)]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def _worse_p_value(hits: Hits) -> float:
    """Among users where only one of the two hits: is it the model too rarely?"""
    only_model = int((hits.model & ~hits.popularity).sum())
    only_popularity = int((~hits.model & hits.popularity).sum())
    if only_model + only_popularity == 0:
        return 1.0
    test = stats.binomtest(only_model, only_model + only_popularity, 0.5, alternative="less")
    return float(test.pvalue)
