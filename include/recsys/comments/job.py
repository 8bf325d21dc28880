"""Scoring as a step of the refresh: configuration and stored state in, scores out."""

import dataclasses
import time
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from recsys.arrays import BoolArray, Float32Array, Int64Array, UInt64Array
from recsys.comments import scoring
from recsys.comments.cache import Columns, TextCache
from recsys.comments.features import FEATURES_VERSION, TextFeatures, concatenate, describe
from recsys.comments.near_copies import Similar
from recsys.comments.pretrained import load_pretrained
from recsys.comments.scorers import CACHE_KEY, due_scorer
from recsys.comments.scoring import CommentConfig, CommentScores, SentimentScorer, Texts
from recsys.comments.training import Units, gather_units
from recsys.data.keys import MULTIPLIER, hash_texts
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
    """Score every row of `view`; see the package's docstring for the contract. Raises `InputError`
    if `config` names a model that cannot be loaded."""
    started = time.monotonic()
    texts, codes = scoring.distinct_texts(view)
    hashes = hash_texts(texts)
    cache = _cache(settings, FEATURES_VERSION, **vars(concatenate([])))
    columns, _ = cache.complete(hashes, lambda new: vars(describe(texts.iloc[new])))
    features = TextFeatures(**columns)
    group = scoring.group_texts(
        codes, features, config, _cached_similar(settings, texts, features.key)
    )
    known = Texts(texts, codes, features, group)
    scorer, decision = _scorer(settings, config, view, known, as_of, may_train)
    if scorer is None:
        scores, scored, from_cache = (
            scoring.combine(view, known, None, scoring.HEURISTICS, config),
            0,
            0,
        )
    else:
        sentiment, scored = _cached_sentiment(settings, scorer, texts, hashes, features.key)
        scores = scoring.combine(view, known, sentiment, scorer.version, config)
        from_cache = len(texts) - scored
    summary = {
        **scores.summary,
        "scored_now": scored,
        "from_cache": from_cache,
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

    def training_data() -> Units:
        rows = pd.DataFrame(
            {"text": known.codes, "user": view[USER].to_numpy(), "rating": view[RATING].to_numpy()}
        )
        key = known.features.key
        return gather_units(known.texts, key, np.where(key == 0, -1, known.group), rows)

    return due_scorer(settings, as_of, training_data if may_train else None)


def _cached_similar(settings: Settings, texts: pd.Series, keys: UInt64Array) -> Similar:
    """Comparison of pairs of `texts` that remembers, by the pair of keys, what it found."""
    cache = _cache(settings, f"{FEATURES_VERSION}-pairs", similar=np.zeros(0, np.bool_))
    compare = scoring.similar_among(texts)

    def similar(pairs: Int64Array) -> BoolArray:
        hashes = keys[pairs[:, 0]] * MULTIPLIER + keys[pairs[:, 1]]
        columns, _ = cache.complete(hashes, lambda new: {"similar": compare(pairs[new])})
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

    def score(new: Int64Array) -> Columns:
        return {"sentiment": scorer.score(texts.iloc[new], keys[new])}

    cache = _cache(settings, scorer.version, sentiment=np.zeros(0, np.float32))
    columns, scored = cache.complete(hashes, score)
    return columns["sentiment"], scored


def _cache(settings: Settings, name: str, **kinds: Any) -> TextCache:
    return TextCache(settings.home / CACHE_KEY / name, kinds)
