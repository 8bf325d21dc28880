"""Have customers turned to other products, or to another *kind* of product?

Two samples of one unchanged shop never agree on their best sellers: of 1,000 products with
Zipf-like demand, two samples of 2,000 sales share little more than half of their top 50. What
counts is how much less they agree than samples of *these* sizes would whose sales get their period
by lot."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from recsys.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from recsys.drift.checks import INSUFFICIENT, TESTED, Check, Span
from recsys.drift.config import DriftConfig
from recsys.drift.statistics import numbers_of, robust_scale
from recsys.errors import InputError

MIN_INTERACTIONS = 300
MIN_SHORTFALL = 0.1
REPORT_SHORTFALL = 0.12
"""How far the Jaccard similarity lies below that of an unchanged shop in the weekly report."""
HIGH_SHORTFALL = 0.35
ALPHA = 0.001
DRAWS = 999

_CELLS = 4_000_000  # random numbers held at a time
_MAX_CELLS = 20_000_000  # in all: a catalogue of 100,000 products gets fewer draws
_RBO_PERSISTENCE = 0.98
_FEW_DRAWS = 49  # where only a mean is wanted
_TEST_KEYS = (
    *("expected_jaccard", "interval_99", "shortfall", "p_value"),
    *("rank_biased_overlap", "expected_rank_biased_overlap", "gini"),
)
_LISTED = 100
_UNIT = "shortfall of the Jaccard similarity"
_MIN_DISTANCE = 0.02  # of the mean vectors, squared, over the vectors' variance
_EMBEDDING_DRAWS = 499


def detect_popularity_drift(
    old_popularity: pd.Series, new_popularity: pd.Series, top_k: int = 100
) -> dict[str, Any]:
    """Compare the best sellers of two periods.

    A shift needs both: the Jaccard similarity of the two top-K sets is at least 10 % below what
    an unchanged shop would show at these sample sizes, and chance explains that in fewer than
    1 in 1,000 cases. Below 300 interactions in either period the answer is ``insufficient_data``.

    The arguments are whole numbers of interactions by product id, a missing product counts 0, and
    the size of the sets, at least 1; equally popular products are taken in the order of their ids.

    Returns ``shift_detected``, ``jaccard_similarity`` (None when a period is empty),
    ``new_trending`` and ``dropped_out`` (product ids, best first), ``severity``, ``status``,
    ``expected_jaccard``, ``interval_99`` of the Jaccard similarity without change, ``shortfall``
    (1 - Jaccard / expected), ``p_value``, ``rank_biased_overlap`` and its expectation, ``gini`` of
    both at equal sample size, ``sample_sizes``, ``top_k``. Raises `InputError` if an argument is no
    series, ids repeat, or a count is negative, infinite or a fraction: without counts the sample
    size is unknown, and with it what chance explains.

    >>> old = pd.Series({"A": 400, "B": 300, "C": 10, "D": 10})
    >>> new = pd.Series({"A": 10, "B": 10, "C": 400, "D": 300})
    >>> result = detect_popularity_drift(old, new, top_k=2)
    >>> result["shift_detected"], result["jaccard_similarity"], result["new_trending"]
    (True, 0.0, ['C', 'D'])
    """
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise InputError(f"top_k: expected a whole number of at least 1, got {top_k!r}")
    old = _counts_of(old_popularity, "old_popularity")
    new = _counts_of(new_popularity, "new_popularity")
    products = old.index.union(new.index, sort=False)
    products = products[np.argsort(products.astype(str), kind="stable")]
    counts = [one.reindex(products, fill_value=0).to_numpy(np.int64) for one in (old, new)]
    result = compare_popularity(*counts, top_k=int(top_k), rng=np.random.default_rng(0))
    return _named(result, list(products))


def _relabel(
    old: Int64Array, new: Int64Array, wanted: int, rng: np.random.Generator
) -> list[tuple[Int64Array, Int64Array]]:
    """`wanted` random divisions of all interactions into two periods, down to 199 for a large
    catalogue: ``(rows, products)`` counts of both, in portions of rows."""
    pooled = old + new
    share = new.sum() / pooled.sum()
    draws = min(wanted, max(199, _MAX_CELLS // len(pooled)))
    portion = max(1, _CELLS // len(pooled))
    sizes = [min(portion, draws - start) for start in range(0, draws, portion)]
    drawn = [rng.binomial(pooled, share, size=(rows, len(pooled))) for rows in sizes]
    return [(pooled - one, one) for one in drawn]


def compare_popularity(
    old: Int64Array,
    new: Int64Array,
    *,
    top_k: int,
    rng: np.random.Generator,
    min_shortfall: float = MIN_SHORTFALL,
    own_bound: float | None = None,
) -> dict[str, Any]:
    """`detect_popularity_drift` on ``(products,)`` counts; ids are positions.

    `own_bound`, when given, is the shortfall that the shop's unchanged weeks reach by
    themselves: a shift has to exceed it as well."""
    sold = (old + new) > 0
    places = np.flatnonzero(sold)
    a, b = old[sold], new[sold]
    sizes = {"old": int(a.sum()), "new": int(b.sum())}
    enough = min(sizes.values()) >= MIN_INTERACTIONS
    first, second = top_members(a[None, :], top_k)[0], top_members(b[None, :], top_k)[0]
    result: dict[str, Any] = {
        "shift_detected": False,
        "severity": "low",
        "jaccard_similarity": float(jaccard(first, second)) if min(sizes.values()) else None,
        "new_trending": _best(places, b, second & ~first),
        "dropped_out": _best(places, a, first & ~second),
        "status": TESTED if enough else INSUFFICIENT,
        "top_k": top_k,
        "sample_sizes": sizes,
        "min_interactions": MIN_INTERACTIONS,
        "own_variation_bound": own_bound,
        "test": "Jaccard similarity against random re-assignment of all interactions",
    }
    if not enough:
        return result | dict.fromkeys(_TEST_KEYS)
    draws = _relabel(a, b, DRAWS, rng)
    some = zip(*(rows[:_FEW_DRAWS] for rows in draws[0]), strict=True)
    null = np.concatenate([_agreement(*drawn, top_k) for drawn in draws])
    observed = result["jaccard_similarity"]
    expected = float(null.mean())
    shortfall = 1 - observed / expected if expected else 0.0
    p_value = float((1 + np.sum(null <= observed)) / (1 + len(null)))
    bound = max(min_shortfall, own_bound or 0.0)
    shifted = shortfall >= bound and p_value <= max(ALPHA, 1 / (1 + len(null)))
    severity = "high" if shortfall >= HIGH_SHORTFALL else "medium"
    return result | {
        "shift_detected": shifted,
        "severity": severity if shifted else "low",
        "expected_jaccard": expected,
        "interval_99": [float(edge) for edge in np.quantile(null, [0.005, 0.995])],
        "shortfall": shortfall,
        "p_value": p_value,
        "rank_biased_overlap": rank_biased_overlap(a, b, top_k),
        "expected_rank_biased_overlap": float(
            np.mean([rank_biased_overlap(then, now, top_k) for then, now in some])
        ),
        "gini": _equal_size_gini(a, b, rng),
    }


def check_popularity(span: Span, config: DriftConfig) -> Check:
    """Best sellers of the window against the reference, copies and campaigns left out."""
    top_k = config.popularity.top_k
    rng = np.random.default_rng([7, span.week.number])
    first, stop = span.reference_bounds
    old, new = span.reference.product_counts(), span.window.product_counts()
    own_bound = None
    if len(span.window) >= MIN_INTERACTIONS:
        place = (span.reference.weeks - first) * len(old) + span.reference.products
        weekly = np.bincount(place, minlength=(stop - first) * len(old)).reshape(-1, len(old))
        past = _weekly_shortfalls(weekly, top_k, rng)
        if len(past) >= 4:  # a spread needs a few weeks
            own_bound = float(np.median(past) + 3.5 * robust_scale(past))
    result = compare_popularity(
        old, new, top_k=top_k, rng=rng, min_shortfall=REPORT_SHORTFALL, own_bound=own_bound
    )
    result["new_products"] = _best(np.arange(len(new)), new, (new > 0) & (old == 0))
    result = _named(result, list(map(str, span.reference.product_ids))) | {"unit": _UNIT}
    if result["status"] == INSUFFICIENT:
        return Check("popularity", details=result)
    shortfall = result["shortfall"]
    return Check(
        "popularity",
        p_value=result["p_value"],
        effect=shortfall,
        large=shortfall >= max(REPORT_SHORTFALL, own_bound or 0.0),
        direction=1,
        severity="high" if shortfall >= HIGH_SHORTFALL else "medium",
        advice=f"The best sellers changed: {len(result['new_trending'])} products entered the top "
        f"{top_k}. Retrain, and renew lists that were made by hand.",
        details=result,
    )


def check_embedding(span: Span, vectors: Float32Array | None) -> Check:
    """Mean vector of what the window bought against the reference.

    `vectors` is ``(products, d)`` in the order of the events' products, NaN rows for products
    without one; None when there are no embeddings. The distance is squared, divided by the
    variance of the vectors, and reduced by what two samples of these sizes differ by chance."""
    details: dict[str, Any] = {
        "unit": "squared distance of the means over the variance, beyond chance",
        "test": "random re-assignment of all interactions",
    }
    if vectors is None:
        details["reason"] = "there are no embeddings that can be read: run bert_embeddings"
        return Check("embedding", details=details)
    old, new = span.reference.product_counts(), span.window.product_counts()
    usable = ((old + new) > 0) & ~np.isnan(vectors).any(axis=1)
    old, new, vectors = old[usable], new[usable], vectors[usable]
    details["sample_sizes"] = {"historical": int(old.sum()), "new": int(new.sum())}
    if min(old.sum(), new.sum()) < MIN_INTERACTIONS:
        return Check("embedding", details=details)
    pooled = (old + new) / (old + new).sum()
    variance = float(pooled @ (vectors**2).sum(axis=1) - ((pooled @ vectors) ** 2).sum())
    if variance <= 0:
        return Check("embedding", details=details)
    observed = float(_distances(old[None], new[None], vectors)[0])
    rng = np.random.default_rng([11, span.week.number])
    draws = _relabel(old, new, _EMBEDDING_DRAWS, rng)
    null = np.concatenate([_distances(*drawn, vectors) for drawn in draws])
    expected = float(null.mean())
    effect = (observed - expected) / variance
    details |= {"distance": observed / variance, "expected_by_chance": expected / variance}
    return Check(
        "embedding",
        p_value=float((1 + np.sum(null >= observed)) / (1 + len(null))),
        effect=effect,
        large=effect >= _MIN_DISTANCE,
        direction=1,
        severity="medium",
        advice="Customers buy another kind of product than before: retrain, and look at the "
        "categories that gained.",
        details=details,
    )


def _weekly_shortfalls(weekly: Int64Array, top_k: int, rng: np.random.Generator) -> Float64Array:
    """Shortfall of each row of ``(weeks, products)`` counts against all other rows together."""
    total = weekly.sum(axis=0)
    found = []
    for week in weekly:
        old = total - week
        if min(week.sum(), old.sum()) >= MIN_INTERACTIONS:
            seen = _agreement(old[None], week[None], top_k)[0]
            null = [_agreement(*drawn, top_k) for drawn in _relabel(old, week, _FEW_DRAWS, rng)]
            found.append(1 - seen / np.concatenate(null).mean())
    return np.asarray(found, dtype=np.float64)


def top_members(counts: Int64Array, top_k: int) -> BoolArray:
    """Which entries of each row of ``(rows, products)`` are among its `top_k` largest. Ties go to
    the earlier product; products with no interaction never belong."""
    products = counts.shape[1]
    positive = counts > 0
    if products <= top_k:
        return positive
    early = 1 - np.arange(1, products + 1) / (products + 1)
    ranked = counts + early
    edge = np.partition(ranked, products - top_k, axis=1)[:, products - top_k, None]
    return np.asarray((ranked >= edge) & positive)


def jaccard(first: BoolArray, second: BoolArray) -> Float64Array:
    """Shared members over all members, along the last axis; 0 when there are none."""
    shared, either = (first & second).sum(axis=-1), (first | second).sum(axis=-1)
    return np.asarray(shared / np.maximum(either, 1), dtype=np.float64)


def _agreement(old: Int64Array, new: Int64Array, top_k: int) -> Float64Array:
    """Jaccard similarity of the best sellers in each row of two ``(rows, products)`` counts."""
    return jaccard(top_members(old, top_k), top_members(new, top_k))


def rank_biased_overlap(old: Int64Array, new: Int64Array, top_k: int) -> float:
    """Rank-biased overlap (p = 0.98) of the two rankings down to `top_k`, scaled to [0, 1]."""
    depth = min(top_k, len(old))
    ranks = stats.rankdata([-old, -new], method="ordinal", axis=1).astype(np.int64) - 1
    deeper = ranks.max(axis=0)
    shared = np.cumsum(np.bincount(deeper[deeper < depth], minlength=depth))
    weights = _RBO_PERSISTENCE ** np.arange(depth)
    return float((weights * shared / np.arange(1, depth + 1)).sum() / weights.sum())


def gini(counts: NDArray[np.number]) -> float:
    """Gini coefficient of `counts` over the products that they name: 0 equal, 1 one takes all."""
    ordered = np.sort(counts)
    total = ordered.sum()
    if total == 0:
        return 0.0
    places = np.arange(1, len(ordered) + 1)
    return float((2 * places - len(ordered) - 1) @ ordered / (len(ordered) * total))


def _equal_size_gini(
    old: Int64Array, new: Int64Array, rng: np.random.Generator
) -> dict[str, float]:
    """Gini of both periods after thinning the larger one: the coefficient falls with size."""
    size = int(min(old.sum(), new.sum()))
    found: dict[str, float] = {"at_interactions": size}
    for name, counts in (("old", old), ("new", new)):
        thinned = [counts]
        if counts.sum() > size:
            thinned = list(rng.binomial(counts, size / counts.sum(), (20, len(counts))))
        found[name] = float(np.mean([gini(row) for row in thinned]))
    return found


def _named(result: dict[str, Any], ids: list[Any]) -> dict[str, Any]:
    """`result` with the ids of products in place of their positions."""
    lists = ("new_trending", "dropped_out", "new_products")
    return result | {key: [ids[place] for place in result[key]] for key in lists if key in result}


def _best(places: Int64Array, counts: Int64Array, members: BoolArray) -> list[int]:
    chosen = np.flatnonzero(members)
    order = np.argsort(-counts[chosen], kind="stable")[:_LISTED]
    return [int(place) for place in places[chosen[order]]]


def _counts_of(series: pd.Series, name: str) -> pd.Series:
    if not isinstance(series, pd.Series):
        raise InputError(f"{name}: expected a Series of counts, got {type(series).__name__}")
    if series.index.has_duplicates:
        double = series.index[series.index.duplicated()][0]
        raise InputError(f"{name}: product {double!r} appears more than once")
    values = numbers_of(series, f"{name}: a count").fillna(0.0)
    wrong = ~np.isfinite(values.to_numpy()) | (values < 0) | (values != np.floor(values))
    if wrong.any():
        product = series.index[int(np.argmax(wrong))]
        raise InputError(
            f"{name}: product {product!r} has {values[product]:g}; expected a whole number of "
            "interactions, not a score: the test depends on how many there were"
        )
    return values.astype(np.int64)


def _distances(old: Int64Array, new: Int64Array, vectors: Float32Array) -> Float64Array:
    """Squared distance of the mean vectors of each row of two ``(rows, products)`` counts."""
    first, second = (
        np.asarray(rows.astype(np.float32) @ vectors, dtype=np.float64)
        / np.maximum(rows.sum(axis=1, keepdims=True), 1)
        for rows in (old, new)
    )
    return np.asarray(((second - first) ** 2).sum(axis=1), dtype=np.float64)
