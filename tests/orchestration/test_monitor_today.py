"""What the monitor page says, from the files of a state root."""

import json
import os
import socket
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from recsys.alerting import AlertManager
from recsys.data.simulated import note_traffic
from recsys.deployment.history import append_history
from recsys.ids import IdRules
from recsys.orchestration.monitor.customers import ask
from recsys.orchestration.monitor.language import Language
from recsys.orchestration.monitor.overview import (
    SERVICE_SECONDS,
    gather,
    requests_section,
    run_tracker,
    summary_of,
)
from recsys.orchestration.monitor.reports import list_pages
from recsys.orchestration.monitor.scheduler import Question, Scheduler
from recsys.orchestration.monitor.story import tell
from recsys.orchestration.monitor.today import newest_review, tasks
from recsys.privacy import Register, ask_to_forget
from recsys.pseudonyms import REQUESTS_KEY
from recsys.registry import Registry
from recsys.schedule import load_schedule, load_zone
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from tests.merchandising.test_rules import RULE
from tests.merchandising.test_rules import write as write_rules
from tests.orchestration.monitor_pages import render
from tests.orchestration.test_monitor_alerts import show_alerts
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

    def shown(paused=frozenset(), language="vi", questions=()):
        scheduler = Scheduler(set(paused), list(questions))
        found = gather(settings, NOW, tracker, lambda: scheduler)
        values = {"overview": found, "tasks": tasks(found), "days": 7}
        newest = newest_review(found.health.content)
        return found, render(settings, "today.html", language, newest=newest, **values)

    return shown


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
    assert "Có lưu lượng mô phỏng" not in show()[1]
    note_traffic(settings, NOW, NOW, lists=1_200, events=40)
    _, page = show()
    assert "Có lưu lượng mô phỏng" in page
    assert f"1.200 danh sách và 40 sự kiện từ {NOW:%d/%m/%Y}" in page


def test_an_empty_state_root_is_a_page_of_sentences(show, settings):
    overview, page = show()
    for sentence in (
        "Chưa có báo cáo sức khỏe",
        "chưa chạy",
        "Chưa chọn mô hình nào",
        "Dịch vụ gợi ý không trả lời",
        "Chưa triển khai lần nào",
    ):
        assert sentence in page
    assert [row.name for row in overview.jobs.content] == list(load_schedule(settings).jobs)
    assert "Không đọc được" not in page
    assert "The service does not answer" in show(language="en")[1]


def test_damaged_files_are_named_and_leave_the_other_sections_alone(show, settings):
    path = write_health(settings)
    path.write_text("{")
    settings.deployment_history.parent.mkdir(parents=True, exist_ok=True)
    settings.deployment_history.write_text("[]")
    settings.registry.parent.mkdir(parents=True, exist_ok=True)
    settings.registry.write_text("nonsense")
    settings.pipeline_db.write_bytes(b"not a database" * 100)  # is made again
    overview, page = show()
    for part in (overview.health, overview.deployments, overview.models):
        assert part.problem
    assert [row.name for row in overview.jobs.content] == list(load_schedule(settings).jobs)
    assert str(path) in page


@pytest.mark.parametrize(
    "changes", [{"checks": None}, {"checks": {"data": None}}, {"generated_at": 3}, {"metrics": [1]}]
)
def test_a_health_report_of_another_shape_is_said_to_be_unreadable(show, settings, changes):
    write_health(settings, **changes)
    overview, page = show()
    assert "is not a health report" in overview.health.problem
    assert "Không đọc được báo cáo sức khỏe" in page


@pytest.mark.parametrize("severity", ["not judged", "low"])
def test_a_week_that_was_not_judged_is_no_quiet_one(show, settings, severity):
    record = PipelineTracker(settings.pipeline_db)
    found = {"overall_severity": severity, "raised": [], "not_judged": ["rating"]}
    about = {"airflow_run_id": "1", "summary": {"detect": found}}
    known = ("drift_detection__1", "drift_detection", RunStatus.SUCCESS, NOW, NOW, None, about)
    record.record_run(RunRecord(*known))
    _, page = show()
    assert ("Tuần vừa qua không đánh giá được" in page) == (severity == "not judged")


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
    assert next(task.kind for task in tasks(overview)) == "health_overdue"
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
    overview, page = show()
    kinds = {task.kind: task for task in tasks(overview)}
    # That it does not answer now says more than that it did not an hour ago.
    assert "service_silent" in kinds
    assert "service_ill" not in kinds
    assert kinds["job_silent"].values == {"job": "data_refresh"}
    assert kinds["rules_broken"].quoted == "high_latency"
    assert "12.345" in page
    assert "Cập nhật dữ liệu lẽ ra đã chạy thành công mà chưa." in page
    assert "high_latency" in page


