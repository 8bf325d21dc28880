"""Intervals that keep their promise, and alarms that size can prove."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.arrays import Float64Array
from recsys.outcomes.figures import BLOCKS
from recsys.outcomes.rates import Rate, Sums, proven_fall, rate, silent_after, uplift


def shop(
    draw: np.random.Generator, users: int, click_rate: float = 0.05
) -> tuple[Float64Array, Float64Array]:
    """Clicks and lists of each user, who have habits: some look a lot, some click a lot."""
    lists = 1 + draw.poisson(draw.gamma(0.5, 6, users))
    habit = draw.beta(0.5, 0.5 * (1 - click_rate) / click_rate, users)
    return draw.binomial(lists, habit).astype(float), lists.astype(float)


def by_block(draw: np.random.Generator, *sums: Float64Array) -> Sums:
    block = draw.integers(0, BLOCKS, len(sums[0]))
    return Sums(*(np.bincount(block, weights=one, minlength=BLOCKS) for one in sums))


def holds(found: Rate, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= truth <= found.high


@pytest.mark.parametrize("users", [1000, 4000])
def test_intervals_hold_the_truth_as_often_as_they_say_by_user_and_by_block(users: int) -> None:
    draw, runs = np.random.default_rng(users), 400
    everybody = shop(draw, 1_000_000)
    truth = everybody[0].sum() / everybody[1].sum()
    single, blocks, naive = 0, 0, 0
    for _ in range(runs):
        clicks, lists = shop(draw, users)
        single += holds(rate(clicks, lists), truth)
        blocks += holds(rate(*by_block(draw, clicks, lists)), truth)
        value, total = clicks.sum() / lists.sum(), lists.sum()
        naive += abs(value - truth) <= 1.96 * np.sqrt(value * (1 - value) / total)
    assert 0.92 <= single / runs <= 0.98
    assert 0.92 <= blocks / runs <= 0.98
    # What the interval would be worth that takes every list for a customer of its own.
    assert naive / runs <= 0.91


def test_the_uplift_holds_the_truth_as_often_as_it_says() -> None:
    draw, runs = np.random.default_rng(1), 250
    found = [
        uplift(by_block(draw, *shop(draw, 4000, 0.055)), by_block(draw, *shop(draw, 1000, 0.05)))
        for _ in range(runs)
    ]
    everybody = [shop(draw, 1_000_000, one) for one in (0.055, 0.05)]
    rates = [clicks.sum() / lists.sum() for clicks, lists in everybody]
    inside = sum(holds(one, rates[0] / rates[1] - 1) for one in found)
    assert 0.92 <= inside / runs <= 0.98


def test_what_says_nothing_has_no_interval() -> None:
    assert rate([], []) == Rate(None, None, None, 0, 0)
    assert rate([0, 0], [0, 0]) == Rate(None, None, None, 0, 0)
    assert rate([1], [4]) == Rate(0.25, None, None, 1, 4)
    assert rate([1] * 9, [4] * 9) == Rate(0.25, None, None, 9, 36)
    assert rate([1] * 10, [4] * 10).low == 0.25
    assert rate([0, 0], [3, 4]) == Rate(0, None, None, 0, 7)
    nothing, something = Sums(np.zeros(2), np.ones(2)), Sums(np.ones(2), np.ones(2))
    assert uplift(something, nothing) == Rate(None, None, None, 1, 0)
    few, many = (Sums(np.ones(n), np.full(n, 2.0)) for n in (9, 10))
    assert uplift(many, few) == Rate(0, None, None, 0.5, 0.5)
    assert uplift(many, many) == Rate(0, 0, 0, 0.5, 0.5)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=10, max_size=30))
def test_an_interval_contains_its_rate_and_scales_with_it(pairs: list[tuple[int, int]]) -> None:
    numerators, denominators = map(list, zip(*pairs, strict=True))
    found = rate(numerators, denominators)
    if found.low is None:
        assert not sum(numerators)
        return
    assert found.high is not None
    assert found.value is not None
    assert 0 <= found.low <= found.value <= found.high
    tenfold = rate([10 * one for one in numerators], denominators)
    assert tenfold.value == pytest.approx(10 * found.value)
    assert tenfold.high == pytest.approx(10 * found.high)


def days(
    draw: np.random.Generator, count: int, users: int, spread: float = 0.0, level: float = 0.05
) -> list[Sums]:
    """Days of one shop, whose rates differ by `spread` (a share) from one to the next."""
    return [
        by_block(draw, *shop(draw, users, level * float(np.exp(draw.normal(0, spread)))))
        for _ in range(count)
    ]


def test_a_fall_that_its_size_proves_is_found_and_no_other() -> None:
    draw = np.random.default_rng(5)
    reference = days(draw, 28, 3000)
    proven = proven_fall(days(draw, 1, 3000, level=0.025), reference)
    assert proven is not None
    assert 0.1 < proven < 0.5
    # The same fall among few customers can be chance.
    assert proven_fall(days(draw, 1, 60, level=0.025), reference) == 0
    assert proven_fall(days(draw, 1, 3000), reference) == 0
    assert proven_fall(days(draw, 1, 3000, level=0.08), reference) == 0
    assert proven_fall(reference[:1], reference[:13]) is None
    nothing = [Sums(np.zeros(BLOCKS), np.zeros(BLOCKS))]
    assert proven_fall(nothing, reference) is None
    assert proven_fall(reference[:1], nothing * 28) is None


def test_a_restless_shop_needs_a_larger_fall() -> None:
    draw = np.random.default_rng(6)
    last = days(draw, 1, 3000, level=0.025)
    calm, restless = (proven_fall(last, days(draw, 28, 3000, s)) for s in (0.0, 0.25))
    assert calm is not None
    assert restless is not None
    assert restless < 0.5 * calm


def test_years_without_a_change_raise_no_alarm() -> None:
    """Shops of different restlessness, two years each, judged every day."""
    draw = np.random.default_rng(7)
    alarms = 0
    for spread in (0.0, 0.1, 0.3):
        levels = 0.05 * np.exp(draw.normal(0, spread, 2 * 365))
        lists = draw.poisson(40, (len(levels), BLOCKS)).astype(float)
        clicks = draw.poisson(lists * levels[:, None]).astype(float)
        year = [Sums(*pair) for pair in zip(clicks, lists, strict=True)]
        alarms += sum(
            bool(proven_fall(year[n : n + 1], year[n - 28 : n])) for n in range(28, len(year))
        )
    assert alarms <= 1


def test_silence_is_counted_in_customers() -> None:
    assert silent_after(0.5) == pytest.approx(19.93, abs=0.01)
    assert silent_after(1.0) >= 1
    chance = (1 - 0.01) ** silent_after(0.01)
    assert chance == pytest.approx(1e-6)
