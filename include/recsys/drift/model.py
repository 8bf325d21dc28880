"""How well did a model that could not know the week predict what customers chose in it?"""

import functools
import logging
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from recsys import schema
from recsys.arrays import BoolArray
from recsys.data.keys import microseconds
from recsys.drift.checks import Check
from recsys.drift.config import DriftConfig
from recsys.drift.weeks import NEEDED, Week
from recsys.errors import InputError
from recsys.evaluation.ranking import HeldOut, rank_targets
from recsys.models.artifacts import Artifact, load_artifact
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes, liking
from recsys.models.popularity import RecentPopularity
from recsys.models.storage import read_array
from recsys.registry import Entry, Registry
from recsys.settings import Settings

MIN_USERS = 100
"""Users of a week with a history and a new product below which its hit rate says nothing."""
_TOP_K = 10
_PAST_WEEKS = 4  # before the examined one, that the model's hit rate is compared with

logger = logging.getLogger(__name__)

COLUMNS = (*NEEDED, schema.CONFIDENCE, schema.WEIGHT)


class PastModel(NamedTuple):
    """A registered model, and until when it knew what customers did."""

    artifact: Artifact
    trained_until: datetime


class Hits(NamedTuple):
    """Per user of a week: was something they chose among the first K recommendations?"""

    model: BoolArray
    popularity: BoolArray


class Prediction:
    """What a past model and recent popularity would have recommended, week by week.

    `interactions` need the `COLUMNS`; rows of products that the model does not know are left out.
    """

    def __init__(self, past: PastModel, interactions: pd.DataFrame) -> None:
        item_ids = past.artifact.item_ids
        items = pd.Index(item_ids).get_indexer(pd.Index(interactions[schema.PRODUCT]))
        times = microseconds(interactions[schema.TIMESTAMP]) // 1_000_000
        rows = np.flatnonzero(items >= 0)
        rows = rows[np.argsort(times[rows], kind="stable")]
        names = (schema.RATING, schema.CONFIDENCE)
        confidence = liking(*(interactions[name].to_numpy(np.float32) for name in names))
        self.past = past
        self._items = len(item_ids)
        self._users = pd.factorize(interactions[schema.USER])[0][rows].astype(np.int64)
        self._entries = Histories(  # one long history of everybody, oldest first
            indptr=np.array([0, len(rows)], dtype=np.int64),
            items=items[rows].astype(np.int32),
            confidence=confidence[rows],
            weight=interactions[schema.WEIGHT].to_numpy(np.float32)[rows],
            times=times[rows],
        )
        self._popularity = RecentPopularity().fit(self._entries, self._items)
        self.hits = functools.cache(self._hits)

    def _hits(self, week: Week) -> Hits:
        """Hits of both among the first ten, each seeing only what was before `week`. Counts users
        with a history who chose a product that is new to them and known to the model."""
        held_out = self._held_out(week)
        if held_out is None:
            return Hits(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool))
        scorers = (self.past.artifact.model, self._popularity)
        ranks = [rank_targets(scorer, held_out).ranks for scorer in scorers]
        best = [np.minimum.reduceat(one, held_out.indptr[:-1]) for one in ranks]
        return Hits(*(one <= _TOP_K for one in best))

    def _held_out(self, week: Week) -> HeldOut | None:
        users, entries = self._users, self._entries
        start, end = int(week.start.timestamp()), int(week.end.timestamp())
        low, high = np.searchsorted(entries.times, [start, end])
        pairs = users * self._items + entries.items
        known = np.flatnonzero(np.isin(users[:low], users[low:high]))
        chosen = np.unique(pairs[low:high][np.isin(users[low:high], users[known])])
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

    The current best wins when it qualifies; else the newest that passed its gates."""
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
    """Hit rate on the new products of `week`, against the model's own past and popularity;
    ``insufficient_data`` without a model."""
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
        against, expected, p_value = "before", own_past, _drop_p_value(now.model, before)
    else:
        against, expected, p_value = "for popularity", popularity, _worse_p_value(now)
    drop = 1 - rate / expected if expected else 0.0
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
    either = only_model + only_popularity
    if not either:
        return 1.0
    return float(stats.binomtest(only_model, either, 0.5, alternative="less").pvalue)
