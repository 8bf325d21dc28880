"""What the monitor page says, from the files of a state root."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from recsys.alerting import AlertManager
from recsys.data.simulated import note_traffic
from recsys.deployment.history import append_history
from recsys.experiments.definitions import Definition
from recsys.experiments.state import Experiments
from recsys.ids import IdRules
from recsys.orchestration.monitor.customers import ask
from recsys.orchestration.monitor.overview import (
    gather,
    list_pages,
    requests_section,
    run_tracker,
)
from recsys.orchestration.monitor.rendering import Renderer, ago, duration, percent
from recsys.privacy import REQUESTS_KEY, Register, ask_to_forget
from recsys.schedule import load_schedule, load_zone
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from tests.ports import find_free_port
from tests.serving.shops import add_model

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def no_service(monkeypatch):
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{find_free_port()}")


@pytest.fixture
def show(settings):
    """Renders the page for the state root as it is."""

    tracker = run_tracker(settings)

    def render(paused=frozenset()):
        overview = gather(settings, NOW, tracker, lambda: set(paused))
        return overview, Renderer(settings).overview("/recsys", overview, NOW)

    return render


def write_health(settings, **changes):
    report = {
        "generated_at": NOW.isoformat(),
        "status": "healthy",
        "checks": {"service": {"healthy": True, "latency_ms": 3.2}},
        "metrics": {"window_minutes": 60, "requests": 0},
    }
    path = settings.reports / "health" / "latest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report | changes))
    return path


def record(settings, job, status, *, error=None, minutes_ago=5, metadata=None):
    start = NOW - timedelta(minutes=minutes_ago)
    run_id = f"{job}__manual__{minutes_ago}"
    PipelineTracker(settings.pipeline_db).record_run(
        RunRecord(
            run_id,
            job,
            RunStatus(status),
            start,
            None if status == "running" else start + timedelta(seconds=90),
            error,
            metadata or {},
        )
    )
    return run_id


def test_the_page_says_that_traffic_was_simulated(show, settings):
    assert "simulated traffic" not in show()[1]
    note_traffic(settings, NOW, NOW, lists=1_200, events=40)
    _, page = show()
    assert "Có lưu lượng mô phỏng <small>simulated traffic</small>" in page
    assert f"1,200 lists and 40 events of {NOW:%Y-%m-%d}" in page


def test_an_empty_state_root_is_a_page_of_sentences(show, settings):
    overview, page = show()
    for sentence in (
        "Chưa có báo cáo sức khỏe",
        "chưa chạy",
        "Chưa chọn mô hình nào",
        "Dịch vụ không trả lời",
        "Chưa triển khai lần nào",
        "Chưa có báo cáo nào",
        "Chưa có cảnh báo nào",
    ):
        assert sentence in page
    assert [row.name for row in overview.jobs.content] == list(load_schedule(settings).jobs)
    assert "Không đọc được" not in page


def test_the_outcomes_of_four_weeks_are_shown_with_their_page(show, settings):
    folder = settings.reports / "outcomes"
    folder.mkdir(parents=True)
    rate = {"value": 0.0512, "low": 0.05, "high": 0.0525}
    report = {
        "days": [{"day": f"2026-03-0{n}", "click_rate": {"value": n / 100}} for n in (1, 2)],
        "totals": {"lists": 1234567},
        "rates": {"click_rate": rate, "purchase_rate": dict.fromkeys(rate)}
        | {"value_per_1000_lists": rate | {"value": 98765.4}},
    }
    (folder / "outcomes_20260301.html").write_text("older")
    (folder / "outcomes_20260302.html").write_text("x")
    (folder / "outcomes_20260302.json").write_text(json.dumps(report))
    _, page = show()
    for shown in ("1,234,567", "5.12 %", "5.00–5.25", "98,765", 'points="0,20 240,0"'):
        assert shown in page
    assert "/recsys/reports/outcomes/outcomes_20260302.html" in page
    (folder / "outcomes_20260302.json").write_text('{"days": 3}')
    overview, page = show()
    assert "outcomes_20260302.json: is no report of outcomes" in overview.outcomes.problem
    assert "Không đọc được" in page


def test_damaged_files_are_named_and_leave_the_other_sections_alone(show, settings):
    path = write_health(settings)
    path.write_text("{")
    settings.deployment_history.parent.mkdir(parents=True, exist_ok=True)
    settings.deployment_history.write_text("[]")
    settings.registry.parent.mkdir(parents=True, exist_ok=True)
    settings.registry.write_text("nonsense")
    settings.pipeline_db.write_bytes(b"not a database" * 100)  # is made again
    overview, page = show()
    for section in (overview.health, overview.deployments, overview.models):
        assert section.problem
    assert [row.name for row in overview.jobs.content] == list(load_schedule(settings).jobs)
    assert str(path) in page
    assert overview.alerts.content == []


@pytest.mark.parametrize(
    "changes", [{"checks": None}, {"checks": {"data": None}}, {"generated_at": 3}, {"metrics": [1]}]
)
def test_a_health_report_of_another_shape_is_said_to_be_unreadable(show, settings, changes):
    write_health(settings, **changes)
    overview, page = show()
    assert "is not a health report" in overview.health.problem
    assert "Không đọc được báo cáo sức khỏe" in page


def test_a_bad_schedule_names_its_key_on_the_page(show, settings):
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "scheduler_config.json").write_text('{"timezone": "Mars"}')
    overview, page = show()
    assert "timezone" in overview.jobs.problem
    assert "timezone" in page


def test_a_bad_entry_of_one_job_is_said_in_its_row(show, settings):
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "scheduler_config.json").write_text(
        '{"jobs": {"data_refresh": {"cron": "never"}}}'
    )
    overview, page = show()
    problems = {row.name: row.problem for row in overview.jobs.content if row.problem}
    assert list(problems) == ["data_refresh"]
    assert "jobs.data_refresh.cron" in page


def test_a_report_that_is_too_old_does_not_look_healthy(show, settings):
    path = write_health(settings, generated_at=(NOW - timedelta(hours=5)).isoformat())
    old = (NOW - timedelta(hours=5)).timestamp()
    os.utime(path, (old, old))
    overview, page = show()
    assert overview.health.content.overdue
    assert 'class="banner bad"' in page
    assert "Báo cáo sức khỏe quá hạn" in page
    assert "5 giờ trước" in page


def test_unhealthy_checks_say_why(show, settings):
    write_health(
        settings,
        status="critical",
        checks={
            "service": {"healthy": False, "severity": "critical", "error": "GET /health failed"},
            "data": {"healthy": True, "age_days": 0.4, "interactions": 12345},
        },
        overdue_jobs={"data_refresh": {"due": NOW.isoformat()}},
        alerts=[{"alert_name": "high_latency"}],
    )
    _, page = show()
    assert 'class="banner bad"' in page
    assert "GET /health failed" in page
    assert "12,345" in page
    assert "data_refresh" in page.split("Im lặng")[1][:120]
    assert "high_latency" in page


def test_a_failed_job_is_told_at_the_top_even_if_the_report_is_healthy(show, settings):
    write_health(settings)
    record(settings, "model_training", "success")
    assert 'class="banner good"' in show()[1]
    record(settings, "data_refresh", "failed", error="plan: no file")
    page = show()[1]
    assert 'class="banner warn"' in page
    assert "data_refresh" in page.split("Lần chạy cuối thất bại")[1][:60]


def test_each_job_shows_its_last_run_its_rate_and_when_it_runs_next(show, settings):
    for minutes in (300, 200, 100):
        record(settings, "data_refresh", "success", minutes_ago=minutes)
    record(
        settings,
        "data_refresh",
        "failed",
        error="publish: disk full",
        metadata={"airflow_run_id": "manual__2026-01-01T00:00:00+00:00"},
    )
    overview, page = show(paused={"drift_detection"})
    rows = {row.name: row for row in overview.jobs.content}
    assert rows["data_refresh"].stats["success_rate"] == 0.75
    assert rows["drift_detection"].next_run is None
    zone = load_zone(settings)
    next_run = rows["data_refresh"].next_run
    assert next_run > NOW
    assert next_run.astimezone(zone).strftime("%H:%M") == "02:00"
    assert "publish: disk full" in page
    assert "75 %" in page
    assert "Tạm dừng" in page
    # Slashes, colons and pluses of a run id do not change where the link leads.
    assert "/recsys/runs/data_refresh/manual__2026-01-01T00%3A00%3A00%2B00%3A00" in page


def test_a_run_that_airflow_does_not_know_has_no_link(show, settings):
    PipelineTracker(settings.pipeline_db).start_run("data_refresh")
    _, page = show()
    assert "Đang chạy" in page
    assert "/recsys/runs/" not in page


def test_deployments_and_alerts_are_shown_newest_first(show, settings):
    for number in range(7):
        append_history(
            settings,
            {
                "timestamp": NOW.isoformat(),
                "model_id": f"als_{number}",
                "status": "rolled_back" if number == 6 else "success",
            },
        )
    manager = AlertManager(settings)
    manager.send_alert("first_alert", "one", "info")
    about = {"job": "data_refresh", "run_id": "manual__1+00"}
    manager.send_alert("second_alert", "two", "critical", ["log"], context=about)
    overview, page = show()
    assert [one["model_id"] for one in overview.deployments.content] == [
        f"als_{number}" for number in (6, 5, 4, 3, 2)
    ]
    assert "Đã quay lui" in page
    assert page.index("second_alert") < page.index("first_alert")
    assert "Nghiêm trọng" in page
    assert "/recsys/runs/data_refresh/manual__1%2B00" in page


def test_nothing_that_others_write_becomes_markup(show, settings):
    evil = "<script>alert(1)</script>"
    write_health(
        settings,
        status="warning",
        checks={"service": {"healthy": False, "severity": "warning", "error": evil}},
    )
    record(settings, "data_refresh", "failed", error=evil, metadata={"airflow_run_id": f"a/{evil}"})
    append_history(settings, {"model_id": evil, "status": evil, "error": evil})
    AlertManager(settings).send_alert("evil", evil, "warning", ["log"])
    _, page = show()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert "runs/data_refresh/a%2F%3Cscript%3E" in page


def test_the_page_of_a_run_shows_what_its_tasks_returned(settings):
    folder = settings.reports / "drift"
    folder.mkdir(parents=True)
    (folder / "drift_report_20230109.html").write_text("x")
    run_id = record(
        settings,
        "drift_detection",
        "success",
        metadata={"summary": {"detect": {"severity": "low"}}, "conf": {"reference_days": 56}},
    )
    run = PipelineTracker(settings.pipeline_db).get_run(run_id)
    page = Renderer(settings).run("/recsys", run, list_pages(settings, "drift"), "/dags/x/runs/y")
    assert "/recsys/reports/drift/drift_report_20230109.html" in page
    assert "reference_days" in page
    assert "&#34;severity&#34;: &#34;low&#34;" in page
    assert 'href="/dags/x/runs/y"' in page
    assert "/dags/x" not in Renderer(settings).run("/recsys", run, [], None)


def test_times_and_shares_read_as_people_write_them():
    assert [duration(seconds) for seconds in (None, 0.42, 75, 900, 12_600)] == [
        "–",
        "0.4 s",
        "75 s",
        "15 min",
        "3.5 h",
    ]
    assert percent(0.833) == "83 %"
    assert percent(None) == "–"
    assert ago(NOW - timedelta(hours=30), NOW) == "1 ngày trước"
    assert ago((NOW + timedelta(minutes=2)).isoformat(), NOW) == "sau 2 phút"
    assert ago("not a time", NOW) == "–"


def test_an_experiment_stands_there_from_its_start(settings, show):
    """Its first report is written by the next hour's job."""
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    variants = [{"name": "today", "share": 0.5}, {"name": "new", "share": 0.5, "model_id": "als_2"}]
    content = {"name": "blend", "question": "Is it better?", "primary_metric": "clicks_per_list"}
    began = Definition.model_validate(content | {"variants": variants})
    Experiments(settings).start(began, by="lan")
    assert "<b>blend</b>" in show()[1]
    Experiments(settings).stop("blend", by="lan", because="enough")
    assert "<b>blend</b>" not in show()[1]