def test_the_newest_review_is_as_old_as_it_is_now(show, settings):
    """The view may be of this night and hold nothing new."""
    newest = (NOW - timedelta(days=9, hours=3)).isoformat()
    write_health(settings, checks={"data": {"healthy": True, "newest_event": newest}})
    _, page = show()
    tile = page.split("Đánh giá mới nhất")[1][:200]
    assert "9 ngày trước" in tile


def test_a_failed_job_is_told_at_the_top_even_if_the_report_is_healthy(show, settings):
    write_health(settings)
    record(settings, "model_training", "success")
    assert "job_failed" not in [task.kind for task in tasks(show()[0])]
    record(settings, "data_refresh", "failed", error="plan: no file")
    overview, page = show()
    failed = next(task for task in tasks(overview) if task.kind == "job_failed")
    assert failed.values == {"job": "data_refresh"}
    assert failed.quoted == "plan: no file"
    assert "Cập nhật dữ liệu: lần chạy cuối thất bại." in page


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
    assert "75%" in page
    assert "Tạm dừng" in page
    # Slashes, colons and pluses of a run id do not change where the link leads.
    assert "/recsys/runs/data_refresh/manual__2026-01-01T00%3A00%3A00%2B00%3A00" in page


def test_a_run_that_airflow_does_not_know_has_no_link(show, settings):
    PipelineTracker(settings.pipeline_db).start_run("data_refresh")
    _, page = show()
    assert "Đang chạy" in page
    assert "/recsys/runs/" not in page


def test_deployments_are_shown_newest_first(show, settings):
    for number in range(7):
        append_history(
            settings,
            {
                "timestamp": NOW.isoformat(),
                "model_id": f"als_{number}",
                "status": "rolled_back" if number == 6 else "success",
            },
        )
    overview, page = show()
    assert [one["model_id"] for one in overview.deployments.content] == [
        f"als_{number}" for number in (6, 5, 4, 3, 2)
    ]
    assert "Đã quay lui" in page
    assert "als_6 đã bị rút khỏi dịch vụ" in page


def test_a_model_that_was_taken_out_is_released_from_the_page_and_then_no_task(show, settings):
    add_model(settings, "als_1")
    Registry(settings).hold("als_1")
    about = {"model_id": "als_1", "status": "rolled_back", "error": "the verification failed"}
    append_history(settings, {"timestamp": NOW.isoformat(), **about})
    overview, page = show()
    [task] = [one for one in tasks(overview) if one.kind == "deployment_rolled_back"]
    assert task.release == "als_1"
    assert 'action="/recsys/models/als_1/release" method="post"' in page
    assert "Thả mô hình này" in page
    Registry(settings).release("als_1")
    overview, page = show()
    assert "deployment_rolled_back" not in [one.kind for one in tasks(overview)]
    assert "Thả mô hình này" not in page


def test_a_question_of_a_run_stands_there_with_the_way_to_its_form(show):
    asked = NOW - timedelta(hours=3)
    run = "manual__2026-01-05T02:00:00+00:00"
    question = Question("model_deployment", run, "approve", -1, "Deploy als_2?", asked)
    overview, page = show(questions=[question])
    [task] = [one for one in tasks(overview) if one.kind == "question_waits"]
    assert task.quoted == "Deploy als_2?"
    assert "Triển khai mô hình: đang đợi một người trả lời, hỏi từ 3 giờ trước." in page
    form = f"runs/{quote(run, safe='')}/tasks/approve/required_actions?map_index=-1"
    assert f'<a href="/dags/model_deployment/{form}" data-airflow>' in page


def test_an_airflow_that_does_not_answer_leaves_the_rest_of_the_page(settings):
    def fail():
        raise OSError("unable to open database file")

    found = gather(settings, NOW, run_tracker(settings), fail)
    kinds = [one.kind for one in tasks(found)]
    assert "unreadable_scheduler" in kinds
    assert found.jobs.content


