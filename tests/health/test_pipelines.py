import json
from datetime import UTC, datetime, timedelta

import pytest

from recsys.alerting import AlertManager
from recsys.alerting.runs import RunEvent, tell_of_run
from recsys.health.pipelines import check_pipeline_health, report_silence
from recsys.ids import IdRules
from recsys.privacy import Kind, Register, ask_to_forget
from recsys.pseudonyms import REQUESTS_KEY
from recsys.schedule import load_schedule
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from tests.sinks import log_lines

# data_refresh is due at 02:00 in Ho Chi Minh City, with a deadline of 20 minutes and 15 of grace.
INSTALLED = datetime(2025, 1, 15, 3, 0, tzinfo=UTC)
DUE = datetime(2025, 1, 15, 19, 0, tzinfo=UTC)
LATE = DUE + timedelta(minutes=36)
JOBS = {
    "data_refresh": {"cron": "0 2 * * *", "timeout_minutes": 30, "deadline_minutes": 20},
    "health_check": {"cron": "0 * * * *", "timeout_minutes": 5, "deadline_minutes": 3},
}


def schedule(settings, **changes):
    off = {job: {"enabled": False} for job in load_schedule(settings).jobs}
    jobs = off | {
        name: {"enabled": True} | job | changes.get(name, {}) for name, job in JOBS.items()
    }
    path = settings.home / "config" / "scheduler_config.json"
    path.write_text(json.dumps({"timezone": "Asia/Ho_Chi_Minh", "jobs": jobs}))


@pytest.fixture
def check(shop):
    """Looks for silent jobs at a moment; the installation was first checked at INSTALLED."""
    schedule(shop)

    def at(now):
        return report_silence(shop, AlertManager(shop, clock=lambda: now), now)

    assert at(INSTALLED) == {}
    return at


def record(settings, status, started, run_id="scheduled__1", error=None):
    ended = None if status == RunStatus.RUNNING else started + timedelta(minutes=2)
    PipelineTracker(settings.pipeline_db).record_run(
        RunRecord(
            f"data_refresh__{run_id}", "data_refresh", status, started, ended, error,
            {"airflow_run_id": run_id},
        )
    )  # fmt: skip


def test_a_new_installation_owes_nothing(check):
    assert check(INSTALLED + timedelta(hours=12)) == {}


def test_a_run_that_never_came_is_told_once_and_resolved(check, shop, mails, slack):
    assert check(DUE + timedelta(minutes=34)) == {}
    for hours in range(12):
        overdue = check(LATE + timedelta(hours=hours))
    assert overdue["data_refresh"]["last_success"] is None
    assert len(mails.mails) == len(slack.posts) == 1
    assert mails.mails[0]["Subject"] == "[CRITICAL] Pipeline data_refresh is silent"
    text = mails.mails[0].get_body(("plain",)).get_content()
    assert "should have succeeded by 2025-01-16 02:20:00 +07, and no run has." in text

    record(shop, RunStatus.SUCCESS, LATE + timedelta(hours=12))
    for hours in (13, 14):
        assert check(LATE + timedelta(hours=hours)) == {}
    assert len(mails.mails) == len(slack.posts) == 2
    assert mails.mails[1]["Subject"].startswith("[RESOLVED]")


def test_a_job_that_succeeded_in_time_is_fine(check, shop, mails):
    record(shop, RunStatus.SUCCESS, DUE + timedelta(seconds=5))
    assert check(LATE) == {}
    assert mails.mails == []


def test_a_success_before_it_was_due_does_not_count(check, shop):
    record(shop, RunStatus.SUCCESS, DUE - timedelta(hours=1))
    last = check(LATE)["data_refresh"]["last_success"]
    assert datetime.fromisoformat(last) == DUE - timedelta(minutes=58)


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.RUNNING, RunStatus.CANCELLED])
def test_a_run_that_ended_badly_without_a_word_is_told(check, shop, mails, status):
    record(shop, status, DUE, error="abandoned")
    assert check(LATE)["data_refresh"]["last_status"] == status
    assert len(mails.mails) == 1


