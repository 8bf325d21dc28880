"""Do customers buy another *kind* of product? Products as the vectors of their descriptions."""

from typing import Any

import numpy as np

from recsys.arrays import Float32Array, Float64Array, Int64Array
from recsys.drift.checks import INSUFFICIENT, TESTED, Check, Span
from recsys.drift.config import DriftConfig
from recsys.drift.popularity import possible_draws, relabel

_DRAWS = 499


def check_embedding(span: Span, vectors: Float32Array | None, config: DriftConfig) -> Check:
    """Mean vector of what the window bought against the reference.

    `vectors` is ``(products, d)`` in the order of the events' products, NaN rows for products
    without one; None when there are no embeddings. The distance is squared, divided by the
    variance of the vectors, and reduced by what two samples of these sizes differ by chance.
    """
    rule = config.embedding
    details: dict[str, Any] = {
        "unit": "squared distance of the means over the variance, beyond chance",
        "test": "random re-assignment of all interactions",
    }
    if vectors is None:
        reason = "there are no embeddings that can be read: run bert_embeddings"
        return Check("embedding", INSUFFICIENT, details=details | {"reason": reason})
    old, new = span.reference.product_counts(), span.window.product_counts()
    usable = ((old + new) > 0) & ~np.isnan(vectors).any(axis=1)
    old, new, vectors = old[usable], new[usable], vectors[usable]
    details["sample_sizes"] = {"historical": int(old.sum()), "new": int(new.sum())}
    if min(old.sum(), new.sum()) < rule.min_events:
        return Check("embedding", INSUFFICIENT, details=details)
    pooled = (old + new) / (old + new).sum()
    variance = float(pooled @ (vectors**2).sum(axis=1) - ((pooled @ vectors) ** 2).sum())
    if variance <= 0:
        return Check("embedding", INSUFFICIENT, details=details)
    observed = float(_distances(old[None], new[None], vectors)[0])
    rng = np.random.default_rng([11, span.week.number])
    draws = relabel(old, new, possible_draws(len(old), _DRAWS), rng)
    null = np.concatenate([_distances(drawn.old, drawn.new, vectors) for drawn in draws])
    effect = (observed - float(null.mean())) / variance
    return Check(
        "embedding",
        TESTED,
        p_value=float((1 + np.sum(null >= observed)) / (1 + len(null))),
        effect=effect,
        large=effect >= rule.min_distance,
        direction=1,
        severity=config.severity.embedding,
        advice="Customers buy another kind of product than before: retrain, and look at the "
        "categories that gained.",
        details=details
        | {"distance": observed / variance, "expected_by_chance": float(null.mean()) / variance},
    )


def _distances(old: Int64Array, new: Int64Array, vectors: Float32Array) -> Float64Array:
    difference = _means(new, vectors) - _means(old, vectors)
    return np.asarray((difference**2).sum(axis=1), dtype=np.float64)


def _means(counts: Int64Array, vectors: Float32Array) -> Float64Array:
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(counts.astype(np.float32) @ vectors / totals, dtype=np.float64)
