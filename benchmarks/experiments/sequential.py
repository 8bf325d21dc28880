"""Claim: an experiment that is looked at every day for four weeks has a false winner in at most 5
of 100 cases, finds an uplift of 10 % in at least 80 of 100 at the planned size, and a split of
48:52 in at least 99.

A simulated shop: new customers every day and old ones, who return at their own pace; each has an
own liking to click and to buy, which stays; orders are as large as those of a heavy tail
(log-normal, sigma 1.2, of which one in a hundred is 16 times the median). Every metric is looked at
every day from the first one on; a look says "winner" if its interval leaves 0 out, and one is
enough. The plan knows nothing but the 28 days before. The reference measured beside it is what a
test that knows of no other looks (1.96 standard errors) makes of the same days.

    python -m benchmarks.experiments.sequential [--experiments 2000] [--seed 1]
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
import pandas as pd

from recsys.experiments.planning import plan
from recsys.experiments.statistics import (
    RATIO_ALPHA,
    Difference,
    Sums,
    difference,
    ratio_evidence,
    running_sums,
)

DAYS = 28
EFFECT = 0.1
SKEWED = 0.48
METRICS: dict[str, tuple[str, str | None]] = {
    "clicks_per_list": ("clicks", "lists"),
    "purchases_per_user": ("purchases", None),
    "value_per_1000_lists": ("value", "lists"),
}


class Shop(NamedTuple):
    """How many customers a day are new, and how many there were before."""

    new_users: int
    old_users: int


SMALL = Shop(200, 4000)
LARGE = Shop(1200, 9000)


class Visits(NamedTuple):
    """A visit a row; `side` is 1 for customers of the other side."""

    user: np.ndarray
    day: np.ndarray
    side: np.ndarray
    columns: dict[str, np.ndarray]


def simulate(
    rng: np.random.Generator, shop: Shop, days: int, *, uplift: float = 0.0, share: float = 0.5
) -> Visits:
    """Visits of `days` days; the other side gets a `share` and clicks and buys more by `uplift`."""
    arrives = np.concatenate(
        [np.zeros(shop.old_users), np.repeat(np.arange(days), rng.poisson(shop.new_users, days))]
    ).astype(np.int64)
    users = len(arrives)
    side = rng.random(users) < share
    # One in three or four old customers comes within four weeks; a new one is there when counted.
    pace = rng.gamma(0.5, 0.12, users).clip(max=0.9)
    expected = pace * (days - arrives)
    again = rng.poisson(expected)
    returning = np.repeat(np.arange(users), again)
    later = arrives[returning] + (rng.random(len(returning)) * (days - arrives[returning]))
    new = np.flatnonzero(np.arange(users) >= shop.old_users)
    user = np.concatenate([new, returning])
    day = np.concatenate([arrives[new], later.astype(np.int64)])
    cell = np.unique(user * days + day)
    user, day = cell // days, cell % days

    better = np.where(side, 1 + uplift, 1.0)
    clicking = (rng.beta(2.0, 28.0, users) * better).clip(max=1)
    buying = rng.gamma(0.7, 0.05 / 0.7, users) * better
    lists = 1 + rng.poisson(2.0, len(user))
    clicks = rng.binomial(lists, clicking[user])
    purchases = rng.poisson(buying[user])
    basket = rng.lognormal(np.log(250_000), 1.2, len(user))
    columns = {"lists": lists, "clicks": clicks, "purchases": purchases}
    return Visits(user, day, side[user], columns | {"value": purchases * basket})


def sides(visits: Visits, metric: str) -> tuple[Sums, Sums]:
    """The running sums of control and other side, by day."""
    numerator, denominator = METRICS[metric]
    found = []
    for side in (False, True):
        chosen = visits.side == side
        x = visits.columns[numerator][chosen].astype(np.float64)
        n = None if denominator is None else visits.columns[denominator][chosen].astype(np.float64)
        found.append(running_sums(visits.user[chosen], visits.day[chosen], x, n))
    return found[0], found[1]


def look(visits: Visits, metric: str, information: float) -> Difference:
    control, other = sides(visits, metric)
    return difference(control, other, information)


def _past(visits: Visits) -> pd.DataFrame:
    start = np.datetime64("2026-01-01")
    return pd.DataFrame({"day": start + visits.day, "unit": visits.user, **visits.columns})


def planned(rng: np.random.Generator, shop: Shop, metric: str) -> tuple[int, float]:
    """Days and V that the plan asks for."""
    past = _past(simulate(rng, shop, DAYS))
    wanted = plan(past, metric, *METRICS[metric], effect=EFFECT, shares=(0.5, 0.5))
    return wanted.days, wanted.information


def false_winners(rng: np.random.Generator, count: int) -> dict[str, tuple[float, float]]:
    """Of `count` experiments without a difference the share that has a winner at some look, and
    the same for a test at 1.96, by metric."""
    aims = {metric: difference_aim(rng, metric) for metric in METRICS}
    wrong = {metric: np.zeros(2) for metric in METRICS}
    for _ in range(count):
        visits = simulate(rng, SMALL, DAYS)
        for metric in METRICS:
            found = look(visits, metric, aims[metric])
            wrong[metric] += (
                np.any((found.low > 0) | (found.high < 0)),
                np.any((np.abs(found.value) > 1.96 * found.error) & np.isfinite(found.low)),
            )
    return {metric: tuple(shares / count) for metric, shares in wrong.items()}


def difference_aim(rng: np.random.Generator, metric: str) -> float:
    """V of the small shop after four weeks: where the interval is narrowest, and errs most."""
    return float(look(simulate(rng, SMALL, DAYS), metric, 1.0).information[-1])


def found_uplifts(
    rng: np.random.Generator, count: int, metric: str, shop: Shop = LARGE
) -> tuple[float, int]:
    """Of `count` experiments with the planned effect the share found, and the planned days. Each is
    planned anew from a past of its own."""
    found, days = 0, []
    for _ in range(count):
        length, information = planned(rng, shop, metric)
        visits = simulate(rng, shop, length, uplift=EFFECT)
        found += bool(np.any(look(visits, metric, information).low > 0))
        days.append(length)
    return found / count, int(np.median(days))


def found_splits(rng: np.random.Generator, count: int, share: float) -> tuple[float, float]:
    """Of `count` experiments, meant 50:50, whose other side gets `share`: the part that is noticed
    at some look within four weeks, and the mean number of units at the end."""
    units = np.stack([_arrivals(rng, LARGE, share) for _ in range(count)])
    evidence = ratio_evidence(units, np.full(units.shape, 0.5))
    noticed = (evidence > -np.log(RATIO_ALPHA)).any(axis=1)
    return float(noticed.mean()), float(units[:, -1].sum(axis=1).mean())


def _arrivals(rng: np.random.Generator, shop: Shop, share: float) -> np.ndarray:
    """Units of both sides seen to date, ``(days, 2)``."""
    visits = simulate(rng, shop, DAYS, share=share)
    control, other = sides(visits, "purchases_per_user")
    return np.stack([control.units, other.units], axis=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng, count, started = np.random.default_rng(asked.seed), asked.experiments, time.monotonic()
    print(f"{count} experiments without a difference, looked at on each of {DAYS} days:")
    for metric, (ours, naive) in false_winners(rng, count).items():
        print(f"  {metric}: false winners {ours:.2%} (a test at 1.96: {naive:.1%})")
    tries = max(20, count // 10)
    print(f"{tries} experiments with an uplift of {EFFECT:.0%}, at the planned size:")
    for metric in ("clicks_per_list", "purchases_per_user"):
        share, days = found_uplifts(rng, tries, metric)
        print(f"  {metric}: found {share:.1%} (planned {days} days)")
    for share in (0.5, SKEWED):
        noticed, units = found_splits(rng, tries, share)
        print(f"split {share:.0%}: noticed {noticed:.2%} of {tries} ({units:,.0f} units)")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
