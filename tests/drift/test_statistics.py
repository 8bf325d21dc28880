import numpy as np
import pytest
from scipy import stats

from recsys.drift.statistics import (
    dispersion_of,
    false_discoveries,
    g_test,
    mean_shift,
    population_stability_index,
)


def test_the_g_test_is_scipys() -> None:
    old, new = np.array([40, 30, 30]), np.array([20, 50, 30])
    expected = stats.chi2_contingency([old, new], lambda_="log-likelihood", correction=False)
    statistic, p_value = g_test(old, new)
    assert statistic == pytest.approx(expected.statistic)
    assert p_value == pytest.approx(expected.pvalue)
    assert g_test(old, new, dispersion=4.0)[1] > p_value


def test_a_star_that_nobody_gave_changes_nothing() -> None:
    with_zero = g_test(np.array([40, 0, 60]), np.array([50, 0, 50]))
    assert with_zero == g_test(np.array([40, 60]), np.array([50, 50]))
    assert g_test(np.array([0, 9]), np.array([0, 7])) == (0.0, 1.0)


def test_the_stability_index_of_equal_shares_is_zero() -> None:
    same, other = np.array([10, 20]), np.array([100, 200])
    assert population_stability_index(same * 1000, other * 1000) == pytest.approx(0, abs=1e-6)


def test_benjamini_hochberg_keeps_what_the_textbook_keeps() -> None:
    p_values = dict(zip("abcdef", [0.001, 0.008, 0.039, 0.041, 0.6, 0.9], strict=True))
    assert false_discoveries(p_values, 0.05) == {"a", "b"}
    assert false_discoveries({}, 0.05) == set()


def test_weeks_that_only_chance_makes_differ_have_no_dispersion() -> None:
    rng = np.random.default_rng(0)
    assert dispersion_of(rng.multinomial(500, [0.1, 0.2, 0.7], 30)) < 1.5
    moody = [rng.multinomial(500, [share, 0.3, 0.7 - share]) for share in rng.uniform(0, 0.4, 30)]
    assert dispersion_of(np.array(moody)) > 10
    assert dispersion_of(np.zeros((3, 5), dtype=int)) == 1


@pytest.mark.parametrize("mood", [0.0, 0.3])
def test_the_test_of_a_mean_keeps_its_level_when_weeks_have_moods(mood: float) -> None:
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(400):
        moods = rng.normal(0, mood, 13)
        weeks = np.repeat(np.arange(12), 100)
        reference = rng.normal(moods[weeks], 1)
        shift = mean_shift(rng.normal(moods[12], 1, 100), reference, weeks)
        assert shift is not None
        rejected += shift.p_value < 0.05
    assert rejected <= 36  # 5 % of 400, and a margin for chance


def test_a_moved_mean_is_found_and_few_weeks_are_not_enough() -> None:
    rng = np.random.default_rng(7)
    weeks = np.repeat(np.arange(12), 100)
    shift = mean_shift(rng.normal(1, 1, 100), rng.normal(0, 1, 1200), weeks)
    assert shift is not None
    assert shift.p_value < 0.001
    assert shift.new > shift.high
    assert mean_shift(np.ones(5), np.ones(3), np.array([1, 2, 3])) is None
    assert mean_shift(np.zeros(0), np.ones(1200), weeks) is None
