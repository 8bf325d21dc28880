"""A week of runs of all kinds, compressed: everything that watches over them agrees at the end.

The jobs are stand-ins that do as a run's conf says, and the example of docs/adding-a-job.md as it
stands on the page; Airflow, the run mirror, the callbacks, the supervisor, the SMTP server and the
webhook are real.
"""

import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psutil
import pytest

from recsys.data.sample import write_sample_shop
from recsys.orchestration.client import ENDED, AirflowClient
from recsys.refresh import run_refresh
from recsys.settings import REPOSITORY
from tests.data.shop import interval
from tests.live_stack import LiveStack, make_home, wait_for, wait_for_end
from tests.sinks import MailSink, WebhookSink, mail_sink, webhook_sink

pytestmark = [pytest.mark.boots, pytest.mark.timeout(600)]

JOBS = tuple(json.loads((REPOSITORY / "config" / "scheduler_config.json").read_text())["jobs"])
PAGE = (REPOSITORY / "docs" / "adding-a-job.md").read_text(encoding="utf-8")
WORK, DAG, SCHEDULE, POOL = re.findall(r"```(?:python|json)\n(.*?)```", PAGE, re.DOTALL)
TIMEOUT_SECONDS = 30  # a run of nothing takes a third of it on a busy machine
DEADLINE_SECONDS = 6


@pytest.fixture(scope="module")
def mails() -> Iterator[MailSink]:
    with mail_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def slack() -> Iterator[WebhookSink]:
    with webhook_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def live(stopped_afterwards: Path, mails: MailSink, slack: WebhookSink) -> LiveStack:
    home = stopped_afterwards
    stack = make_home(
        home, {"SLACK_WEBHOOK_URL": slack.url, "ALERT_EMAIL_SENDER": "alerts@example.com"}
    )
    _write_config(home, mails.port)
    # The page puts the module into include/recsys; here another folder joins that package.
    own = home.parent / "own"
    shutil.copytree(Path(__file__).parent / "scripted_jobs", own / "dags")
    (own / "dags" / "stock_report.py").write_text(DAG)
    (own / "recsys").mkdir()
    (own / "recsys" / "stock.py").write_text(WORK)
    (own / "sitecustomize.py").write_text(
        f"import recsys\nrecsys.__path__.append({str(own / 'recsys')!r})\n"
    )
    # A restarted scheduler looks after what its predecessor left sooner than in 30 s.
    env = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(own / "dags"),
        "PYTHONPATH": str(own),
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    }
    stack = replace(stack, env={**stack.env, **env})
    started = stack.recsys("scheduler", "start")
    assert started.returncode == 0, started.stderr
    client = stack.client
    jobs = {*JOBS, "stock_report"}
    wait_for(lambda: set(client.dags()) == jobs, 60, "all DAGs are read")
    for job in jobs:
        client.unpause(job)
    return stack


def _write_config(home: Path, smtp_port: int) -> None:
    config = home / "config"
    config.mkdir()
    schedule = json.loads((REPOSITORY / "config" / "scheduler_config.json").read_text())
    for job in schedule["jobs"].values():
        job["enabled"] = False
    schedule["jobs"]["drift_detection"] |= {
        "timeout_minutes": TIMEOUT_SECONDS / 60,
        "deadline_minutes": DEADLINE_SECONDS / 60,
    }
    schedule["jobs"]["health_check"] |= {"enabled": True, "cron": "* * * * *"}
    # Daily, so that it can be backfilled, and not while the test runs.
    far = (datetime.now(ZoneInfo(schedule["timezone"])).hour + 12) % 24
    schedule["jobs"]["data_refresh"] |= {"enabled": True, "cron": f"0 {far} * * *"}
    schedule["jobs"] |= json.loads(SCHEDULE)
    schedule["jobs"]["stock_report"]["enabled"] = False
    (config / "scheduler_config.json").write_text(json.dumps(schedule))
    (config / "pools.json").write_text(POOL)
    (config / "alerts_config.yaml").write_text(
        f"""
language: en
email:
  enabled: true
  smtp_server: 127.0.0.1
  smtp_port: {smtp_port}
  sender: "${{ALERT_EMAIL_SENDER}}"
  password: null
  recipients: [team@example.com]
slack:
  enabled: true
  webhook_url: "${{SLACK_WEBHOOK_URL}}"
"""
    )


