"""Claim: the truth lies inside the 95 % interval of an off-policy estimate in at least 930 of 1,000
trials, whatever the candidate is like.

A trial is a shop of its own: customers with tastes, of whom some click much and some never, and
who come as often as they like; products that are liked more or less; places that are looked at
less and less, and not by the law that the estimate takes for true. The deployed model knows the
tastes by half, and a tenth of the places is drawn from products that explore, as the service does
it, propensities included. The candidate knows them by half as well, in its own way; the truth is
what customers would click in its lists, on the average over all that can happen.

The references measured beside it: the rate of the products that both lists have at the same place
(naive), and the same weighed by the inverse of the propensity and normalised (SNIPS), each with the
interval of the outcomes page.

    python -m benchmarks.outcomes.off_policy [--trials 1000] [--seed 1] [--only NAME]
"""

import argparse
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recsys.outcomes.off_policy import Estimate, Lists, estimate
from recsys.outcomes.rates import Rate, rate

PLACES = 10
LOOKED_AT = 1 / np.log2(np.arange(PLACES) + 2)


class Case(NamedTuple):
    """What the trials of a row are like. `distance`: how unlike the candidate's scores are to those
    of the deployed model, None for those of a model of its own. `explored_share` of the products
    can be drawn, which are liked `unliked` less; `evenness` of their probabilities."""

    customers: int = 1500
    products: int = 100
    clicks: float = 0.12
    distance: float | None = 0.3
    explore: float = 0.1
    explored_share: float = 1.0
    unliked: float = 0.0
    evenness: float = 1.0
    regulars: bool = False


CASES = {
    "retrained": Case(),
    "another family": Case(distance=None),
    "new products explore": Case(distance=0.5, explored_share=0.3, unliked=0.7),
    "some are drawn seldom": Case(distance=0.5, evenness=0.2),
    "few clicks": Case(clicks=0.03),
    "few customers": Case(customers=150),
    "few customers, many lists": Case(customers=200, regulars=True),
    "hardly explored": Case(explore=0.03),
}


class Shop(NamedTuple):
    """``(customers, products)`` chance of a click where everybody looks, and the lists of both
    models; ``(customers,)`` how often each comes; ``(products,)`` from what is drawn."""

    liked: np.ndarray
    served: np.ndarray
    candidate: np.ndarray
    visits: np.ndarray
    drawn: np.ndarray

    @property
    def truth(self) -> float:
        """Clicks for each product of the candidate's."""
        clicks = (np.take_along_axis(self.liked, self.candidate, 1) * LOOKED_AT).sum(axis=1)
        return float((clicks * self.visits).sum() / (self.visits.sum() * PLACES))


def a_shop(rng: np.random.Generator, case: Case) -> Shop:
    size = case.customers, case.products
    explores = np.zeros(case.products, dtype=bool)
    some = rng.choice(case.products, round(case.explored_share * case.products), replace=False)
    explores[some] = True
    taste = rng.normal(size=(case.customers, 4)) @ rng.normal(size=(4, case.products)) / 2
    taste += rng.normal(0, 0.6, case.products) - case.unliked * explores
    clicking = rng.gamma(2.0, 0.5, (case.customers, 1))
    served = taste + rng.normal(size=size)
    other = taste if case.distance is None else served
    candidate = other + rng.normal(0, case.distance or 1.0, size)
    drawn = 0.95 * rng.dirichlet(np.full(case.products, case.evenness)) + 0.05 / case.products
    drawn = np.where(explores, drawn, 0)
    visits = rng.geometric(0.02 if case.regulars else 0.3, case.customers).clip(max=200)
    return Shop(
        np.minimum(0.95, case.clicks * clicking * np.exp(taste - 1)),
        np.argsort(-served, axis=1)[:, :PLACES],
        np.argsort(-candidate, axis=1)[:, :PLACES],
        visits,
        drawn / drawn.sum(),
    )