def test_what_a_text_says_stands_below_stands_there(settings, show):
    about = {"error": "rules.yaml: rules.0.action of 'x': expected one of 'hide'"}
    manager = AlertManager(settings)
    manager.send_alert("rules_refused", "refused", "warning", ["log"], context=about)
    page = show()[1]
    assert "ở dưới" in page
    assert "rules.0.action of" in page


def test_customers_requests_are_counted_and_listed(settings, show):
    assert "none yet" in show()[1]
    ask_to_forget(settings, ["KH01", "KH02", "KH03"], "<b>lan</b>", IdRules())
    Register(settings).finish([1], {"left": ["data/raw/notes.bin"]})
    path = settings.home / REQUESTS_KEY
    content = json.loads(path.read_text())
    content["requests"][1]["due_at"] = "2025-01-05T02:00:00Z"
    path.write_text(json.dumps(content))
    found = requests_section(settings, NOW)
    assert (found.content.open, found.content.late) == (2, 1)
    assert [row["state"] for row in found.content.rows] == ["open", "late", "done"]
    _, page = show()
    assert "2 đang chờ" in page
    assert "1 quá hạn" in page
    page = Renderer(settings).customers("/recsys", found)
    assert "<b>lan" not in page
    assert "1 left for a person to look at" in page
    path.write_text("nonsense")  # the last good copy of the register is known
    assert "2 đang chờ" in show()[1]
    assert "is no register" in show()[1]
    path.with_name("requests.last_good.json").write_text("nonsense")
    assert "Không đọc được" in show()[1]
    assert "is no register" in Renderer(settings).customers(
        "/recsys", requests_section(settings, NOW)
    )


def test_a_login_with_marks_of_a_provider_may_ask_to_forget(settings):
    assert ask(settings, "77\nKH01", "saml|lan" + "x" * 100) == ([1, 2], None)
    assert {one.asked_by for one in Register(settings).requests()} == {"saml lan" + "x" * 56}