@pytest.fixture(scope="module")
def week(live: LiveStack) -> dict[str, Any]:
    """Run the week; what was expected to happen, by kind."""
    client = live.client
    script: dict[str, Any] = {"failed": [], "marked": [], "killed": []}

    with ThreadPoolExecutor(1) as aside:
        days = ("2024-01-01", "2024-01-08")
        first = aside.submit(_backfill, live, *days)
        wait_for(lambda: first.done() or _backfill_is_at_work(client), 240, "the backfill")
        script["second_backfill"], _ = _backfill(live, "2024-02-01", "2024-02-02")
        script["backfill"], script["open_afterwards"] = first.result()

    # Twice at once: the second of each pair has to wait for the first.
    script["pairs"] = {
        job: [client.trigger(job, {"sleep": 3}), client.trigger(job, {"sleep": 3})]
        for job in JOBS
        if job not in ("drift_detection", "health_check")
    }
    late = client.trigger("drift_detection", {"sleep": 60})
    script["timed_out"] = ("drift_detection", late)
    script["queued_late"] = ("drift_detection", client.trigger("drift_detection"))
    script["waited"] = wait_for(lambda: _second_waits(client, script["pairs"]), 30, "a queue")

    for job in ("data_refresh", "model_training", "model_deployment"):
        for number in range(2):
            run = client.trigger(job, {"bad_input": f"file {number}: no column 'rating'"})
            script["failed"].append((job, run))
    # As many for each job as keep all of them at work equally long.
    for job in ("bert_embeddings", "model_training", "model_deployment", "maintenance"):
        for number in range(8):
            client.trigger(job, {"rows": number})

    marked = client.trigger("bert_embeddings", {"sleep": 120})
    _wait_for_task(client, "bert_embeddings", marked)
    _mark(live, "bert_embeddings", marked, "failed")
    script["marked"].append(("bert_embeddings", marked, "cancelled"))
    passed = client.trigger("bert_embeddings", {"sleep": 120})
    _wait_for_task(client, "bert_embeddings", passed)
    _mark(live, "bert_embeddings", passed, "success")
    script["marked"].append(("bert_embeddings", passed, "success"))

    killed = client.trigger("model_training", {"sleep": 20})
    _wait_for_task(client, "model_training", killed)
    _kill_task(client, "model_training", killed)
    script["killed"].append(("model_training", killed))

    interrupted = client.trigger("model_deployment", {"sleep": 10})
    _wait_for_task(client, "model_deployment", interrupted)
    _kill_scheduler(live)
    script["killed"].append(("model_deployment", interrupted))

    wait_for(lambda: not _open_runs(client), 240, "all runs have ended")
    time.sleep(3)  # the last run's callbacks
    return script


def test_at_least_sixty_runs_of_all_kinds_took_place(live, week):
    runs = _all_runs(live.client)
    kinds = collections.Counter(run["run_type"] for run in runs)
    assert len(runs) >= 60
    assert set(kinds) == {"manual", "scheduled", "backfill"}
    assert kinds["backfill"] == 8
    assert week["backfill"].returncode == 0, week["backfill"].stderr
    assert json.loads(week["backfill"].stdout)["runs"] == {"success": kinds["backfill"]}


def test_a_backfill_runs_one_day_after_the_other_and_a_second_one_is_refused(live, week):
    runs = [run for run in _all_runs(live.client) if run["run_type"] == "backfill"]
    runs.sort(key=lambda run: run["data_interval_start"])
    moments = [
        datetime.fromisoformat(run[end]) for run in runs for end in ("start_date", "end_date")
    ]
    assert moments == sorted(moments)
    assert week["open_afterwards"] == []
    assert week["second_backfill"].returncode == 2
    said = " ".join(week["second_backfill"].stderr.split())
    assert "a backfill of data_refresh is open already (2024-01-01 to 2024-01-08" in said


def test_a_second_run_of_a_job_waits_for_the_first(live, week):
    assert week["waited"]
    for job, (first, second) in week["pairs"].items():
        one, two = live.client.run(job, first), live.client.run(job, second)
        assert datetime.fromisoformat(two["start_date"]) >= datetime.fromisoformat(one["end_date"])