def a_log(rng: np.random.Generator, shop: Shop, explore: float) -> Lists:
    """Lists of customers who are drawn from the shop, each place drawn anew with the probability
    `explore` from what is not elsewhere in the list."""
    chosen = rng.integers(len(shop.visits), size=len(shop.visits))
    unit = np.repeat(np.arange(len(chosen)), shop.visits[chosen])
    who = chosen[unit]
    lists = np.arange(len(who))
    shown = shop.served[who]
    inside = np.zeros((len(who), len(shop.drawn)), dtype=bool)
    np.put_along_axis(inside, shown, True, 1)
    propensity, explored = np.empty(shown.shape), np.zeros(shown.shape, dtype=bool)
    upto = np.cumsum(shop.drawn)
    left = 1 - shop.drawn[shown].sum(axis=1)
    for place in range(PLACES):
        own = shown[:, place].copy()
        left += shop.drawn[own]
        inside[lists, own] = False
        new = own.copy()
        todo = np.flatnonzero(rng.random(len(who)) < explore)
        while len(todo):
            tried = np.searchsorted(upto, rng.random(len(todo)) * upto[-1])
            tried = tried.clip(max=len(upto) - 1)
            free = ~inside[todo, tried]
            new[todo[free]] = tried[free]
            todo = todo[~free]
        explored[:, place] = new != own
        chance = explore * shop.drawn[new] / left
        propensity[:, place] = np.where(new == own, 1 - explore, 0) + chance
        shown[:, place] = new
        inside[lists, new] = True
        left -= shop.drawn[new]
    clicks = rng.random(shown.shape) < shop.liked[who[:, None], shown] * LOOKED_AT
    return Lists(unit, shown, shop.candidate[who], propensity, explored, clicks.astype(float))


def same_places(lists: Lists, *, weighed: bool) -> Rate:
    """The references."""
    weight = (lists.shown == lists.candidate) / (lists.propensity if weighed else 1.0)
    sums = ((weight * lists.clicks).sum(axis=1), weight.sum(axis=1))
    return rate(*(np.bincount(lists.unit, part) for part in sums))


class Trials(NamedTuple):
    """Of those that were not refused, by trial: the estimates, the references, and the truth."""

    estimates: list[Estimate]
    naive: list[Rate]
    snips: list[Rate]
    truths: list[float]
    refused: int

    def inside(self, found: Sequence[Estimate | Rate]) -> int:
        """In how many the truth lies inside the interval."""
        return sum(
            one.low is not None and one.high is not None and one.low <= truth <= one.high
            for one, truth in zip(found, self.truths, strict=True)
        )

    def ratio(self, found: Sequence[Estimate | Rate]) -> float:
        """The mean of the estimates over the truth."""
        pairs = zip(found, self.truths, strict=True)
        return float(np.mean([(one.value or 0.0) / truth for one, truth in pairs]))

    def width(self, found: Sequence[Estimate | Rate]) -> float:
        """Half the interval over the truth, in the median."""
        pairs = zip(found, self.truths, strict=True)
        spans = [((one.high or 0.0) - (one.low or 0.0)) / 2 / truth for one, truth in pairs]
        return float(np.median(spans))


def tried(rng: np.random.Generator, case: Case, count: int) -> Trials:
    """`count` trials with an answer; ends when more than nine in ten are refused."""
    trials, refused = Trials([], [], [], [], 0), 0
    while len(trials.truths) < count and refused < 10 + 9 * max(len(trials.truths), count // 20):
        shop = a_shop(rng, case)
        lists = a_log(rng, shop, case.explore)
        found = estimate(lists)
        if found.refused is not None:
            refused += 1
            continue
        trials.estimates.append(found)
        trials.naive.append(same_places(lists, weighed=False))
        trials.snips.append(same_places(lists, weighed=True))
        trials.truths.append(shop.truth)
    return trials._replace(refused=refused)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=list(CASES), help="one row of the table")
    asked = parser.parse_args()
    print(
        "inside: trials whose interval has the truth; off by: mean estimate over the truth, less 1"
    )
    titles = ("trials", "refused", "support", "customers", "inside", "off by", "reach")
    print(f"{'':28s}" + "".join(f"{title:>11s}" for title in titles), "  naive inside, off; SNIPS")
    for name in [asked.only] if asked.only else CASES:
        started = time.monotonic()
        done = tried(np.random.default_rng(asked.seed), CASES[name], asked.trials)
        if not done.truths:
            print(f"{name:28s}{0:11d}{done.refused:11d}")
            continue
        means = [
            np.mean([getattr(e, of) for e in done.estimates]) for of in ("support", "effective")
        ]
        print(
            f"{name:28s}{len(done.truths):11d}{done.refused:11d}{means[0]:11.2f}{means[1]:11.0f}"
            f"{done.inside(done.estimates):11d}{done.ratio(done.estimates) - 1:+11.3f}"
            f"{done.width(done.estimates):11.3f}   {done.inside(done.naive)} "
            f"{done.ratio(done.naive) - 1:+.3f}; {done.inside(done.snips)} "
            f"{done.ratio(done.snips) - 1:+.3f}   ({time.monotonic() - started:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
