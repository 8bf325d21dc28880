"""What exploring costs and brings: drawn products against the others at the same positions. Pure:
counts in, figures out."""

from typing import Final, NamedTuple

import numpy as np
from scipy import stats

from recsys.arrays import Float64Array
from recsys.outcomes.rates import CONFIDENCE, MIN_UNITS, Rate, rate

CHANCE: Final = 0.05
"""A product has earned its place if so many clicks are no likelier than this to be chance."""


class Counts(NamedTuple):
    """``(positions, blocks)``: how often something was shown, and clicked."""

    shown: Float64Array
    clicks: Float64Array


class Cost(NamedTuple):
    """Clicks for each explored place, and what the other products at the same positions have, both
    with intervals; `lost`: how many clicks there would have been more without exploring."""

    explored: Rate
    others: Rate
    lost: Rate


def cost_of_exploring(explored: Counts, others: Counts) -> Cost:
    """The `others` at a position weigh as much as there are explored places at it. Intervals of
    what is compared are those of the jackknife over blocks of customers."""
    places = float(explored.shown.sum())
    found = rate(explored.clicks.sum(axis=0), explored.shown.sum(axis=0))
    whole = _rates(explored, others, np.zeros((1, explored.shown.shape[1])))
    blocks = np.flatnonzero((explored.shown + others.shown).sum(axis=0))
    if len(blocks) < MIN_UNITS or not others.clicks.any():
        return Cost(found, _alone(whole[1][0], places), _alone(whole[0][0] * places, places))
    left_out = np.eye(explored.shown.shape[1])[blocks]
    lost, expected = _rates(explored, others, left_out)
    return Cost(
        found,
        _told(whole[1][0], expected, 1.0, places),
        _told(whole[0][0], lost, places, places),
    )


def expected_clicks(shown: Float64Array, others: Counts) -> Float64Array:
    """``(products,)`` how many clicks the others would have had in the places of which each product
    had ``(products, positions)`` `shown`."""
    at = others.shown.sum(axis=1)
    return np.asarray(shown @ (others.clicks.sum(axis=1) / np.maximum(at, 1.0)))


def chance_of(clicks: Float64Array, expected: Float64Array) -> Float64Array:
    """``(products,)`` the probability of so many `clicks`, or more, of a product that is as good as
    those whose `expected` it is held against."""
    return np.asarray(stats.poisson.sf(clicks - 1, expected))


def _rates(
    explored: Counts, others: Counts, left_out: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """``(n,)`` clicks lost, and clicks of the others, for each explored place, without the blocks
    that each row of ``(n, blocks)`` `left_out` marks."""
    shown, clicks, at, of_others = (
        part.sum(axis=1) - left_out @ part.T for part in (*explored, *others)
    )
    expected = (shown * of_others / np.maximum(at, 1.0)).sum(axis=1)
    places = np.maximum(shown.sum(axis=1), 1.0)
    return (expected - clicks.sum(axis=1)) / places, expected / places


def _alone(value: float, places: float) -> Rate:
    return Rate(float(value) if places else None, None, None, float(value), places)


def _told(value: float, without: Float64Array, scale: float, places: float) -> Rate:
    blocks = len(without)
    variance = (blocks - 1) / blocks * float(((without - without.mean()) ** 2).sum())
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, blocks - 1)) * variance**0.5
    ends = scale * (float(value) - reach), scale * (float(value) + reach)
    return Rate(scale * float(value), *ends, scale * float(value), places)
