import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys.alerting import AlertManager
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunStatus
from tests.documented import spans, table
from tests.exporter.shop import all_jobs_seen, figures_of, lived_in_shop, record_run
from tests.ports import find_free_port

NOW = datetime(2026, 3, 10, 6, 0, tzinfo=UTC)  # 13:00 in Ho Chi Minh City
SOUND = "recsys_exporter_sound"


def test_of_an_empty_state_root_nothing_is_claimed(settings: Settings):
    settings.home.mkdir()
    figures = figures_of(settings)
    parts = {key[1]: value for key, value in figures.items() if key[0] == SOUND}
    assert set(parts.values()) == {1}
    assert "recsys_data_newest_timestamp_seconds" not in {key[0] for key in figures}
    assert "recsys_pipeline_due_timestamp_seconds" not in {key[0] for key in figures}
    assert figures["recsys_pipeline_success_timestamp_seconds", "model_training"] == 0


def test_a_job_that_failed_or_is_owed_can_be_told_from_one_that_is_well(settings: Settings):
    all_jobs_seen(settings, NOW - timedelta(days=30))
    due = datetime(2026, 3, 9, 19, 0, tzinfo=UTC)  # 02:00 there
    record_run(settings, "data_refresh", RunStatus.SUCCESS, due, minutes=3)
    record_run(settings, "model_deployment", RunStatus.SUCCESS, due - timedelta(days=1))
    record_run(settings, "model_training", RunStatus.FAILED, NOW - timedelta(hours=1))
    record_run(settings, "outcomes", RunStatus.RUNNING, NOW - timedelta(minutes=14))
    figures = figures_of(settings, NOW)

    def of(name: str, job: str) -> float:
        return figures[f"recsys_pipeline_{name}", job]

    assert of("success_timestamp_seconds", "data_refresh") == due.timestamp()
    assert of("due_timestamp_seconds", "data_refresh") == due.timestamp()
    assert of("duration_seconds", "data_refresh") == 180
    assert of("due_timestamp_seconds", "model_deployment") > of(
        "success_timestamp_seconds", "model_deployment"
    )
    assert of("failure_timestamp_seconds", "model_training") > of(
        "success_timestamp_seconds", "model_training"
    )
    assert of("running_seconds", "outcomes") == 840 > of("deadline_seconds", "outcomes")
    assert of("running_seconds", "data_refresh") == 0
    assert ("recsys_pipeline_due_timestamp_seconds", "health_check") in figures


def test_pipelines_that_are_no_jobs_are_one_series(settings: Settings):
    tracker = PipelineTracker(settings.pipeline_db)
    for number in range(40):
        tracker.complete_run(tracker.start_run(f"script_{number}"))
    figures = figures_of(settings)
    assert figures["recsys_pipeline_runs", "others", "success"] == 40
    assert not any("script_" in part for key in figures for part in key)


def test_alerts_beyond_the_most_are_one_series(settings: Settings):
    manager = AlertManager(settings)
    for number in range(60):
        manager.send_alert(f"stock_{number}", "low", channels=["log"])
    told = [key for key in figures_of(settings) if key[0] == "recsys_alert_told_timestamp_seconds"]
    assert len(told) == 51
    assert ("recsys_alert_told_timestamp_seconds", "others", "warning") in told


def test_a_channel_that_fails_is_seen_until_it_delivers(
    settings: Settings, configure, mails, monkeypatch: pytest.MonkeyPatch
):
    configure(port=find_free_port())  # nobody listens
    AlertManager(settings).send_alert("stock_low", "3 left", channels=["log", "email"])
    figures = figures_of(settings)
    assert figures["recsys_alert_channel_failing", "email"] == 1
    assert figures["recsys_alert_channel_failing", "log"] == 0
    configure()
    manager = AlertManager(settings)
    assert manager.retry_undelivered() == 1
    manager.resolve("stock_low", "restocked")
    figures = figures_of(settings)
    assert figures["recsys_alert_channel_failing", "email"] == 0
    names = {key[1] for key in figures if key[0] == "recsys_alert_told_timestamp_seconds"}
    assert names == {"stock_low"}


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return lived_in_shop(tmp_path_factory.mktemp("lived_in"))


def test_a_week_that_could_not_be_judged_takes_back_nothing(settings: Settings) -> None:
    folder = settings.reports / "drift"
    folder.mkdir(parents=True)
    for day, found in (("20260301", "low"), ("20260308", "high"), ("20260315", "not judged")):
        report = {"overall_severity": found, "generated_at": "2026-03-16T02:00:00+07:00"}
        (folder / f"drift_report_{day}.json").write_text(json.dumps(report))
    assert figures_of(settings)["recsys_drift_severity",] == 2


def test_freshness_quality_outcomes_and_health_are_seen(lived_in: Settings):
    figures = figures_of(lived_in)
    now = datetime.now(UTC).timestamp()
    assert {value for key, value in figures.items() if key[0] == SOUND} == {1}
    assert 0 < now - figures["recsys_data_newest_timestamp_seconds",] < 2 * 86_400
    assert figures["recsys_data_max_age_seconds",] == 7 * 86_400
    assert figures["recsys_data_rows", "interactions"] > 300
    assert 0 < figures["recsys_data_comment_quality",] < 1
    assert figures["recsys_model_quality", "recall_at_10"] == 0.12
    assert figures["recsys_model_quality", "baseline_recall_at_10"] == 0.05
    assert figures["recsys_drift_severity",] == 1
    assert figures["recsys_health", "service"] == 2
    assert figures["recsys_health", "data"] == 0
    assert figures["recsys_outcomes", "clicks"] == 80
    assert figures["recsys_tracking_silence_ratio",] == 0.2
    assert figures["recsys_rate_fall_ratio", "click"] == 0.03
    assert ("recsys_rate_fall_ratio", "purchase") not in figures
    assert figures["recsys_disk_size_bytes",] > figures["recsys_disk_free_bytes",] > 0


def test_every_figure_stands_in_the_docs_and_no_other(lived_in: Settings):
    from recsys.exporter.airflow import COUNTERS, GAUGES

    known = {key[0] for key in figures_of(lived_in)}
    known |= {f"recsys_airflow_{name}_total" for name, _ in COUNTERS.values()}
    known |= {f"recsys_airflow_{name}" for name, _ in GAUGES.values()}
    known |= {"recsys_airflow_heartbeat_timestamp_seconds", "recsys_airflow_scheduler_loop_seconds"}
    named = {name for row in table("docs/watching.md", "figure") for name in spans(row[0])}
    assert named == known


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("drift", "reports/drift/drift_report_29991231.json"),
        ("outcomes", "reports/outcomes/outcomes_29991231.json"),
        ("health", "reports/health/latest.json"),
    ],
)
def test_a_damaged_part_says_so_and_leaves_the_others(
    settings: Settings, part: str, file: str, tmp_path: Path
):
    path = settings.home / file
    path.parent.mkdir(parents=True)
    path.write_text('{"generated_at": "2026', encoding="utf-8")
    figures = figures_of(settings)
    parts = {key[1]: value for key, value in figures.items() if key[0] == SOUND}
    assert {name for name, sound in parts.items() if not sound} == {part}
    path.write_text('{"generated_at": 5}', encoding="utf-8")
    assert figures_of(settings)[SOUND, part] == 0
