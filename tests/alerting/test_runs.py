from datetime import UTC, datetime

import pytest

from recsys.alerting import send_pipeline_alert
from recsys.alerting.runs import RunEvent, tell_of_run, tell_of_success
from tests.sinks import alerts_config, log_lines, write_alerts_config

RUN = {"job": "data_refresh", "run_id": "scheduled__2025-01-15T19:00", "run_type": "scheduled"}


@pytest.fixture(autouse=True)
def configured(configure):
    configure()


def test_a_failing_task_and_its_failing_run_are_one_failure(settings, mails, slack):
    places = {"log": "http://airflow/log", "link": "http://airflow/run"}
    first = RunEvent("task_failed", **RUN, task="publish", error="KeyError: 'rating'", **places)
    tell_of_run(first, settings)
    tell_of_run(RunEvent("run_failed", **RUN, reason="task_failure", **places), settings)
    tell_of_run(RunEvent("task_failed", **RUN, task="other", error="OSError"), settings)
    assert len(mails.mails) == len(slack.posts) == 1
    text = mails.mails[0].get_body(("plain",)).get_content()
    assert "Task publish of data_refresh failed at its last try." in text
    assert "Error: KeyError: 'rating'" in text
    assert "Log: http://airflow/log" in text
    assert "http://airflow/run" in text
    assert sum("triggered" in line for line in log_lines(settings)) == 1


def test_a_run_that_only_the_scheduler_saw_fail_is_told_from_there(settings, mails):
    tell_of_run(RunEvent("run_timed_out", **RUN, reason="timed_out"), settings)
    assert mails.mails[0]["Subject"] == "[CRITICAL] Pipeline data_refresh failed"
    text = mails.mails[0].get_body(("plain",)).get_content()
    assert "A run of data_refresh was stopped because it took longer than allowed." in text


def test_other_runs_and_cleared_runs_fail_anew(settings, mails):
    tell_of_run(RunEvent("run_failed", **RUN), settings)
    tell_of_run(RunEvent("run_failed", **RUN | {"run_id": "manual__2"}), settings)
    tell_of_run(RunEvent("run_failed", **RUN, attempt=1), settings)
    assert len(mails.mails) == 3


def test_a_slip_of_who_asked_is_in_the_log_and_nobody_is_woken(settings, mails, slack):
    run = RUN | {"run_id": "manual__1", "run_type": "manual"}
    slip = RunEvent("bad_request", **run, task="ingest", error="conf: 'dryrun' is no parameter")
    tell_of_run(slip, settings)
    tell_of_run(RunEvent("run_failed", **run, reason="task_failure"), settings)
    assert len(mails.mails) == len(slack.posts) == 0
    [line] = [line for line in log_lines(settings) if "triggered" in line]
    assert line.startswith("INFO | ")
    assert "what was asked for cannot be done" in line
    assert "'dryrun' is no parameter" in line


def test_a_job_that_works_again_is_told_once_to_those_who_were_told(settings, mails, slack):
    for night in ("1", "2"):
        failed = RUN | {"run_id": f"scheduled__{night}"}
        tell_of_run(RunEvent("task_failed", **failed, task="publish", error="OSError"), settings)
    tell_of_success("data_refresh_too", "scheduled__3", settings)
    assert len(mails.mails) == 2
    tell_of_success("data_refresh", "scheduled__3", settings)
    tell_of_success("data_refresh", "scheduled__4", settings)
    assert len(mails.mails) == len(slack.posts) == 3
    assert mails.mails[-1]["Subject"] == "[RESOLVED] Pipeline data_refresh works again"
    text = mails.mails[-1].get_body(("plain",)).get_content()
    assert "data_refresh has succeeded again." in text
    assert "For the shop" not in text


