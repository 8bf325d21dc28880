"""What somebody is told about the outcomes, and when it is over."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from recsys.outcomes.alerts import (
    MIN_FALL,
    Silence,
    count_quiet,
    silence_of,
    silent_days,
    tell,
)
from recsys.outcomes.attribution import FATE, Fate, attribute
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.daily import write_day
from recsys.outcomes.figures import day_figures
from recsys.outcomes.job import compute_outcomes
from recsys.outcomes.ledger import Ledger, read_ledger
from recsys.outcomes.partitions import take_over
from recsys.outcomes.period import Period
from recsys.schedule import DataInterval
from recsys.served_lists import id_text
from recsys.settings import Settings
from tests.outcomes.shop import NOON, a_list, an_event, events_of, lists_of, record, send

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
FIRST = date(2026, 3, 10)
PAGE = "reports/outcomes/outcomes_20260410.html"
EVENING = datetime(2026, 3, 10, 15, tzinfo=UTC)


def write_days(settings: Settings, rates: list[float], lists: int = 200) -> None:
    """Days with so many lists, of which such a share is clicked on, from `FIRST` on."""
    draw = np.random.default_rng(1)
    config = OutcomesConfig()
    for day, share in enumerate(rates):
        rows = [a_list(n, "ab", f"u{n % 80}", 24.0 * day + n / 999) for n in range(lists)]
        clicked = np.flatnonzero(draw.random(lists) < share)
        events = events_of(
            [
                an_event(
                    n, "a", "click", f"u{n % 80}", 24.0 * day + n / 999,
                    recommendation_id=id_text(rows[n]["recommendation_id"]),
                )
                for n in clicked
            ]
        )  # fmt: skip
        found = attribute([lists_of(rows)], events, config)
        figures = day_figures(lists_of(rows), found[found[FATE] == Fate.ATTRIBUTED], found, config)
        write_day(settings, FIRST + timedelta(days=day), figures)


def at(day: int, hours: float) -> datetime:
    """So many hours after the local midnight that ends the day of that number."""
    end = FIRST + timedelta(days=day + 1)
    return datetime(end.year, end.month, end.day, tzinfo=ZONE) + timedelta(hours=hours)


@pytest.fixture
def log(settings: Settings) -> Path:
    return settings.logs / "service" / "alerts.log"


def test_a_fall_is_told_once_when_the_day_has_settled_and_resolved(
    settings: Settings, log: Path
) -> None:
    write_days(settings, [0.3] * 16 + [0.05, 0.3])
    told = [tell(settings, Ledger(), at(16, h), ZONE, PAGE) for h in (5.9, 6.1, 9)]
    assert [one["alerts"] for one in told] == [[], ["click_rate_fell"], ["click_rate_fell"]]
    assert told[1]["proven_falls"]["click"] > MIN_FALL
    lines = log.read_text(encoding="utf-8").splitlines()
    fell = [line for line in lines if "click_rate_fell triggered" in line]
    assert len(fell) == 1
    assert "the click rate fell from 30." in fell[0]
    assert "day=2026-03-26" in fell[0]
    assert tell(settings, Ledger(), at(17, 7), ZONE, PAGE)["alerts"] == []
    assert "click_rate_fell resolved" in log.read_text(encoding="utf-8")


def test_a_young_shop_has_nothing_to_compare_with(settings: Settings, log: Path) -> None:
    assert tell(settings, Ledger(), at(9, 7), ZONE, PAGE) == {
        "alerts": [],
        "proven_falls": {"click": None, "purchase": None},
        "silence": None,
        "lost_share": None,
    }
    write_days(settings, [0.3] * 5 + [0.0], lists=40)
    found = tell(settings, Ledger(), at(5, 7), ZONE, PAGE)
    assert found["proven_falls"] == {"click": None, "purchase": None}
    assert not log.exists()


def test_customers_who_saw_lists_since_the_last_event_are_counted(settings: Settings) -> None:
    config = settings.home / "config" / "outcomes.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("robots: [probe]\nrobot_lists_per_day: 3\n")
    rows = [a_list(n, "a", f"u{n}", n / 10) for n in range(20)]  # noon to 13:54
    rows += [a_list(30, "a", "probe", 1), a_list(31, "a", "", 1), a_list(32, "a", "u1", 1)]
    rows += [a_list(40 + n, "a", "robot", 1) for n in range(4)]
    rows += [a_list(50, "a", "", 1.05, session_id="s")]
    record(settings, rows)
    take_over(settings)
    ledger = Ledger(last_event=(NOON + timedelta(hours=0.55)).isoformat())
    count_quiet(settings, ledger, NOON + timedelta(hours=2.51), ZONE)
    # u6 to u15 within the time, u1 once more and a session; the last hour may still lead somewhere.
    assert ledger.quiet == 12


def test_tracking_that_fell_silent_is_told_until_an_event_comes(
    settings: Settings, log: Path
) -> None:
    write_days(settings, [0.3] * 3)
    last = at(1, 12).isoformat()
    assert (
        tell(settings, Ledger(None, last_event=last, quiet=10), at(2, 1), ZONE, PAGE)["alerts"]
        == []
    )
    for _ in range(2):
        found = tell(settings, Ledger(last_event=last, quiet=500), at(2, 3), ZONE, PAGE)
        assert found["alerts"] == ["tracking_silent"]
        assert found["silence"] > 1
    assert tell(settings, Ledger(last_event=last, quiet=3), at(2, 5), ZONE, PAGE)["alerts"] == []
    text = log.read_text(encoding="utf-8")
    assert text.count("tracking_silent triggered: no event has come since") == 1
    assert text.count("tracking_silent resolved") == 1


def test_a_shop_that_never_sent_an_event_is_not_silent(settings: Settings) -> None:
    write_days(settings, [0.0] * 2)
    days = [FIRST + timedelta(days=n) for n in range(2)]
    assert silence_of(Period(settings, days), Ledger(quiet=9999)) == Silence(9999, None, None)


def test_nightly_files_are_a_silence_that_is_usual(settings: Settings) -> None:
    write_days(settings, [0.3] * 3)
    period = Period(settings, [FIRST + timedelta(days=n) for n in range(3)])
    last = EVENING.isoformat()
    bound = silence_of(period, Ledger(last_event=last)).bound
    assert bound is not None
    assert bound < 100
    usual = silence_of(period, Ledger(last_event=last, longest_quiet={"2026-03-10": 700}))
    assert usual.bound == 1400


def test_the_job_notes_silences_that_ended(settings: Settings) -> None:
    def run(hours: float) -> Ledger:
        now = NOON + timedelta(hours=hours)
        compute_outcomes(settings, DataInterval(now - timedelta(hours=1), now))
        return read_ledger(settings)

    record(settings, [a_list(n, "a", f"u{n}", n / 10) for n in range(30)])
    send(settings, [an_event("first", "a", hours=0.05)])
    assert run(2).quiet == 10
    assert run(5).quiet == 29
    send(settings, [an_event("next", "a", hours=5.5)])
    ledger = run(6)
    assert (ledger.quiet, ledger.longest_quiet) == (0, {"2026-03-10": 29})
    assert ledger.last_event is not None
    assert pd.Timestamp(ledger.last_event) == pd.Timestamp(NOON + timedelta(hours=5.5))


def test_lists_that_got_lost_are_told_by_their_share(settings: Settings, log: Path) -> None:
    record(settings, [a_list(n, "a", f"u{n}", n / 999) for n in range(1000)], lost=8)
    now = NOON + timedelta(hours=4)
    compute_outcomes(settings, DataInterval(now - timedelta(hours=1), now))
    found = tell(settings, Ledger(), now, ZONE, PAGE)
    assert (found["alerts"], found["lost_share"]) == ([], 8 / 1008)
    record(settings, [a_list(2000, "a", "v", 1.5)], lost=10)
    compute_outcomes(settings, DataInterval(now - timedelta(hours=1), now))
    assert tell(settings, Ledger(), now, ZONE, PAGE)["alerts"] == ["served_lists_lost"]
    assert "18 served lists of the last 7 days are lost, 1.77 %" in log.read_text(encoding="utf-8")


def test_a_day_is_silent_that_had_many_customers_and_no_event() -> None:
    heard = {"attributed": {"click": 3}, "no_list": {}}
    usual = {"users": 2_000, "active_users": 100, "happened": heard}
    nothing = {"active_users": 0, "happened": {"attributed": {"click": 0}}}
    days = {
        FIRST + timedelta(days=n): usual | changes
        for n, changes in enumerate(
            [
                {},
                nothing,
                nothing | {"users": 20},  # that few of them do nothing is no wonder
                nothing | {"happened": {"no_list": {"purchase": 1}}},
                nothing,
            ]
        )
    }
    last = FIRST + timedelta(days=4)
    assert silent_days(days, last) == [FIRST + timedelta(days=1)]
    assert silent_days(days, last + timedelta(days=1)) == [FIRST + timedelta(days=1), last]
    # Where no event ever came nobody knows what is usual.
    assert silent_days({FIRST: usual | nothing}, last) == []
