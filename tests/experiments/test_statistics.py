"""A small form of ``benchmarks/experiments/sequential.py``, and what holds exactly."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.experiments.sequential import (
    EFFECT,
    METRICS,
    SMALL,
    Shop,
    false_winners,
    found_splits,
    look,
    planned,
    simulate,
)
from recsys.errors import InputError
from recsys.experiments.planning import plan
from recsys.experiments.statistics import (
    MIN_ACTIVE_UNITS,
    boundary,
    difference,
    ratio_evidence,
    running_sums,
    sums_of,
)


def test_no_difference_makes_no_winner_in_four_weeks_of_daily_looks():
    for metric, (wrong, naive) in false_winners(np.random.default_rng(5), 60).items():
        assert wrong <= 0.05, metric
        assert naive > 0.05, metric  # what the sequence is there for


def test_an_uplift_is_found_at_the_planned_size():
    rng, found = np.random.default_rng(6), 0
    shop = Shop(800, 6000)
    length, information = planned(rng, shop, "clicks_per_list")
    for _ in range(15):
        visits = simulate(rng, shop, length, uplift=EFFECT)
        found += bool((look(visits, "clicks_per_list", information).low > 0).any())
    assert found >= 12


def test_a_skewed_split_is_noticed_and_a_fair_one_is_not():
    rng = np.random.default_rng(7)
    assert found_splits(rng, 15, 0.48)[0] == 1
    assert found_splits(rng, 15, 0.5)[0] == 0


def test_the_boundary_is_narrowest_at_the_plan():
    around = [float(boundary(part)) / math.sqrt(part) for part in (0.9, 1.0, 1.1)]
    assert around[0] > around[1] > around[2]  # the interval still shrinks with the data
    fixed = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
    assert boundary(1.0) == pytest.approx(3.035, abs=1e-3)
    assert (boundary(fixed) > 1.96).all()
    assert boundary(1.0, 0.01) > boundary(1.0, 0.05)


def test_nothing_is_said_about_few_customers():
    few = sums_of(np.ones(MIN_ACTIVE_UNITS - 1), np.ones(MIN_ACTIVE_UNITS - 1))
    found = difference(few, few, 1.0)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_the_error_is_that_of_units_and_not_of_lists():
    """A hundred lists of one customer tell as much as that customer, not as a hundred."""
    rng = np.random.default_rng(1)
    liking = rng.random(2000)
    few, many = (
        sums_of(rng.binomial(lists, liking), np.full(2000, lists)) for lists in (100, 10_000)
    )
    one, other = difference(few, few, 1.0).error, difference(many, many, 1.0).error
    assert one == pytest.approx(other, rel=0.1)
    spread = math.sqrt(2 * liking.var() / 2000)
    assert other == pytest.approx(spread, rel=0.1)


cells = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 5), st.integers(0, 3), st.integers(1, 4)),
    min_size=1,
    max_size=40,
    unique_by=lambda cell: cell[:2],
)


@settings(max_examples=60, deadline=None)
@given(cells, st.booleans())
def test_running_sums_are_those_of_every_day_computed_anew(rows, per_unit):
    table = pd.DataFrame(rows, columns=["unit", "day", "x", "n"]).astype(float)
    given_n = None if per_unit else table["n"].to_numpy()
    units, days = (table[name].to_numpy().astype(np.int64) for name in ("unit", "day"))
    running = running_sums(units, days, table["x"].to_numpy(), given_n)
    for day in range(int(days.max()) + 1):
        totals = table[table["day"] <= day].groupby("unit")[["x", "n"]].sum()
        n = np.ones(len(totals)) if per_unit else totals["n"].to_numpy()
        direct = sums_of(totals["x"].to_numpy(), n)
        assert [float(one[day]) for one in running] == pytest.approx([float(o) for o in direct])


@given(st.integers(0, 10_000))
def test_a_perfect_split_is_never_evidence(units):
    assert ratio_evidence(np.array([units, units]), np.array([0.5, 0.5])) <= 1e-9


def past(days: int = 28, seed: int = 2) -> pd.DataFrame:
    visits = simulate(np.random.default_rng(seed), SMALL, days)
    start = np.datetime64("2026-01-01")
    return pd.DataFrame({"day": start + visits.day, "unit": visits.user, **visits.columns})


def test_a_plan_tells_the_shop_what_it_knows_of_it():
    found = plan(
        past(), "clicks_per_list", *METRICS["clicks_per_list"], effect=0.1, shares=(0.5, 0.5)
    )
    assert found.base_rate == pytest.approx(2 / 30, rel=0.1)
    assert found.new_units == pytest.approx(SMALL.new_users, rel=0.3)  # old ones come back
    assert found.returning_units > 50
    assert found.days % 7 == 0
    assert found.days > found.past_days  # a small shop has to wait
    assert found.units > 10_000


def test_a_smaller_effect_and_a_smaller_side_need_longer():
    days = [
        plan(past(), "clicks_per_list", "clicks", "lists", effect=effect, shares=shares).days
        for effect, shares in ((0.3, (0.5, 0.5)), (0.15, (0.5, 0.5)), (0.15, (0.9, 0.1)))
    ]
    assert days[0] < days[1] < days[2]


@pytest.mark.parametrize("days", [0, 2])
def test_too_little_of_a_past_is_said(days):
    table = past()
    table = table[table["day"] < np.datetime64("2026-01-01") + days]
    with pytest.raises(InputError, match="clicks_per_list: the last"):
        plan(table, "clicks_per_list", "clicks", "lists", effect=0.1, shares=(0.5, 0.5))
