"""Scoring as a step of the refresh: configuration and stored state in, scores out."""

import dataclasses
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.arrays import BoolArray, Float32Array, Int64Array, UInt64Array
from recsys.comments.cache import TextCache
from recsys.comments.features import (
    FEATURES_VERSION,
    MULTIPLIER,
    TextFeatures,
    concatenate,
    describe,
)
from recsys.comments.pretrained import load_pretrained
from recsys.comments.scorers import CACHE_KEY, due_scorer, scorer_retentions
from recsys.comments.scoring import (
    HEURISTICS,
    CommentConfig,
    CommentScores,
    SentimentScorer,
    Similar,
    Texts,
    combine,
    distinct_texts,
    group_texts,
    similar_among,
)
from recsys.comments.training import gather_units
from recsys.data.keys import hash_texts
from recsys.retention import Removal
from recsys.schema import RATING, USER
from recsys.settings import Settings


def score_view(
    settings: Settings,
    config: CommentConfig,
    view: pd.DataFrame,
    *,
    as_of: datetime,
    may_train: bool,
) -> CommentScores:
    """Score every row of `view`; see the package's docstring for the contract.

    Raises
    ------
    InputError
        If `config` names a model that cannot be loaded.
    """
    started = time.monotonic()
    texts, codes = distinct_texts(view)
    hashes = hash_texts(texts)
    features = _cached_features(settings, texts, hashes)
    group = group_texts(codes, features, config, _cached_similar(settings, texts, features.key))
    known = Texts(texts, codes, features, group)
    scorer, decision = _scorer(settings, config, view, known, as_of, may_train)
    if scorer is None:
        scores = combine(view, known, None, HEURISTICS, config)
        scored = 0
    else:
        sentiment, scored = _cached_sentiment(settings, scorer, texts, hashes, features.key)
        scores = combine(view, known, sentiment, scorer.version, config)
        in_use = [scorer.version]
        kept = scorer_retentions(settings, lambda: in_use)
        Removal(settings).execute(kept)
    summary = {
        **scores.summary,
        "scored_now": scored,
        "from_cache": len(texts) - scored if scorer is not None else 0,
        "scorer_decision": decision,
        "seconds": round(time.monotonic() - started, 2),
    }
    return dataclasses.replace(scores, summary=summary)


def _scorer(
    settings: Settings,
    config: CommentConfig,
    view: pd.DataFrame,
    known: Texts,
    as_of: datetime,
    may_train: bool,
) -> tuple[SentimentScorer | None, dict[str, Any]]:
    if config.scorer == "none":
        return None, {"trained": False, "why": "config/comments.yaml says scorer: none"}
    if config.scorer == "pretrained":
        return load_pretrained(config.pretrained), {"trained": False, "why": "pretrained model"}
    rows = pd.DataFrame(
        {"text": known.codes, "user": view[USER].to_numpy(), "rating": view[RATING].to_numpy()}
    )
    group = np.where(known.features.key == 0, -1, known.group)

    def training_data() -> Any:
        return gather_units(known.texts, known.features.key, group, rows)

    choice = due_scorer(settings, as_of, training_data if may_train else None)
    return choice.scorer, choice.decision


def _cached_features(settings: Settings, texts: pd.Series, hashes: UInt64Array) -> TextFeatures:
    cache = TextCache(_cache_folder(settings, FEATURES_VERSION), vars(concatenate([])))
    known, columns = cache.look_up(hashes)
    new = np.flatnonzero(~known)
    fresh = describe(texts.iloc[new])
    cache.add(hashes[new], vars(fresh))
    for name, values in vars(fresh).items():
        columns[name][new] = values
    return TextFeatures(**columns)


def _cached_similar(settings: Settings, texts: pd.Series, keys: UInt64Array) -> Similar:
    """Comparison of pairs of `texts` that remembers, by the pair of keys, what it found."""
    kinds = {"similar": np.zeros(0, np.bool_)}
    cache = TextCache(_cache_folder(settings, f"{FEATURES_VERSION}-pairs"), kinds)
    compare = similar_among(texts)

    def similar(pairs: Int64Array) -> BoolArray:
        hashes = keys[pairs[:, 0]] * MULTIPLIER + keys[pairs[:, 1]]
        known, columns = cache.look_up(hashes)
        new = np.flatnonzero(~known)
        fresh = compare(pairs[new])
        cache.add(hashes[new], {"similar": fresh})
        columns["similar"][new] = fresh
        return columns["similar"]

    return similar


def _cached_sentiment(
    settings: Settings,
    scorer: SentimentScorer,
    texts: pd.Series,
    hashes: UInt64Array,
    keys: UInt64Array,
) -> tuple[Float32Array, int]:
    """Sentiment of each text, and how many of them were scored now."""
    kinds = {"sentiment": np.zeros(0, np.float32)}
    cache = TextCache(_cache_folder(settings, scorer.version), kinds)
    known, columns = cache.look_up(hashes)
    new = np.flatnonzero(~known)
    fresh = scorer.score(texts.iloc[new], keys[new])
    cache.add(hashes[new], {"sentiment": fresh})
    columns["sentiment"][new] = fresh
    return columns["sentiment"], len(new)


def _cache_folder(settings: Settings, name: str) -> Path:
    return settings.home / CACHE_KEY / name