def test_a_service_that_hangs_is_waited_for_once(settings, monkeypatch):
    """What serves and what the rules are is asked at the same time."""
    write_rules(settings, RULE)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("RECSYS_ADMIN_TOKEN", "let-me")
        began = time.monotonic()
        found = gather(settings, NOW, run_tracker(settings), lambda: Scheduler(set(), []))
        took = time.monotonic() - began
    assert "failed" in found.models.content.serving_problem
    assert "failed" in found.rules.content.silent
    assert SERVICE_SECONDS <= took < 1.9 * SERVICE_SECONDS


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
    page = show()[1] + show_alerts(settings)
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") >= 4
    assert "runs/data_refresh/a%2F%3Cscript%3E" in page


def test_a_name_that_is_no_text_does_not_take_the_page_away(show, settings):
    name = "ph\u1ea5n\udce9.csv"
    record(
        settings,
        "data_refresh",
        RunStatus.FAILED,
        error=f"{name}: the file is empty",
        metadata={"conf": {"file": name}},
    )
    assert ">ph\u1ea5n?.csv</span>: tệp rỗng" in show()[1]


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
    told = tell(settings, run, summary_of(run), Language("vi", UTC))
    values = {"run": run, "story": told, "airflow_path": "/dags/x/runs/y"}
    page = render(settings, "run.html", pages=list_pages(settings, "drift"), **values)
    assert "/recsys/reports/drift/drift_report_20230109.html" in page
    assert "reference_days" in page
    assert "&#34;severity&#34;: &#34;low&#34;" in page
    assert 'href="/dags/x/runs/y"' in page


def test_what_a_text_says_stands_below_stands_there(settings, show):
    about = {"error": "rules.yaml: rules.0.action of 'x': expected one of 'hide'"}
    manager = AlertManager(settings)
    manager.send_alert("rules_refused", "refused", "warning", ["log"], context=about)
    page = show_alerts(settings)
    assert "ở dưới" in page
    assert "rules.0.action of" in page


def test_customers_requests_are_counted_and_listed(settings, show):
    def customers(language="vi", may_ask=True):
        found = requests_section(settings, NOW)
        values = {"requests": found, "given": "", "opened": [], "refused": None, "longest": 9}
        values["may_ask"] = may_ask
        return found, render(settings, "customers.html", language, **values)

    assert "No requests yet" in customers("en")[1]
    ask_to_forget(settings, ["KH01", "KH02", "KH03"], "<b>lan</b>", IdRules())
    Register(settings).finish([1], {"left": ["data/raw/notes.bin"]})
    path = settings.home / REQUESTS_KEY
    content = json.loads(path.read_text())
    content["requests"][1]["due_at"] = "2025-01-05T02:00:00Z"
    path.write_text(json.dumps(content))
    found, page = customers("en")
    assert (found.content.open, found.content.late) == (2, 1)
    assert [row["state"] for row in found.content.rows] == ["open", "late", "done"]
    assert found.content.counts["forget"] == {"open": 1, "late": 1, "done": 1}
    assert set(found.content.counts["export"].values()) == {0}
    assert "2 requests are open" in page
    assert "1 place left for a person" in page
    assert "<b>lan" not in page
    # Who may not forget anybody sees how many there are, and nobody's pseudonym.
    counts = customers("en", may_ask=False)[1]
    assert "2 requests are open" in counts
    assert "<form" not in counts
    assert not any(row["who"] in counts for row in found.content.rows)
    assert all(row["who"] in page for row in found.content.rows)
    assert "1 yêu cầu của khách đã quá hạn" in show()[1]
    path.write_text("nonsense")  # the last good copy of the register is known
    assert "2 yêu cầu đang chờ" in customers()[1]
    assert "register_damaged" in [task.kind for task in tasks(show()[0])]
    path.with_name("requests.last_good.json").write_text("nonsense")
    assert "unreadable_requests" in [task.kind for task in tasks(show()[0])]
    assert "không phải là sổ yêu cầu của khách hàng" in customers()[1]


def test_a_login_with_marks_of_a_provider_may_ask_to_forget(settings):
    assert ask(settings, "77\nKH01", "saml|lan" + "x" * 100) == ([1, 2], None)
    assert {one.asked_by for one in Register(settings).requests()} == {"saml lan" + "x" * 56}
