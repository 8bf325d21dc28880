"""What a model would have earned, from lists that another one made and exploration changed. Pure:
arrays in, an estimate with its interval out.

**The setting.** Of a list some places were given away by chance, and of each product that was shown
the probability is known with which it stood there (`recsys.merchandising.exploring`). The candidate
makes one list of its own for each of these. How often would its products have been clicked?

**What is assumed.** A click needs that the place is looked at and that the product is liked, and
these are independent: the position-based model, N. Craswell et al., *An Experimental Comparison of
Click Position-Bias Models* (WSDM 2008). So a product tells about itself at whatever place it stood.
How much a place is looked at falls as a power of its number; explored places tell the power, since
the same products are drawn for all of them.

**The estimate** is doubly robust, M. Dudík, J. Langford, L. Li, *Doubly Robust Policy Evaluation
and Learning* (ICML 2011), with weights of exposure, S. Li et al., *Offline Evaluation of Ranking
Policies with Click Models* (KDD 2018). With ``t(k)`` for how much a place is looked at, ``c`` for
the candidate's product and place, and ``r(a)`` for what is expected of a product:

    V = 1 / places * (sum over c of t(c) r(c) + sum over shown a in c of w(a) (click - t(a) r(a)))
    w(a) = t(place of a in the candidate's list) / exposure of a
    exposure of a = t(place) * p(a)            where the model put it: other places hardly add to it
                    p(a) * sum of t over all   where it was drawn: it could have been at any place

``r`` is the product's own rate, of the customers in four other fifths (V. Chernozhukov et al.,
*Double/Debiased Machine Learning*, 2018), drawn to that of all products.

**Support.** What was never shown, and what weighs more than the root of the number of places (E. L.
Ionides, *Truncated Importance Sampling*, 2008), is judged by ``r`` alone. The share of the
candidate's exposure that is not, is its support. What is judged by ``r`` alone may in truth earn
anything from nothing to twice as much: the interval is wider by all of it.

**The interval** is that of the jackknife over `GROUPS` groups of customers, in which everything is
estimated anew (K. M. Wolter, *Introduction to Variance Estimation*, 2nd ed. 2007, chapter 4), with
Student's t. `benchmarks/outcomes/off_policy.py` is its proof."""

from typing import Final, NamedTuple

import numpy as np
from scipy import stats

from recsys.arrays import BoolArray, Float64Array, Int64Array

CONFIDENCE: Final = 0.95
GROUPS: Final = 30
FOLDS: Final = 5

MIN_UNITS: Final = 50
"""So many customers there must be, or some groups have none."""
MIN_EFFECTIVE: Final = 30
"""And so many whose weights are equal must tell as much as those that there are."""
MIN_SUPPORT: Final = 0.5
MIN_EXPLORED_CLICKS: Final = 10
"""On explored places: with fewer it is not known what a place is worth."""

PRIOR_EXPOSURE: Final = 30.0
"""A product that was seen so often has half its rate from itself, and half from all."""
_STEEPEST = 3.0
_HALVINGS = 40


class Lists(NamedTuple):
    """Lists as they were shown, and those of the candidate, with the first ``k`` places of each.

    ``(lists,)``: `unit`, number of the customer. ``(lists, k)``: `shown` and `candidate`, numbers
    of products from 0 on, -1 behind the end of a list; `propensity` of what was shown, in (0, 1];
    whether it was drawn (`explored`); how often it was clicked (`clicks`)."""

    unit: Int64Array
    shown: Int64Array
    candidate: Int64Array
    propensity: Float64Array
    explored: BoolArray
    clicks: Float64Array


class Estimate(NamedTuple):
    """Clicks for each product that the candidate would show, with the interval, and what the lists
    as they were shown had (`served`). `effective`: customers of equal weight that would tell as
    much. `refused`: a sentence that says why there is no estimate; None if there is one."""

    value: float | None
    low: float | None
    high: float | None
    served: float | None
    support: float
    effective: float
    units: int
    lists: int
    refused: str | None = None


class _Fit(NamedTuple):
    value: float
    unsupported: float  # what is judged by the products' own rates alone, in clicks for each place
    support: float
    weights: Float64Array  # ``(lists,)`` exposure of the candidate's that was seen


def estimate(lists: Lists) -> Estimate:
    """The candidate's clicks for each product that it would show, see the module."""
    unit = np.unique(lists.unit, return_inverse=True)[1]
    units, count = int(unit.max(initial=-1)) + 1, len(unit)
    here = lists.shown >= 0
    served = float(lists.clicks[here].sum() / here.sum()) if here.any() else None
    explored = int(lists.clicks[lists.explored & here].sum())
    refused = _too_few(units, explored)
    if refused is not None:
        return Estimate(None, None, None, served, 0.0, 0.0, units, count, refused)
    matched = _Matched(lists, unit)
    every = np.ones(count)
    fit = matched.fit(every)
    of_units = np.bincount(unit, weights=fit.weights)
    squares = float((of_units**2).sum())
    effective = float(of_units.sum() ** 2 / squares) if squares else 0.0
    about = (served, fit.support, effective, units, count)
    if fit.support < MIN_SUPPORT:
        refused = (
            f"only {100 * fit.support:.0f} % of what it would show could have been seen in these "
            f"lists, expected {100 * MIN_SUPPORT:.0f} %: about the rest only an experiment tells"
        )
    elif effective < MIN_EFFECTIVE:
        refused = (
            f"the lists tell as much about it as {effective:.0f} customers would, expected "
            f"{MIN_EFFECTIVE}: explore more, or wait"
        )
    if refused is not None:
        return Estimate(None, None, None, *about, refused)
    group = matched.part % GROUPS
    left_out = (np.where(group == one, 0.0, every) for one in range(GROUPS))
    without = np.array([matched.fit(counted).value for counted in left_out])
    spread = (GROUPS - 1) / GROUPS * float(((without - without.mean()) ** 2).sum())
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, GROUPS - 1)) * spread**0.5 + fit.unsupported
    return Estimate(fit.value, max(0.0, fit.value - reach), fit.value + reach, *about)