def test_the_mirror_agrees_with_airflow_on_every_run(live, week):
    reconciled = live.recsys("tracker", "reconcile", "--days", "4000")
    assert reconciled.returncode == 0, reconciled.stderr
    # What the mirror itself missed can only be what happened while the scheduler was dead.
    assert json.loads(reconciled.stdout)["repaired"] <= 2

    marked = {(job, run): status for job, run, status in week["marked"]}
    for run in _all_runs(live.client):
        job, run_id = run["dag_id"], run["dag_run_id"]
        record = live.tracker.get_run(f"{job}__{run_id}")
        assert record is not None, (job, run_id)
        assert record["status"] == marked.get((job, run_id), run["state"]), (job, run_id)
        assert record["metadata"]["run_type"] == run["run_type"]
        if run["state"] == "success" and (job, run_id) not in marked:
            assert set(record["metadata"]["summary"]) == {"work", "publish"}
    again = json.loads(live.recsys("tracker", "reconcile", "--days", "4000").stdout)
    assert again["repaired"] == 0


def test_a_failed_run_names_its_task_and_its_error(live, week):
    for job, run_id in week["failed"]:
        record = live.tracker.get_run(f"{job}__{run_id}")
        assert record["status"] == "failed"
        assert record["metadata"]["failing_task"] == "work"
        assert "no column 'rating'" in record["error_message"]


def test_a_timed_out_run_says_so(live, week):
    job, run_id = week["timed_out"]
    record = live.tracker.get_run(f"{job}__{run_id}")
    assert record["status"] == "failed"
    assert "timed out" in record["error_message"]


def test_a_killed_worker_and_a_killed_scheduler_delay_runs_but_do_not_break_them(live, week):
    for job, run_id in week["killed"]:
        assert live.client.run(job, run_id)["state"] == "success"
        assert live.tracker.get_run(f"{job}__{run_id}")["status"] == "success"


def test_each_failure_gives_one_alert_per_channel(live, week, mails, slack):
    log = (live.settings.logs / "service" / "alerts.log").read_text()
    failures = [*week["failed"], week["timed_out"]]
    assert sum("_failed triggered" in line for line in log.splitlines()) == len(failures)
    for _, run_id in failures:
        assert len([line for line in log.splitlines() if _fails(line, run_id)]) == 1
        told = [mail for mail in mails.mails if run_id in _text(mail) and _is_failure(mail)]
        assert len(told) == 1
        assert f"{live.client.url}/dags/" in _text(told[0])
        assert len([post for post in _posts(slack, run_id) if "failed" in post["text"]]) == 1
    assert len([post for post in slack.posts if "failed" in post["text"]]) == len(failures)


def test_a_missed_deadline_is_told_within_a_minute_also_for_a_queued_run(live, week, mails, slack):
    for job, run_id in (week["timed_out"], week["queued_late"]):
        [late] = [post for post in _posts(slack, run_id) if "failed" not in post["text"]]
        assert f"{job} missed its deadline" in late["text"]
        told = [mail for mail in mails.mails if run_id in _text(mail) and not _is_failure(mail)]
        assert len(told) == 1, (job, run_id)
        assert job in told[0]["Subject"]
        queued = datetime.fromisoformat(live.client.run(job, run_id)["queued_at"])
        due = queued + timedelta(seconds=DEADLINE_SECONDS)
        sent = told[0]["Date"].datetime
        assert timedelta(seconds=-2) <= sent - due <= timedelta(seconds=60)


def test_the_scheduler_log_has_its_two_lines_for_every_run(live, week):
    lines = (live.settings.logs / "scheduler" / "scheduler.log").read_text().splitlines()
    started = [line for line in lines if "| INFO | Starting job: data_refresh" in line]
    runs = [run for run in _all_runs(live.client) if run["dag_id"] == "data_refresh"]
    assert len(started) == len(runs)
    ended = [line for line in lines if "Job completed: data_refresh | duration=" in line]
    assert len(ended) == len(runs)
    assert sum("status=failed" in line for line in ended) == 2


def test_stats_count_the_week(live, week):
    stats = json.loads(live.recsys("stats", "--json").stdout)["stats_by_pipeline"]
    refresh = stats["data_refresh"]
    assert refresh["failed"] == 2
    assert refresh["running"] == 0
    assert refresh["success_rate"] == round(refresh["success"] / (refresh["success"] + 2), 3)