def test_a_failure_that_was_told_is_not_told_again(check, shop, mails, monkeypatch):
    record(shop, RunStatus.FAILED, DUE)
    told = {"job": "data_refresh", "run_id": "scheduled__1", "run_type": "scheduled"}
    monkeypatch.setattr("recsys.alerting.runs.AlertManager", manager_at(DUE))
    tell_of_run(RunEvent("run_failed", **told), shop)
    overdue = check(LATE)
    assert overdue["data_refresh"]["alerted"] is False
    assert len(mails.mails) == 1


def test_a_missed_deadline_that_was_told_is_not_told_again(check, shop, mails, monkeypatch):
    monkeypatch.setattr("recsys.alerting.runs.AlertManager", manager_at(DUE))
    miss = {"job": "data_refresh", "run_id": "s", "run_type": "scheduled", "state": "queued"}
    tell_of_run(RunEvent("deadline", **miss, due=DUE), shop)
    assert check(LATE)["data_refresh"]["alerted"] is False
    assert len(mails.mails) == 1


def manager_at(now):
    return lambda settings: AlertManager(settings, clock=lambda: now + timedelta(minutes=1))


def test_a_job_that_is_switched_off_owes_nothing(check, shop):
    schedule(shop, data_refresh={"enabled": False})
    assert check(LATE) == {}


def test_a_job_that_was_switched_on_again_owes_nothing_for_the_time_between(check, shop):
    schedule(shop, data_refresh={"enabled": False})
    check(DUE - timedelta(hours=1))
    schedule(shop)
    assert check(LATE) == {}
    assert "data_refresh" in check(LATE + timedelta(days=1))


def test_a_new_schedule_counts_from_when_it_was_seen(check, shop):
    schedule(shop, data_refresh={"cron": "0 1 * * *"})
    assert check(LATE) == {}


def test_lost_memory_is_no_alarm(check, shop):
    (shop.logs / "service" / "health_state.json").write_text("{")
    assert check(LATE) == {}


def test_the_health_check_does_not_watch_itself(check, shop):
    assert "health_check" not in check(LATE + timedelta(days=3))


def test_a_silent_job_is_one_line_of_the_log(check, shop):
    check(LATE)
    check(LATE + timedelta(hours=1))
    lines = [line for line in log_lines(shop) if "data_refresh_silent triggered" in line]
    assert len(lines) == 1
    assert "due=2025-01-16 02:20:00 +07" in lines[0]


def test_a_mistyped_key_is_named_before_a_job_reads_it(shop):
    assert check_pipeline_health(shop)["healthy"]
    (shop.home / "config" / "data.yaml").write_text("max_shrink_fractoin: 0.1\n")
    result = check_pipeline_health(shop)
    assert result["severity"] == "critical"
    assert "data.yaml: max_shrink_fractoin: there is no such key" in result["error"]


def test_what_customers_asked_for_and_did_not_get_is_a_problem(shop):
    assert check_pipeline_health(shop)["healthy"]
    requests = ask_to_forget(shop, [f"KH{number}" for number in range(10, 17)], "lan", IdRules())
    requests += Register(shop).open(Kind.EXPORT, ["KH10"], "lan")
    assert check_pipeline_health(shop)["healthy"]
    register = shop.home / REQUESTS_KEY
    content = json.loads(register.read_text())
    for one in content["requests"]:
        one["due_at"] = "2026-01-05T02:00:00Z"
    register.write_text(json.dumps(content))
    said = check_pipeline_health(shop)
    assert said["severity"] == "critical"
    assert (
        "overdue, the oldest since 2026-01-05 02:00 UTC: 1, 2, 3, 4, 5 and 3 more" in said["error"]
    )
    # The export was asked for again, and done.
    [again] = Register(shop).open(Kind.EXPORT, ["KH10"], "lan")
    Register(shop).finish([again.number, *(one.number for one in requests[:6])], {})
    assert "UTC: 7;" in check_pipeline_health(shop)["error"]
    Register(shop).finish([7], {})
    assert check_pipeline_health(shop)["healthy"]


def test_a_register_that_cannot_be_read_is_a_problem(shop):
    ask_to_forget(shop, ["KH10"], "lan", IdRules())
    register = shop.home / REQUESTS_KEY
    register.write_text("nonsense")
    assert "is no register of customers' requests" in check_pipeline_health(shop)["error"]
    register.with_name("requests.last_good.json").write_text("nonsense")
    assert "is no register of customers' requests" in check_pipeline_health(shop)["error"]
