"""Estimates from explored lists: the truth lies in their intervals, or they are refused."""

import numpy as np
import pytest

from benchmarks.outcomes.off_policy import CASES, Case, a_log, a_shop, tried
from recsys.outcomes.off_policy import Estimate, Lists, estimate


def a_trial(seed: int = 3, case: Case = CASES["few customers"]) -> tuple[Lists, float]:
    rng = np.random.default_rng(seed)
    shop = a_shop(rng, case)
    return a_log(rng, shop, case.explore), shop.truth


@pytest.mark.parametrize("name", ["few customers", "another family"])
def test_the_truth_lies_in_the_interval(name: str) -> None:
    done = tried(np.random.default_rng(7), CASES[name]._replace(customers=200), 60)
    # Of sixty at the promised 95 of 100, fewer than 52 is a chance of one in five hundred.
    assert done.inside(done.estimates) >= 52
    assert done.inside(done.naive) < 10
    assert abs(done.ratio(done.estimates) - 1) < 0.2


def test_who_would_show_the_same_earns_the_same() -> None:
    lists, _ = a_trial()
    # Places that were not explored have no chance in them.
    lists = lists._replace(propensity=np.where(lists.explored, lists.propensity, 1.0))
    own = lists._replace(candidate=np.where(lists.explored, 10_000, lists.shown))
    found = estimate(own)
    assert found.value is not None
    assert found.served is not None
    assert found.support == pytest.approx(0.9, abs=0.02)
    # A tenth of it nobody has seen: that is expected to be like the rest.
    assert found.value == pytest.approx(found.served, rel=0.1)


def test_the_numbers_and_the_order_of_customers_and_products_do_not_matter() -> None:
    lists, _ = a_trial()
    order = np.random.default_rng(1).permutation(len(lists.unit))
    moved = Lists(*(part[order] for part in lists))
    moved = moved._replace(shown=moved.shown + 7, candidate=moved.candidate + 7)
    one, other = estimate(lists), estimate(moved)
    assert one._replace(refused=None)[:7] == pytest.approx(other._replace(refused=None)[:7])


def test_lists_may_be_of_different_lengths() -> None:
    lists, _ = a_trial()
    short = np.arange(len(lists.unit)) % 2 == 0
    cut = np.arange(10)[None, :] >= np.where(short, 6, 10)[:, None]
    found = estimate(
        lists._replace(
            shown=np.where(cut, -1, lists.shown),
            candidate=np.where(cut, -1, lists.candidate),
            clicks=np.where(cut, 0.0, lists.clicks),
        )
    )
    whole = estimate(lists)
    assert found.value is not None
    assert whole.value is not None
    # What is cut off are places that are looked at little.
    assert found.value > whole.value
    assert found.refused is None


def refused(found: Estimate) -> str:
    assert (found.value, found.low, found.high) == (None, None, None)
    return found.refused or ""


def test_what_tells_too_little_is_refused_with_a_sentence() -> None:
    lists, _ = a_trial()
    few = Lists(*(part[lists.unit < 40] for part in lists))
    assert refused(estimate(few)) == (
        "40 customers had lists with explored places, expected at least 50"
    )
    cold = lists._replace(clicks=np.where(lists.explored, 0.0, lists.clicks))
    assert "explored places have 0 clicks, expected at least 10" in refused(estimate(cold))
    unlike = lists._replace(candidate=np.where(lists.candidate < 30, lists.candidate, 10_000))
    found = estimate(unlike)
    share = f"{100 * found.support:.0f} %"
    assert f"only {share} of what it would show could have been seen" in refused(found)
    assert found.served == lists.clicks.mean()
    one_tells = lists.candidate.copy()
    one_tells[lists.unit % 8 > 0] = -1
    assert "the lists tell as much about it as" in refused(
        estimate(lists._replace(candidate=one_tells))
    )


def test_no_lists_are_too_few() -> None:
    whole, real = np.zeros((0, 0), dtype=np.int64), np.zeros((0, 0))
    none = Lists(np.zeros(0, dtype=np.int64), whole, whole, real, real > 0, real)
    assert refused(estimate(none)).startswith("0 customers had lists")