def test_nothing_makes_up_for_a_day_of_a_backfill_but_itself(settings, mails):
    day = RUN | {"run_id": "backfill__2025-01-03", "run_type": "backfill"}
    tell_of_run(RunEvent("task_failed", **day, task="publish", error="OSError"), settings)
    tell_of_run(RunEvent("task_failed", **RUN, task="publish", error="OSError"), settings)
    for other in ("backfill__2025-01-04", "backfill__2025-01-03"):
        tell_of_success("data_refresh", other, settings)
    assert [mail["Subject"].split("]")[0] for mail in mails.mails] == [
        "[CRITICAL", "[CRITICAL", "[RESOLVED",
    ]  # fmt: skip
    tell_of_success("data_refresh", "scheduled__2025-01-16T19:00", settings)
    assert len(mails.mails) == 4


def test_a_mail_says_what_it_means_for_the_shop_under_a_public_address(
    settings, mails, monkeypatch
):
    text = alerts_config(mails.port, "en", "null")
    write_alerts_config(settings, f"{text}public_url: https://airflow.shop.example/\n")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://api-server:8080")
    places = {"log": "http://api-server:8080/log/1", "link": "http://api-server:8080/dags/x"}
    tell_of_run(RunEvent("task_failed", **RUN, task="publish", error="OSError", **places), settings)
    text = mails.mails[0].get_body(("plain",)).get_content()
    assert "For the shop: customers still get lists of the last good data" in text
    assert "https://airflow.shop.example/dags/x" in text
    assert "Log: https://airflow.shop.example/log/1" in text
    assert "api-server" not in text


def test_a_deadline_miss_mail_says_what_the_sla_mail_said(settings, mails, slack):
    due = datetime(2025, 1, 15, 19, 20, tzinfo=UTC)
    miss = RunEvent("deadline", **RUN, state="queued", due=due, link="http://airflow/run")
    tell_of_run(miss, settings)
    tell_of_run(miss, settings)
    assert len(mails.mails) == len(slack.posts) == 1
    assert mails.mails[0]["Subject"] == (
        "[WARNING] Pipeline data_refresh missed its deadline (SLA miss)"
    )
    text = mails.mails[0].get_body(("plain",)).get_content()
    for fact in (
        "data_refresh was not done when it was due at 2025-01-16 02:20:00 +07.",
        "Run id: scheduled__2025-01-15T19:00",
        "State: queued",
        "http://airflow/run",
    ):
        assert fact in text


@pytest.mark.parametrize(
    ("state", "run_type"),
    [
        ("failed", "scheduled"),
        ("success", "manual"),
        ("running", "backfill"),
        ("queued", "backfill"),
    ],
)
def test_a_deadline_speaks_of_open_runs_only_and_of_no_backfill(settings, mails, state, run_type):
    tell_of_run(RunEvent("task_failed", **RUN, task="ingest", error="KeyError"), settings)
    miss = RunEvent("deadline", **RUN | {"run_type": run_type}, state=state)
    assert tell_of_run(miss, settings) == {}
    assert len(mails.mails) == 1


def test_a_miss_and_a_failure_of_one_run_are_two_alerts(settings, mails):
    tell_of_run(RunEvent("deadline", **RUN, state="running"), settings)
    tell_of_run(RunEvent("run_timed_out", **RUN, reason="timed_out"), settings)
    assert len(mails.mails) == 2


def test_a_bad_configuration_leaves_the_alert_in_the_log(settings, monkeypatch):
    monkeypatch.setenv("SMTP_PASSWORD", "hunter2hunter2")
    write_alerts_config(settings, "email: {smtp_prt: 25}")
    failure = RunEvent("task_failed", **RUN, task="t", error="hunter2hunter2")
    sent = tell_of_run(failure, settings)
    assert sent == {}
    (line,) = log_lines(settings)
    assert line.startswith("CRITICAL | alerting | data_refresh_failed triggered: task t failed | ")
    assert "email.smtp_prt: there is no such key" in line
    assert "hunter2" not in line


def test_an_alert_in_an_except_block_does_not_raise(settings):
    write_alerts_config(settings, "email: 1")
    assert send_pipeline_alert("p", "failed", "division by zero", settings=settings) == {}
    assert "p_failed triggered: division by zero" in log_lines(settings)[0]
