"""How well did a model that could not know the week predict what customers chose in it?"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from recsys.data import schema
from recsys.drift.checks import INSUFFICIENT, TESTED, Check
from recsys.drift.config import DriftConfig
from recsys.drift.events import Week
from recsys.errors import InputError
from recsys.evaluation.ranking import HeldOut, rank_targets
from recsys.models.artifacts import Artifact, load_artifact
from recsys.models.histories import histories_from_frame
from recsys.models.popularity import RecentPopularity
from recsys.models.storage import read_array
from recsys.registry import Entry, Registry
from recsys.settings import Settings

logger = logging.getLogger(__name__)

COLUMNS = (
    schema.USER,
    schema.PRODUCT,
    schema.TIMESTAMP,
    schema.CONFIDENCE,
    schema.WEIGHT,
)


@dataclass(frozen=True)
class PastModel:
    """A registered model, and until when it knew what customers did."""

    artifact: Artifact
    trained_until: datetime


@dataclass(frozen=True)
class Hits:
    """Per user of a week: was something they chose among the first K recommendations?"""

    model: NDArray[np.bool_]
    popularity: NDArray[np.bool_]


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


def check_model(
    past: PastModel | None, interactions: pd.DataFrame | None, week: Week, config: DriftConfig
) -> Check:
    """Hit rate of `past` on the new products of `week`, against its own past and popularity.

    `interactions` needs the `COLUMNS`; None or no model gives ``insufficient_data``.
    """
    rule = config.model
    details: dict[str, Any] = {
        "unit": "relative drop of the hit rate",
        "top_k": rule.top_k,
        "test": "exact binomial against the past weeks, else against popularity",
    }
    if past is None or interactions is None:
        reason = "no registered model was trained on nothing later than the week before"
        return Check("model", INSUFFICIENT, details=details | {"reason": reason})
    now = week_hits(past.artifact, interactions, week, rule.top_k)
    weeks = [week.before(count) for count in range(1, rule.past_weeks + 1)]
    earlier = [
        week_hits(past.artifact, interactions, one, rule.top_k)
        for one in weeks
        if one.start > past.trained_until
    ]
    before = (
        np.concatenate([hits.model for hits in earlier]) if earlier else np.zeros(0, dtype=bool)
    )
    details |= {
        "model_id": past.artifact.model_id,
        "trained_until": past.trained_until.isoformat(),
        "sample_sizes": {"historical": len(before), "new": len(now.model)},
    }
    if len(now.model) < rule.min_users:
        return Check("model", INSUFFICIENT, details=details)
    rate, popularity = float(now.model.mean()), float(now.popularity.mean())
    own_past = float(before.mean()) if len(before) >= rule.min_users else None
    details |= {"hit_rate": rate, "popularity_hit_rate": popularity, "past_hit_rate": own_past}
    if own_past is not None:
        expected, p_value = own_past, _drop_p_value(now.model, before)
    else:
        expected, p_value = popularity, _worse_p_value(now)
    drop = 1 - rate / expected if expected else 0.0
    against = "before" if own_past is not None else "for popularity"
    return Check(
        "model",
        TESTED,
        p_value=p_value,
        effect=drop,
        large=drop >= rule.min_drop,
        direction=-1,
        severity=config.severity.model,
        advice=f"The recommendations of {past.artifact.model_id} predict purchases less well: "
        f"hit rate {rate:.3f}, {against} {expected:.3f}. Retrain.",
        details=details,
    )


def week_hits(artifact: Artifact, interactions: pd.DataFrame, week: Week, top_k: int) -> Hits:
    """Hits of the model and of recent popularity, both seeing only what was before `week`.

    Counts users with a history who chose a product that is new to them and known to the model.
    """
    times = interactions[schema.TIMESTAMP]
    start = pd.Timestamp(week.start)
    before, during = (
        interactions[times < start],
        interactions[(times >= start) & (times < pd.Timestamp(week.end))],
    )
    items = pd.Index(artifact.item_ids)
    known = before[before[schema.PRODUCT].isin(items)]
    chosen = during[during[schema.PRODUCT].isin(items)][[schema.USER, schema.PRODUCT]]
    chosen = chosen[chosen[schema.USER].isin(known[schema.USER].unique())].drop_duplicates()
    known_users = known[known[schema.USER].isin(chosen[schema.USER].unique())]
    seen = pd.MultiIndex.from_frame(known_users[[schema.USER, schema.PRODUCT]])
    chosen = chosen[~pd.MultiIndex.from_frame(chosen).isin(seen)].sort_values(schema.USER)
    users = pd.Index(chosen[schema.USER].unique())
    if len(users) == 0:
        return Hits(np.zeros(0, dtype=bool), np.zeros(0, dtype=bool))
    counts = np.bincount(users.get_indexer(pd.Index(chosen[schema.USER])), minlength=len(users))
    held_out = HeldOut(
        histories=histories_from_frame(known_users, list(users), artifact.item_ids),
        now=np.full(len(users), int(start.timestamp()), dtype=np.int64),
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        targets=items.get_indexer(pd.Index(chosen[schema.PRODUCT])).astype(np.int32),
    )
    everybody = histories_from_frame(known, list(known[schema.USER].unique()), artifact.item_ids)
    popularity = RecentPopularity().fit(everybody, len(items))
    first = held_out.indptr[:-1]
    model_ranks = rank_targets(artifact.model, held_out).ranks
    popularity_ranks = rank_targets(popularity, held_out).ranks
    return Hits(
        np.minimum.reduceat(model_ranks, first) <= top_k,
        np.minimum.reduceat(popularity_ranks, first) <= top_k,
    )


def _trained_until(registry: Registry, entry: Entry) -> datetime | None:
    """Time of the last interaction that the model was trained on; None without any."""
    times = read_array(registry.folder(entry) / "histories", "times", np.int64, 1)
    return datetime.fromtimestamp(int(times.max()), UTC) if len(times) else None


def _drop_p_value(now: NDArray[np.bool_], before: NDArray[np.bool_]) -> float:
    table = [
        [int(now.sum()), int((~now).sum())],
        [int(before.sum()), int((~before).sum())],
    ]
    return float(stats.fisher_exact(table, alternative="less").pvalue)


def _worse_p_value(hits: Hits) -> float:
    """Among users where only one of the two hits: is it the model too rarely?"""
    only_model = int((hits.model & ~hits.popularity).sum())
    only_popularity = int((~hits.model & hits.popularity).sum())
    if only_model + only_popularity == 0:
        return 1.0
    test = stats.binomtest(only_model, only_model + only_popularity, 0.5, alternative="less")
    return float(test.pvalue)