def _too_few(units: int, explored_clicks: int) -> str | None:
    if units < MIN_UNITS:
        return f"{units} customers had lists with explored places, expected at least {MIN_UNITS}"
    if explored_clicks < MIN_EXPLORED_CLICKS:
        return (
            f"explored places have {explored_clicks} clicks, expected at least "
            f"{MIN_EXPLORED_CLICKS}: what a place is worth cannot be told"
        )
    return None


class _Matched:
    """The places of `lists` with where the candidate has the same product."""

    def __init__(self, lists: Lists, unit: Int64Array) -> None:
        self.lists = lists
        self.here, self.wanted = lists.shown >= 0, lists.candidate >= 0
        same = lists.shown[:, :, None] == lists.candidate[:, None, :]
        same &= self.here[:, :, None]
        self.found, self.place = same.any(axis=2), same.argmax(axis=2)
        self.heaviest = float(self.here.sum()) ** 0.5
        # By chance: who came first is unlike who came last.
        self.part = np.random.default_rng(0).permutation(int(unit.max()) + 1)[unit]
        fold = self.part % FOLDS
        both = np.concatenate([lists.shown, lists.candidate], axis=1)
        products, code = np.unique(both, return_inverse=True)
        cell = fold[:, None] * len(products) + code.reshape(both.shape)
        self.products = len(products)
        self.shown, self.candidate = np.hsplit(cell, [lists.shown.shape[1]])

    def fit(self, counted: Float64Array) -> _Fit:
        """The estimate from lists that count ``(lists,)`` `counted`, 0 or 1."""
        lists, weigh = self.lists, counted[:, None] * self.here
        looked = self._looked_at(weigh)
        rates = self._rates(weigh, looked)
        all_looked = np.cumsum(looked)[np.maximum(self.here.sum(axis=1) - 1, 0)][:, None]
        anywhere = np.minimum(lists.propensity * all_looked / looked, 1.0)
        chance = np.where(lists.explored, anywhere, lists.propensity)
        told = self.found & (chance * self.heaviest >= 1)
        weight = np.where(told, looked[self.place] / np.where(told, chance, 1.0), 0.0)
        expected = np.where(self.wanted, looked * rates[self.candidate], 0.0)
        known = weight * rates[self.shown]
        corrected = weight / looked * lists.clicks - known
        places = float((counted[:, None] * self.wanted).sum())
        exposure = float((counted[:, None] * self.wanted * looked).sum())
        by_rates, by_weights = (
            float((counted[:, None] * part).sum()) for part in (expected, known)
        )
        value = (by_rates + float((counted[:, None] * corrected).sum())) / places
        support = min(1.0, float((counted[:, None] * weight).sum()) / exposure)
        unsupported = max(0.0, by_rates - by_weights) / places
        return _Fit(value, unsupported, support, (counted[:, None] * weight).sum(axis=1))

    def _looked_at(self, weigh: Float64Array) -> Float64Array:
        """``(k,)`` how much each place is looked at, the first 1: the power by which the explored
        places' clicks are most likely, as counts of Poisson."""
        drawn = weigh * self.lists.explored
        shown, clicks = drawn.sum(axis=0), (drawn * self.lists.clicks).sum(axis=0)
        depth = np.log(np.arange(1, len(shown) + 1))
        wanted = float((clicks * depth).sum() / max(clicks.sum(), 1e-12))
        low, high = 0.0, _STEEPEST
        for _ in range(_HALVINGS):
            power = (low + high) / 2
            seen = shown * np.exp(-power * depth)
            deeper = float((seen * depth).sum() / max(seen.sum(), 1e-12)) > wanted
            low, high = (power, high) if deeper else (low, power)
        return np.asarray(np.exp(-low * depth))

    def _rates(self, weigh: Float64Array, looked: Float64Array) -> Float64Array:
        """Clicks for each look at a product by other customers; flat, by fold and product."""
        cell, most = self.shown.ravel(), FOLDS * self.products
        clicks = np.bincount(cell, (weigh * self.lists.clicks).ravel(), most).reshape(FOLDS, -1)
        looks = np.bincount(cell, (weigh * looked).ravel(), most).reshape(FOLDS, -1)
        mean = clicks.sum() / max(float(looks.sum()), 1e-12)
        others = clicks.sum(axis=0) - clicks + PRIOR_EXPOSURE * mean
        return np.asarray(others / (looks.sum(axis=0) - looks + PRIOR_EXPOSURE)).ravel()