def test_a_locked_tracker_hurts_no_run(live, week):
    client = live.client
    database = live.settings.pipeline_db
    lock = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys, time\n"
            "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(60)",
            str(database),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert lock.stdout.readline().strip() == b"locked"
        begun = time.monotonic()
        fine = client.trigger("data_refresh", {"rows": 7})
        broken = client.trigger("model_training", {"bad_input": "while the tracker was locked"})
        assert wait_for_end(client, "data_refresh", fine) == "success"
        assert wait_for_end(client, "model_training", broken) == "failed"
        assert time.monotonic() - begun < 45
    finally:
        lock.terminate()
        lock.wait()
    live.recsys("tracker", "reconcile")
    assert live.tracker.get_run(f"data_refresh__{fine}")["status"] == "success"
    assert live.tracker.get_run(f"model_training__{broken}")["status"] == "failed"


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"conf": {"dryrun": True}}, "conf: 'dryrun' is no parameter of maintenance"),
        ({"logical_date": "2999-01-01T00:00:00Z"}, "in the future, at 29"),
    ],
    ids=["unknown key", "future"],
)
def test_a_run_that_no_job_can_do_fails_at_once_and_blocks_nothing(live, week, request_, sentence):
    asked = {"logical_date": None, **request_}
    run = live.airflow("POST", "/dags/maintenance/dagRuns", asked)["dag_run_id"]
    assert wait_for_end(live.client, "maintenance", run, 60) == "failed"
    record = wait_for(lambda: live.tracker.get_run(f"maintenance__{run}"), 10, "the mirror")
    wait_for(lambda: live.tracker.get_run(record["run_id"])["error_message"], 10, "the reason")
    assert sentence in live.tracker.get_run(record["run_id"])["error_message"]
    following = live.client.trigger("maintenance")
    assert wait_for_end(live.client, "maintenance", following) == "success"


def test_a_run_id_of_any_length_that_airflow_takes_does_its_work(live, week):
    run_id = "a.b:c+d~e-" * 25
    body = {"dag_run_id": run_id, "logical_date": None, "conf": {"rows": 3}}
    live.airflow("POST", "/dags/maintenance/dagRuns", body)
    assert wait_for_end(live.client, "maintenance", run_id) == "success"
    assert live.client.returned_values("maintenance", run_id)["work"] == {"rows": 3}
    wait_for(lambda: live.tracker.get_run(f"maintenance__{run_id}"), 10, "the mirror")


def test_a_job_of_ones_own_runs_and_is_mirrored(live, week):
    write_sample_shop(live.settings, reviews=3000)
    run_refresh(live.settings, interval())
    client = live.client
    assert wait_for_end(client, "stock_report", client.trigger("stock_report")) == "success"
    report = json.loads((live.settings.reports / "stock.json").read_text())
    assert report["products"] > 0
    run = wait_for(
        lambda: live.tracker.get_recent_runs("stock_report", status="success"), 10, "the mirror"
    )[0]
    assert run["metadata"]["summary"]["report"] == report
    assert live.recsys("stats", "--json").stdout.count("stock_report") == 1


def test_a_deleted_run_is_cancelled(live, week):
    client = live.client
    run_id = client.trigger("data_refresh", {"sleep": 1})
    assert wait_for_end(client, "data_refresh", run_id) == "success"
    tracker = live.tracker
    wait_for(lambda: tracker.get_run(f"data_refresh__{run_id}"), 10, "the mirror")
    # As if the scheduler had died before the run ended, and a person had deleted the run.
    record = tracker.get_run(f"data_refresh__{run_id}")
    _set_running(tracker, record)
    live.airflow("DELETE", f"/dags/data_refresh/dagRuns/{run_id}")
    live.recsys("tracker", "reconcile")
    assert tracker.get_run(f"data_refresh__{run_id}")["status"] == "cancelled"


def test_a_running_backfill_of_a_day_long_past_is_not_taken_for_deleted(live, week):
    recent = live.tracker.get_recent_runs("data_refresh", limit=1000)
    record = next(run for run in recent if run["metadata"]["run_type"] == "backfill")
    _set_running(live.tracker, record)
    live.recsys("tracker", "reconcile")
    assert live.tracker.get_run(record["run_id"])["status"] == "running"


