"""From scores to a list: what may stand in it, in which order, one product of a family."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import BoolArray, Float32Array, Int32Array, Int64Array


@dataclass(frozen=True, slots=True)
class Ranked:
    """Products in order, best first: their column numbers and scores, equally long."""

    items: list[int]
    scores: list[float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for.

    Attributes
    ----------
    allowed
        ``(items,)`` products that may stand in the list.
    exclude_seen
        Nothing that the user had, nor another listing (size, shade) of the same product.
    excluded
        Column numbers that must not stand in it either.
    """

    topk: int
    exclude_seen: bool
    allowed: BoolArray
    excluded: Int32Array


def top_items(
    scores: Float32Array,
    allowed: BoolArray,
    excluded: Int32Array,
    families: Int32Array,
    topk: int,
) -> Ranked:
    """The `topk` best products that are `allowed` and not `excluded`, one of each family.

    Parameters
    ----------
    scores, allowed, families
        ``(items,)``: score, may it be shown, number of its family. `scores` is not changed.
    excluded
        Column numbers that must not appear.

    Looks at a few more candidates than needed, and at four times as many again whenever
    families and exclusions left the list short.
    """
    usable = np.where(allowed, scores, -np.inf)
    usable[excluded] = -np.inf
    take = 2 * topk + 8
    while True:
        candidates = _best(usable, take)
        ranked = _one_of_each_family(candidates, usable, families, topk)
        if len(ranked.items) == topk or take >= len(usable):
            return ranked
        take *= 4


def _best(usable: NDArray[np.floating], take: int) -> Int64Array:
    if take >= len(usable):
        return np.argsort(-usable, kind="stable")
    best = np.argpartition(usable, len(usable) - take)[len(usable) - take :]
    return best[np.argsort(-usable[best], kind="stable")]


def _one_of_each_family(
    candidates: Int64Array,
    usable: NDArray[np.floating],
    families: Int32Array,
    topk: int,
) -> Ranked:
    items: list[int] = []
    values: list[float] = []
    taken: set[int] = set()
    for item, score, family in zip(
        candidates.tolist(), usable[candidates].tolist(), families[candidates].tolist(), strict=True
    ):
        if score == -np.inf:
            break
        if family not in taken:
            taken.add(family)
            items.append(item)
            values.append(score)
            if len(items) == topk:
                break
    return Ranked(items, values)
