import numpy as np
import pytest

from recsys.drift.volume import busy_days, expect


def daily(weekly: np.ndarray) -> np.ndarray:
    return np.repeat(weekly[:, None] // 7, 7, axis=1)


def expectation(weekly: list[int], observed: int, **options: float):
    history = np.array(weekly)
    return expect(daily(history), observed, **options)


def test_a_steady_shop_expects_what_it_had() -> None:
    result = expectation([700] * 12, 700)
    assert result.expected == pytest.approx(700, rel=0.01)
    assert result.low < 700 < result.high
    assert result.p_value == pytest.approx(1, abs=0.05)
    assert result.daily.sum() == pytest.approx(result.expected)


def test_growth_goes_on() -> None:
    weekly = [int(500 * 1.03**week) for week in range(20)]
    result = expectation(weekly, 500, ahead=2)
    assert result.expected == pytest.approx(500 * 1.03**21, rel=0.05)


def test_wild_weeks_do_not_move_the_expectation() -> None:
    rng = np.random.default_rng(2)
    weekly = rng.poisson(60, 26)
    wild = weekly.copy()
    wild[[3, 20, 24, 25]] = [400, 0, 1700, 1200]
    calm, shaken = expectation(list(weekly), 60), expectation(list(wild), 60)
    assert shaken.expected == pytest.approx(calm.expected, rel=0.25)
    assert expectation(list(wild), 300).p_value < 0.001


def test_a_drop_of_a_third_at_a_thousand_lies_outside_the_band() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        result = expectation(list(rng.poisson(1000, 26)), 670)
        assert result.low > 670


def test_the_band_holds_unchanged_weeks() -> None:
    rng = np.random.default_rng(3)
    outside = 0
    for _ in range(1000):
        weeks = rng.poisson(300, 27)
        result = expectation(list(weeks[:26]), int(weeks[26]))
        outside += not result.low <= weeks[26] <= result.high
    assert outside <= 15  # 1 % of 1,000, and a margin for chance


def test_a_holiday_widens_the_band_around_the_same_expectation() -> None:
    plain, holiday = expectation([100] * 12, 100), expectation([100] * 12, 100, widen=2.0)
    assert holiday.expected == plain.expected
    assert holiday.high - holiday.low > 1.5 * (plain.high - plain.low)


def test_a_shop_without_reviews_expects_none() -> None:
    result = expectation([0] * 12, 0)
    assert result.expected == 0
    assert np.isfinite(result.daily).all()


def test_one_crowded_day_is_named() -> None:
    result = expectation([70] * 12, 150)
    assert busy_days(np.array([10, 10, 90, 10, 10, 10, 10]), result) == [2]
