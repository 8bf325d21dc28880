"""The sentiment scorers a shop has: which one is due, and when to train a new one."""

import logging
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from recsys.comments.features import FEATURES_VERSION
from recsys.comments.linear import NgramScorer, ScorerFolder, labelled, save_scorer
from recsys.comments.training import MAX_TRAINING_TEXTS, Units, choose, train
from recsys.errors import InputError
from recsys.retention import Retention
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.storage.store import bundle_retention

_log = logging.getLogger(__name__)


SCORERS_KEY = "data/comments/scorers"
CACHE_KEY = "data/comments/cache"
_OURS = f"{NgramScorer.kind}-"

MIN_TEXTS_PER_CLASS = 50
"""With fewer distinct happy (4 stars or more) or other texts there is no training."""
MIN_AUC = 0.7
"""A scorer that does worse on texts it has not seen is not used."""
RETRAIN_CHANGED_SHARE = 0.1
"""The full strategy trains a new scorer when more of its data changed; a new one scores every
text again."""
KEPT = 5
"""Newest scorers that stay on disk, with their cached scores: backfilled days need older ones."""


def scorers_folder(settings: Settings) -> Path:
    return settings.home / SCORERS_KEY


def newest_scorer(settings: Settings, as_of: datetime) -> NgramScorer | None:
    """The newest intact scorer that has seen nothing of `as_of` or later: a backfilled day is
    never scored by a model that knows its future."""
    store = open_store(settings)
    dated: list[tuple[datetime, str, ScorerFolder]] = []
    for name in _names(settings):
        try:
            folder = ScorerFolder(store.fetch(f"{SCORERS_KEY}/{name}"))
            dated.append((folder.as_of, name, folder))
        except (InputError, FileNotFoundError) as error:
            _log.warning("comment scorer ignored: %s", error)
    for seen_until, _, folder in sorted(dated, reverse=True):
        if seen_until > as_of:
            continue
        try:
            return folder.load()
        except InputError as error:
            _log.warning("comment scorer ignored: %s", error)
    return None


def due_scorer(
    settings: Settings, as_of: datetime, training_data: Callable[[], Units] | None
) -> tuple[NgramScorer | None, dict[str, Any]]:
    """The scorer for a run (None: heuristics only) and, for the summary, how it came to be. It is
    trained now if `training_data` is given and differs enough; None forbids training."""
    current = newest_scorer(settings, as_of)
    if training_data is None:
        return current, {"trained": False, "why": "only the full strategy trains"}
    units = training_data()
    smaller = int(min(units.positive.sum(), (~units.positive).sum()))
    if smaller < MIN_TEXTS_PER_CLASS:
        why = f"{smaller} distinct texts in the smaller class, {MIN_TEXTS_PER_CLASS} needed"
        return current, {"trained": False, "why": why}
    changed = 1.0 if current is None else changed_share(current, units)
    why = f"{changed:.1%} of the training data changed"
    if current is not None and changed <= RETRAIN_CHANGED_SHARE:
        return current, {"trained": False, "why": why, "metrics": current.metrics}
    fresh = train(units, as_of)
    auc = fresh.metrics["auc"]
    if auc is None or auc < MIN_AUC:
        return current, {"trained": False, "why": f"AUC {auc} on unseen texts, {MIN_AUC} needed"}
    save_scorer(fresh, scorers_folder(settings))
    open_store(settings).publish(f"{SCORERS_KEY}/{fresh.version}")
    why = "first scorer" if current is None else why
    return fresh, {"trained": True, "why": why, "metrics": fresh.metrics}


def changed_share(current: NgramScorer, units: Units) -> float:
    """Texts that are new, gone or of another label, as a share of the larger training set."""
    chosen = units.take(choose(units, MAX_TRAINING_TEXTS))
    now = labelled(chosen.member_keys, chosen.positive[chosen.member_units])
    before = labelled(current.arrays["keys"], current.arrays["positive"])
    return len(np.setxor1d(before, now)) / max(len(before), len(now), 1)


def scorer_retentions(settings: Settings, in_use: Callable[[], Collection[str]]) -> list[Retention]:
    """The newest `KEPT` scorers stay, and those `in_use`; of the caches, theirs and the newest
    features'."""
    store, folder = open_store(settings), scorers_folder(settings)

    def kept(names: list[str]) -> set[str]:
        ours = [name for name in names if name.startswith(_OURS)]
        return {*names} - {*ours} | {*ours[-KEPT:]} | {*in_use()}

    def kept_caches(paths: list[Path]) -> list[Path]:
        scorers = {*_names(settings), *in_use()}
        return [at for at in paths if at.name in scorers or at.name.startswith(FEATURES_VERSION)]

    caches = settings.home / CACHE_KEY
    return [
        bundle_retention("comment scorers", store, folder, SCORERS_KEY, kept),
        Retention("comment caches", caches, lambda: caches.glob("*"), kept_by=kept_caches),
    ]


def _names(settings: Settings) -> list[str]:
    names = open_store(settings).names(SCORERS_KEY)
    return [name for name in names if name.startswith(_OURS)]
