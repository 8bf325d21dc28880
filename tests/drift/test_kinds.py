"""The mix of what customers do besides rating."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from recsys.data.staging import append_events
from recsys.drift.checks import span_of
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.drift.examination import Material, check_week, examine
from recsys.drift.job import detect_drift
from recsys.drift.kinds import KINDS, check_kinds, weekly_kinds
from tests.drift.shop import MONDAY, WEEK, ZONE, events, interactions
from tests.drift.test_job import interval, publish, report_of

CONFIG, CALENDAR = DriftConfig(), HolidayCalendar()
USUAL = (0.1, 0.15, 0.3, 0.44, 0.01)
LONG_AGO = MONDAY - timedelta(days=900)
WEEKS = 16


def done(mixes, users: int = 600, seed: int = 0) -> pd.DataFrame:
    """Signals of consecutive weeks up to `MONDAY`; `mixes` are shares of the `KINDS`."""
    rng = np.random.default_rng(seed)
    frames = []
    for number, mix in enumerate(mixes):
        start = pd.Timestamp(MONDAY - timedelta(weeks=len(mixes) - number)).tz_convert("UTC")
        kinds = rng.choice(KINDS, users, p=mix)
        times = start + pd.to_timedelta(rng.integers(0, 7 * 86_400, users), "s")
        names = [f"u{number}-{user}" for user in range(users)]
        frames.append(pd.DataFrame({"user_id": names, "kind": kinds, "timestamp": times}))
    return pd.concat(frames, ignore_index=True)


def checked(signals: pd.DataFrame, complete_from=LONG_AGO):
    shop = events([5] * WEEKS)
    span = span_of(shop, None, WEEK, CONFIG, None)
    return check_kinds(weekly_kinds(signals, ZONE, complete_from), span)


def test_a_shop_without_signals_has_no_such_check():
    shop = events([5] * WEEKS)
    _, checks = check_week(Material(shop), WEEK, CONFIG, CALENDAR)
    assert "kinds" not in {check.name for check in checks}
    assert list(checked(done([USUAL])[:0])) == []


def test_the_same_mix_is_no_drift_and_chance_is_none_either():
    for seed in range(30):
        (check,) = checked(done([USUAL] * WEEKS, seed=seed))
        assert check.status == "tested"
        assert not check.large


def test_purchases_that_are_not_sent_any_more_raise_in_the_second_week():
    silent = (0.0, 0.15, 0.3, 0.45, 0.1)
    shop = events([5] * WEEKS)
    signals = done([*[(0.3, 0.15, 0.2, 0.34, 0.01)] * (WEEKS - 2), silent, silent])
    material = Material(shop, kinds=weekly_kinds(signals, ZONE, LONG_AGO))
    verdict = {one.check.name: one for one in examine(material, WEEK, CONFIG, CALENDAR).verdicts}
    assert verdict["kinds"].raised
    assert verdict["kinds"].severity == "medium"
    assert "The share of purchases among what customers did moved by -30" in (
        verdict["kinds"].check.advice
    )


def test_a_robot_counts_once():
    signals = done([USUAL] * WEEKS)
    robot = pd.DataFrame(
        {
            "user_id": "robot",
            "kind": "view",
            "timestamp": pd.Timestamp(WEEK.start) + pd.to_timedelta(np.arange(50_000), "s"),
        }
    )
    robot["timestamp"] = robot["timestamp"].dt.tz_convert("UTC")
    (check,) = checked(pd.concat([signals, robot], ignore_index=True))
    assert check.details["sample_sizes"]["new"] == 601


@pytest.mark.parametrize(("weeks", "users"), [(4, 600), (WEEKS, 200)])
def test_too_little_is_not_judged(weeks, users):
    (check,) = checked(done([USUAL] * weeks, users=users))
    assert check.status == "insufficient_data"


def test_weeks_whose_views_may_be_gone_are_no_reference():
    gone = (0.4, 0.5, 0.0, 0.0, 0.1)
    signals = done([*[gone] * 8, *[USUAL] * 8])
    (check,) = checked(signals)
    assert check.details["dispersion"] > 10
    (check,) = checked(signals, complete_from=MONDAY - timedelta(weeks=8, days=3))
    assert check.details["dispersion"] < 2
    assert check.details["sample_sizes"]["weeks"] == 6


def test_the_report_of_a_shop_with_signals_says_what_became_of_their_mix(settings):
    kinds = ("view", "view", "click", "purchase")
    append_events(
        settings,
        [
            {
                "event_id": f"{week}-{number}",
                "kind": kinds[number % 4],
                "user_id": f"u{number}",
                "product_id": "P1",
                "timestamp": MONDAY - timedelta(weeks=week, hours=-1 - number % 100),
            }
            for week in range(1, 9)
            for number in range(320)
        ],
    )
    publish(settings, interactions([20] * 10))
    summary = detect_drift(settings, interval())
    report = report_of(settings, summary)
    assert report["kinds_drift"]["status"] == "tested"
    assert report["kinds_drift"]["kinds"]["view"]["new"] == pytest.approx(0.5)
    assert "kinds" not in summary["raised"]
    page = (settings.home / summary["page"]).read_text(encoding="utf-8")
    assert "Khách vẫn mua, bấm và xem theo tỷ lệ như trước." in page
