import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.drift import detect_rating_drift
from recsys.drift.ratings import compare_stars
from recsys.errors import InputError


def reviews(*counts: int) -> pd.DataFrame:
    """A frame with that many reviews of 1, 2, ... 5 stars."""
    return pd.DataFrame({"rating": np.repeat(np.arange(1.0, 6.0), counts)})


USUAL = reviews(100, 50, 100, 250, 9500)


def test_the_documented_keys_are_there() -> None:
    result = detect_rating_drift(USUAL, USUAL)
    assert {"drift_detected", "severity", "max_difference", "rating_comparison"} <= set(result)
    assert set(result["rating_comparison"]) == {"1", "2", "3", "4", "5"}


def test_equal_data_are_no_drift() -> None:
    result = detect_rating_drift(USUAL, USUAL)
    assert result["drift_detected"] is False
    assert result["severity"] == "low"
    assert result["max_difference"] == 0
    assert result["p_value"] == pytest.approx(1)


def test_a_shift_of_fifteen_points_is_medium_and_of_thirty_high() -> None:
    medium = detect_rating_drift(USUAL, reviews(100, 20, 20, 60, 800))
    high = detect_rating_drift(USUAL, reviews(250, 20, 20, 60, 650))
    assert (medium["drift_detected"], medium["severity"]) == (True, "medium")
    assert (high["drift_detected"], high["severity"]) == (True, "high")
    assert medium["star"] == 5
    assert medium["max_difference"] == pytest.approx(0.15)
    low, top = medium["interval_95"]
    assert low < -0.15 < top < 0


def test_a_harmless_point_in_a_hundred_thousand_rows_is_no_drift() -> None:
    old, new = reviews(1000, 500, 1000, 2500, 95000), reviews(1300, 600, 1200, 2900, 94000)
    result = detect_rating_drift(old, new)
    assert result["p_value"] < 1e-9  # what a test alone would call drift
    assert result["drift_detected"] is False


def test_twelve_reviews_are_not_enough() -> None:
    result = detect_rating_drift(USUAL, reviews(12, 0, 0, 0, 0))
    assert result["status"] == "insufficient_data"
    assert result["drift_detected"] is False
    assert result["sample_sizes"] == {"historical": 10_000, "new": 12}


def test_chance_at_few_rows_is_no_drift_even_above_the_threshold() -> None:
    # 300 rows of a shop with evenly spread stars move by ten points easily.
    result = compare_stars(
        np.array([60, 60, 60, 60, 60]),
        np.array([90, 60, 60, 60, 30]),
        threshold=0.1,
        high=0.2,
        dispersion=4.0,
    )
    assert result["max_difference"] >= 0.1
    assert result["drift_detected"] is False


def test_false_alarms_are_rare_where_psi_and_chi_square_are_not() -> None:
    rng = np.random.default_rng(1)
    shares = [0.01, 0.005, 0.01, 0.025, 0.95]
    weeks = rng.multinomial(300, shares, 2000)
    history = np.array([100, 50, 100, 250, 9500])
    drifted = [compare_stars(history, week, threshold=0.06, high=0.15) for week in weeks]
    assert sum(result["drift_detected"] for result in drifted) == 0


@pytest.mark.parametrize("frames", [(USUAL.head(0), USUAL), (USUAL, USUAL.head(0))])
def test_an_empty_frame_is_said_to_be_empty(frames: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    result = detect_rating_drift(*frames)
    assert result["status"] == "insufficient_data"
    assert result["max_difference"] is None


def test_rows_without_a_rating_are_counted_and_left_out() -> None:
    new = pd.concat([USUAL, pd.DataFrame({"rating": [np.nan, None]})])
    result = detect_rating_drift(USUAL, new)
    assert result["missing_ratings"] == {"historical": 0, "new": 2}
    assert result["sample_sizes"]["new"] == 10_000


def test_a_missing_column_is_named() -> None:
    with pytest.raises(InputError, match=r"new_data: the column 'rating' is missing.*stars"):
        detect_rating_drift(USUAL, pd.DataFrame({"stars": [5]}))


@pytest.mark.parametrize("value", [0, 6, -1, np.inf])
def test_a_rating_outside_the_scale_is_an_error(value: float) -> None:
    with pytest.raises(InputError, match=r"row 1 .*expected stars from 1 to 5"):
        detect_rating_drift(USUAL, pd.DataFrame({"rating": [5, value]}))


def test_words_for_ratings_are_an_error() -> None:
    with pytest.raises(InputError, match="no number"):
        detect_rating_drift(USUAL, pd.DataFrame({"rating": ["great"]}))


def test_a_threshold_outside_its_range_is_an_error() -> None:
    with pytest.raises(InputError, match="threshold"):
        detect_rating_drift(USUAL, USUAL, threshold=0)


@given(
    st.lists(st.integers(0, 400), min_size=5, max_size=5),
    st.lists(st.integers(0, 400), min_size=5, max_size=5),
)
def test_any_counts_give_a_defined_answer(old: list[int], new: list[int]) -> None:
    result = detect_rating_drift(reviews(*old), reviews(*new))
    json.dumps(result, allow_nan=False)
    assert result["drift_detected"] in (True, False)
    if min(sum(old), sum(new)) < 300:
        assert result["status"] == "insufficient_data"