def test_stop_leaves_no_process_and_no_port(live, week):
    before = [process for process in psutil.process_iter() if _works_in(process, live)]
    assert before
    stopped = live.recsys("scheduler", "stop")
    assert stopped.returncode == 0, stopped.stderr
    alive = [process for process in before if _is_alive(process)]
    assert alive == []
    status = live.recsys("scheduler", "status", "--json")
    assert status.returncode == 1
    states = {part["state"] for part in json.loads(status.stdout)["components"]}
    assert states == {"STOPPED"}


def _backfill(live: LiveStack, first: str, last: str) -> tuple[Any, list[dict[str, Any]]]:
    """The ended command, and the backfills that were open when it ended."""
    done = live.recsys("backfill", "data_refresh", "--from-date", first, "--to-date", last)
    return done, live.client.open_backfills("data_refresh")


def _backfill_is_at_work(client: AirflowClient) -> bool:
    """Whether a first run has ended."""
    return any(
        run["state"] in ENDED
        for one in client.open_backfills("data_refresh")
        for run in client.backfill_runs(one)
    )


def _second_waits(client: AirflowClient, pairs: dict[str, list[str]]) -> bool:
    states = [
        (client.run(job, first)["state"], client.run(job, second)["state"])
        for job, (first, second) in pairs.items()
    ]
    return any(state == ("running", "queued") for state in states)


def _wait_for_task(client: AirflowClient, job: str, run_id: str) -> None:
    wait_for(
        lambda: any(task["state"] == "running" for task in client.task_instances(job, run_id)),
        180,
        f"a running task of {job} {run_id}",
    )


def _mark(live: LiveStack, job: str, run_id: str, state: str) -> None:
    """As a person does: again, when Airflow's scheduler judged the run in the moment of marking.

    It then calls a run whose last task was skipped by the marking a success.
    """

    def is_marked() -> bool:
        live.airflow("PATCH", f"/dags/{job}/dagRuns/{run_id}", {"state": state})
        time.sleep(1)  # the scheduler's round
        return bool(live.client.run(job, run_id)["state"] == state)

    wait_for(is_marked, 30, f"{job} {run_id} is marked")


def _kill_task(client: AirflowClient, job: str, run_id: str) -> None:
    running = [t for t in client.task_instances(job, run_id) if t["state"] == "running"]
    os.kill(running[0]["pid"], signal.SIGKILL)


def _kill_scheduler(live: LiveStack) -> None:
    """Returns when a new scheduler reports a heartbeat."""
    pid = live.component_pid("scheduler")
    killed = time.time()
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        beat = live.client.health()["scheduler"]["latest_scheduler_heartbeat"]
        return (
            live.component_pid("scheduler") not in (0, pid)
            and datetime.fromisoformat(beat).timestamp() > killed
        )

    wait_for(is_back, 120, "the scheduler is back")


def _all_runs(client: AirflowClient) -> list[dict[str, Any]]:
    beginning = datetime.fromisoformat("2015-01-01T00:00:00+00:00")
    return [
        run
        for job in JOBS
        for run in client.runs_since(job, beginning)
        if run["state"] in ("success", "failed")
    ]


def _open_runs(client: AirflowClient) -> list[str]:
    beginning = datetime.fromisoformat("2015-01-01T00:00:00+00:00")
    return [
        run["dag_run_id"]
        for job in JOBS
        if job != "health_check"
        for run in client.runs_since(job, beginning)
        if run["state"] not in ("success", "failed")
    ]


def _set_running(tracker: Any, record: dict[str, Any]) -> None:
    from recsys.tracking import RunRecord, RunStatus

    tracker.record_run(
        RunRecord(
            record["run_id"],
            record["pipeline_name"],
            RunStatus.RUNNING,
            datetime.fromisoformat(record["started_at"]),
            None,
            None,
            {},
        )
    )


def _fails(line: str, run_id: str) -> bool:
    return "_failed triggered" in line and run_id in line


def _text(mail: Any) -> str:
    return str(mail.get_body(("plain",)).get_content())


def _posts(slack: WebhookSink, run_id: str) -> list[dict[str, Any]]:
    return [post for post in slack.posts if run_id in json.dumps(post)]


def _is_failure(mail: Any) -> bool:
    return "failed" in mail["Subject"].lower()


def _works_in(process: psutil.Process, live: LiveStack) -> bool:
    try:
        return Path(process.cwd()) == live.settings.home
    except psutil.Error:
        return False


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
