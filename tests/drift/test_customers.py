import json

import numpy as np
import pytest

from recsys.drift import detect_interaction_drift
from recsys.errors import InputError

USUAL = {"interactions": 4000, "users": 3500, "new_users": 2800, "days": 28}


def test_the_documented_keys_are_there() -> None:
    result = detect_interaction_drift(USUAL, USUAL)
    keys = {"drift_detected", "volume_change_pct", "user_activity_change_pct", "new_users_pct"}
    assert keys <= set(result)


def test_equal_data_are_no_drift() -> None:
    result = detect_interaction_drift(USUAL, USUAL)
    assert result["drift_detected"] is False
    assert result["volume_change_pct"] == 0
    assert result["user_activity_change_pct"] == 0
    assert result["new_users_pct"] == pytest.approx(80)


def test_volume_is_compared_by_the_day() -> None:
    new = {"interactions": 1000, "users": 875, "days": 7}
    assert detect_interaction_drift(USUAL, new)["volume_change_pct"] == 0


def test_a_third_less_is_medium_and_half_of_it_high() -> None:
    less = detect_interaction_drift(USUAL, {"interactions": 670, "users": 586, "days": 7})
    half = detect_interaction_drift(USUAL, {"interactions": 400, "users": 350, "days": 7})
    assert (less["drift_detected"], less["severity"]) == (True, "medium")
    assert (half["drift_detected"], half["severity"]) == (True, "high")
    low, high = less["volume_interval_95_pct"]
    assert low < -33 < high < -20


def test_more_activity_of_the_same_users_is_drift() -> None:
    busy = {"interactions": 8000, "users": 3500, "days": 56}
    result = detect_interaction_drift(USUAL, busy)
    assert result["volume_change_pct"] == 0
    assert result["user_activity_change_pct"] == pytest.approx(100)
    assert result["drift_detected"] is True


def test_nothing_after_busy_weeks_is_a_collapse_and_not_a_lack_of_data() -> None:
    result = detect_interaction_drift(USUAL, {"interactions": 0, "users": 0, "days": 7})
    assert (result["drift_detected"], result["severity"]) == (True, "high")
    assert result["volume_change_pct"] == -100
    assert result["new_users_pct"] is None
    json.dumps(result, allow_nan=False)


def test_a_tiny_shop_has_not_enough_data() -> None:
    result = detect_interaction_drift(
        {"interactions": 12, "users": 10}, {"interactions": 3, "users": 3}
    )
    assert result["status"] == "insufficient_data"
    assert result["drift_detected"] is False


def test_one_user_and_an_empty_past_are_defined() -> None:
    result = detect_interaction_drift(
        {"interactions": 0, "users": 0}, {"interactions": 60, "users": 1, "new_users": 1}
    )
    assert result["status"] == "insufficient_data"
    assert result["volume_change_pct"] is None
    assert result["new_users_pct"] == 100


@pytest.mark.parametrize(
    ("stats", "message"),
    [
        ({}, "interactions, users missing"),
        ({"interactions": 5}, "users missing"),
        ({"interactions": float("nan"), "users": 1}, "interactions is nan"),
        ({"interactions": -5, "users": 1}, "interactions is -5"),
        ({"interactions": "many", "users": 1}, "expected a number"),
        ({"interactions": 5, "users": 9}, "more users than interactions"),
        ({"interactions": 5, "users": 0}, "interactions without users"),
        ({"interactions": 5, "users": 2, "new_users": 3}, "more new users than users"),
        ({"interactions": 5, "users": 2, "days": 0}, "days is 0"),
    ],
)
def test_impossible_statistics_are_an_error(stats: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=f"new_stats.*{message}"):
        detect_interaction_drift(
            {k: v for k, v in USUAL.items() if k != "days"}
            | ({"days": 28} if "days" in stats else {}),
            stats,
        )


def test_a_length_of_only_one_period_is_an_error() -> None:
    with pytest.raises(InputError, match="new_stats: 'days' is missing"):
        detect_interaction_drift(USUAL, {"interactions": 5, "users": 2})


def test_unchanged_shops_are_quiet() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for volume in rng.poisson(1000, 200):
        new = {"interactions": int(volume), "users": int(volume), "days": 7}
        old = {"interactions": 12_000, "users": 12_000, "days": 84}
        alarms += detect_interaction_drift(old, new)["drift_detected"]
    assert alarms == 0
