"""The curves of a year, from what the jobs leave."""

from datetime import UTC, date, datetime, timedelta

import pytest

from benchmarks.monitor.made_year import FAMILIES, SILENT, make_year
from recsys.health.days import read_days
from recsys.orchestration.monitor.charts import Chart, Line
from recsys.orchestration.monitor.history import gather_history
from recsys.orchestration.monitor.language import Language
from recsys.orchestration.monitor.overview import run_tracker
from recsys.outcomes.daily import read_totals
from recsys.publishing import write_json
from recsys.schedule import load_zone
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus

NOW = datetime.now(UTC)
EN = Language("en", UTC)


@pytest.fixture
def month(settings: Settings) -> Settings:
    make_year(settings, NOW, days=40)
    return settings


def charts(settings: Settings, span: int = 28) -> dict[str, Chart]:
    found = gather_history(settings, NOW, span, run_tracker(settings))
    assert all(part.problem is None for part in found)
    parts = (found.service, found.lists, found.data, found.training, found.jobs)
    return {chart.name: chart for part in parts for chart in part.content or []}


def line(chart: Chart, name: str) -> Line:
    return next(one for one in chart.lines if one.name == name)


def test_every_curve_has_a_value_for_each_of_its_days(month: Settings) -> None:
    for span in (28, 365):
        for chart in charts(month, span).values():
            assert len(chart.days) == span
            assert chart.has_values, chart.name
            assert all(len(one.values) == span for one in chart.lines), chart.name
            assert list(chart.days) == sorted(chart.days)


def test_the_curves_are_what_was_noted(month: Settings) -> None:
    found, days = charts(month), read_days(month)
    requests = found["requests"]
    day = requests.days[-2]
    assert line(requests, "requests").values[-2] == days[day]["requests"]
    clicks = line(found["rates"], "clicks_per_list").values[-2]
    totals = read_totals(month, date.fromisoformat(day))
    assert clicks == totals["clicks"] / totals["lists"] > 0.05
    assert {one.name for one in found["recall"].lines} == {"baseline", *FAMILIES}
    assert line(found["recall"], "baseline").values[-2] == 0.07
    age = line(found["newest_review"], "age").values[-2]
    newest = datetime.fromisoformat(days[day]["newest_event"])
    assert 0 <= (age or -1) <= (NOW - newest).total_seconds() / 86_400 + 1


def test_a_day_without_events_is_marked_and_no_day_of_zero_clicks(month: Settings) -> None:
    rates = charts(month)["rates"]
    silent = str((NOW.astimezone(load_zone(month)) - timedelta(days=SILENT)).date())
    assert list(rates.marks) == [silent]
    assert [one.values[list(rates.days).index(silent)] for one in rates.lines] == [None] * 3


def test_durations_are_of_successes_and_failures_are_counted(settings: Settings) -> None:
    tracker = PipelineTracker(settings.pipeline_db)
    day = NOW - timedelta(days=2)
    for n, (status, seconds) in enumerate(
        [(RunStatus.SUCCESS, 10), (RunStatus.SUCCESS, 20), (RunStatus.FAILED, 500)]
    ):
        end = day + timedelta(seconds=seconds)
        tracker.record_run(RunRecord(f"r{n}", "data_refresh", status, day, end, None, {}))
    found = charts(settings)
    assert line(found["durations"], "job_data_refresh").values[-3] == pytest.approx(15, abs=0.1)
    assert line(found["failures"], "job_data_refresh").values[-3] == 1


def test_a_shop_that_has_just_begun_has_empty_curves(settings: Settings) -> None:
    found = charts(settings)
    assert "recall" not in found
    assert not any(chart.has_values for chart in found.values())


def test_drift_is_shown_by_check_and_what_was_not_judged_is_nothing(settings: Settings) -> None:
    report = {
        "overall_severity": "high",
        "rating_drift": {"severity": "high", "status": "tested"},
        "popularity_drift": {"severity": "low", "status": "insufficient_data"},
        "interaction_drift": {
            "severity": "medium",
            "volume": {"severity": "medium", "status": "tested"},
            "activity": {"severity": "low", "status": "tested"},
        },
    }
    path = settings.reports / "drift" / f"drift_report_{NOW:%Y%m%d}.html"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    write_json(path.with_suffix(".json"), report)
    drift = gather_history(settings, NOW, 28, run_tracker(settings)).drift.content
    assert drift is not None
    assert dict(drift.weeks[0].severities) == {
        **{"rating": "high", "popularity": None, "volume": "medium", "activity": "low"}
    }


def test_a_damaged_record_of_days_leaves_the_other_curves(month: Settings) -> None:
    (month.reports / "health" / "days.json").write_text("{")
    found = gather_history(month, NOW, 28, run_tracker(month))
    assert "days.json" in (found.service.problem or "")
    assert found.jobs.content
    assert found.lists.content


def test_a_curve_is_said_in_words_too() -> None:
    chart = Chart("latency", "ms", ["2026-03-01", "2026-03-02"], [Line("x", [4.25, None])])
    assert chart.said(EN) == ["x: 4.2 ms on 1 Mar 2026, lowest 4.2 ms, highest 4.2 ms."]
    assert Chart("x", "share", ["2026-03-01"], [Line("x", [None])]).said(EN) == []
