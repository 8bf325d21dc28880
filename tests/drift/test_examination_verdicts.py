from dataclasses import replace

from recsys.drift.checks import Check
from recsys.drift.examination import judge, overall, recommendations

QUIET = Check("rating", p_value=0.6, effect=0.01, advice="Stars moved.")
DRIFT = replace(QUIET, p_value=1e-6, effect=0.2, large=True, direction=-5, severity="high")


def raised(this: list[Check], before: list[Check]) -> list[str]:
    return [verdict.check.name for verdict in judge(this, before, 0.05) if verdict.raised]


def test_two_weeks_in_a_row_raise_and_one_quiet_week_clears() -> None:
    assert raised([DRIFT], [QUIET]) == []
    assert raised([DRIFT], [DRIFT]) == ["rating"]
    assert raised([QUIET], [DRIFT]) == []


def test_two_weeks_in_opposite_directions_do_not_raise() -> None:
    assert raised([DRIFT], [replace(DRIFT, direction=5)]) == []


def test_what_cannot_wait_raises_at_once() -> None:
    assert raised([replace(DRIFT, immediate=True)], [QUIET]) == ["rating"]


def test_neither_size_nor_surprise_alone_is_evidence() -> None:
    assert raised([replace(DRIFT, large=False)], [DRIFT]) == []
    assert raised([replace(DRIFT, p_value=0.2)], [DRIFT]) == []


def test_a_discovery_among_many_tests_needs_to_be_rarer() -> None:
    weak = replace(DRIFT, p_value=0.03, immediate=True)
    others = [replace(QUIET, name=f"other {number}") for number in range(11)]
    assert raised([weak], []) == ["rating"]
    assert raised([weak, *others], []) == []


def test_the_overall_severity_is_the_highest_raised() -> None:
    burst = replace(DRIFT, name="volume", severity="medium", immediate=True)
    assert overall(judge([burst, DRIFT], [], 0.05)) == "medium"
    assert overall(judge([burst, DRIFT], [DRIFT], 0.05)) == "high"
    assert overall(judge([QUIET], [], 0.05)) == "low"
    assert overall([]) == "low"


def test_recommendations_say_what_is_raised_watched_and_unknown() -> None:
    unknown = Check("model")
    watched = recommendations(judge([DRIFT, unknown], [], 0.05))
    assert watched == [
        "Seen for the first time, watch it: Stars moved.",
        "Not enough data to judge: model.",
    ]
    assert recommendations(judge([QUIET], [], 0.05)) == [
        "Nothing that was judged has changed: no action is needed."
    ]
