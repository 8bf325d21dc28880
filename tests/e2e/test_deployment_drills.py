"""Every way in which a deployment can go, through real Airflow against the live service.

After each drill three things must be right: what serves, the row in the history, and who was told
(alert log, mail, Slack).
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from recsys.deployment.history import read_history
from recsys.orchestration.environment import read_env
from recsys.settings import REPOSITORY
from tests.live_stack import LiveStack, make_home, wait_for, wait_for_end
from tests.serving.service_process import running_service
from tests.serving.shops import ITEMS, USERS, add_model, products
from tests.sinks import (
    MailSink,
    WebhookSink,
    log_lines,
    mail_sink,
    webhook_sink,
    write_alerts_config,
)

pytestmark = [pytest.mark.boots, pytest.mark.timeout(600)]

JOB = "model_deployment"
PASSED = {"health_check": True, "model_id_match": True, "recommendations_work": True}
NOT_MADE = dict.fromkeys(PASSED, False)
MANY = 3000  # sample users: their verification takes long enough to kill the service meanwhile
OTHER_TOKEN = "another-token-of-the-drills"
CANARY = {"enabled": True, "share": 0.5, "minutes": 0.05, "min_requests": 5}
AGAIN = f"Pipeline {JOB} works again"
ALERTS = """\
language: en
email: {{smtp_server: 127.0.0.1, smtp_port: {port}, sender: a@example.com, password: null,
  recipients: [team@example.com]}}
slack: {{webhook_url: "${{SLACK_WEBHOOK_URL}}"}}
"""


@dataclass
class Shop:
    """The running stack, what it sends, and the models that it can be given."""

    live: LiveStack
    mails: MailSink
    slack: WebhookSink
    numbers: Iterator[int]
    failures: Iterator[int]

    def configure(self, **options: Any) -> None:
        """Write ``config/deployment.yaml``; the next task reads it."""
        fast: dict[str, Any] = {"patience_seconds": 40}
        (self.live.settings.home / "config" / "deployment.yaml").write_text(
            json.dumps(fast | {"verify": {"sample_users": MANY}} | options)
        )

    def new_model(self, **options: Any) -> str:
        """A registered model that no gate has seen yet; it is the current best."""
        number = next(self.numbers)
        model_id = f"als_{number:02}"
        add_model(self.live.settings, model_id, recall=0.1 + number / 1000, seed=number, **options)
        return model_id

    def artefact(self, model_id: str) -> Path:
        return self.live.settings.artifacts / "als" / model_id

    def start(self, **options: Any) -> str:
        return self.live.client.trigger(JOB, options)

    def end(self, run_id: str) -> str:
        """The state at the end; of a failed run, when Airflow's callback has spoken too."""
        state = wait_for_end(self.live.client, JOB, run_id)
        if state == "failed":
            told = next(self.failures)
            wait_for(lambda: self.run_failures() >= told, 60, "the callback of the failed run")
        return state

    def run_failures(self) -> int:
        lines = log_lines(self.live.settings)
        return sum(line.endswith(f"{JOB}_failed held back: run failed") for line in lines)

    def tasks(self) -> set[str]:
        found = self.live.airflow("GET", f"/dags/{JOB}/tasks")["tasks"]
        return {task["task_id"] for task in found}

    def question(self, run_id: str) -> dict[str, Any]:
        """What the run asks, when a person could have read it."""

        def waits() -> bool:
            tasks = self.live.client.task_instances(JOB, run_id)
            return any(task["state"] == "awaiting_input" for task in tasks)

        wait_for(waits, 60, "a question")
        # Airflow loses an answer that comes before its scheduler has seen the task pause.
        seen = datetime.now(UTC) + timedelta(seconds=2)
        wait_for(lambda: self.scheduler_beat() > seen, 60, "a heartbeat of the scheduler")
        time.sleep(1)
        return self.asked(run_id)

    def asked(self, run_id: str) -> dict[str, Any]:
        path = f"/dags/{JOB}/dagRuns/{run_id}/hitlDetails"
        [question] = self.live.airflow("GET", path)["hitl_details"]
        return dict(question)

    def scheduler_beat(self) -> datetime:
        health = self.live.client.health()
        return datetime.fromisoformat(health["scheduler"]["latest_scheduler_heartbeat"])

    def answer(self, run_id: str, option: str) -> None:
        path = f"/dags/{JOB}/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
        self.live.airflow("PATCH", path, {"chosen_options": [option]})

    def mirrored(self, run_id: str) -> dict[str, Any]:
        """What the run mirror keeps of the run."""
        return dict((self.live.tracker.get_run(f"{JOB}__{run_id}") or {"metadata": {}})["metadata"])

    def serving(self) -> str:
        """The model that answers, by the service's own word and by an answer of it."""
        url = self.live.service_url
        answer = requests.post(f"{url}/recommend", json={"user_id": "1"}, timeout=5).json()
        assert answer["recommendations"]
        assert requests.get(f"{url}/health", timeout=5).json()["model_id"] == answer["model_id"]
        return str(answer["model_id"])


@dataclass
class Outcome:
    """What a drill left behind."""

    rows: list[dict[str, Any]]
    log: list[str]
    mails: list[Any]
    posts: list[dict[str, Any]]

    def is_told_once(self, *parts: str) -> None:
        """One failure is one critical alert on every channel, and says all of `parts`."""
        [line] = [line for line in self.log if " triggered: " in line]
        assert line.startswith(f"CRITICAL | alerting | {JOB}_failed triggered: Deployment of ")
        [mail], [post] = self.mails, self.posts
        assert JOB in mail["Subject"]
        text = " ".join(mail.get_body(("plain",)).get_content().split())
        for part in parts:
            assert part in line
            assert part in text
            assert part in json.dumps(post)

    def without_notice(self) -> "Outcome":
        """The same without the notice that somebody has to answer (log and mail)."""
        log = [line for line in self.log if f"{JOB}_waits triggered" not in line]
        assert len(log) == len(self.log) - 1
        return Outcome(self.rows, log, self.mails[1:], self.posts)

    def is_quiet(self) -> None:
        assert (self.log, self.mails, self.posts) == ([], [], [])


@pytest.fixture(scope="module")
def shop(stopped_afterwards: Path) -> Iterator[Shop]:
    home = stopped_afterwards
    with mail_sink() as mails, webhook_sink() as slack:
        live = make_home(home, {"SLACK_WEBHOOK_URL": slack.url})
        # The real DAG alone: the others would be read again and again beside it.
        dags = home / "dags"
        dags.mkdir()
        shutil.copy(REPOSITORY / "dags" / f"{JOB}.py", dags)
        environment = {
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "2",
        }
        live = LiveStack(live.settings, {**live.env, **environment})
        shop = Shop(live, mails, slack, itertools.count(1), itertools.count(1))
        write_alerts_config(live.settings, ALERTS.format(port=mails.port))
        (home / "config" / "serving.yaml").write_text("requests_per_client_minute: 0\n")
        schedule = json.loads((REPOSITORY / "config" / "scheduler_config.json").read_text())
        for timing in schedule["jobs"].values():
            timing["enabled"] = False
        (home / "config" / "scheduler_config.json").write_text(json.dumps(schedule))
        shop.configure()
        shop.new_model()
        started = live.recsys("scheduler", "start")
        assert started.returncode == 0, started.stderr
        wait_for(lambda: JOB in live.client.dags(), 60, "the DAG is read")
        live.client.unpause(JOB)
        wait_for(lambda: health(shop).get("status") == "healthy", 60, "the service")
        yield shop


@contextlib.contextmanager
def watched(shop: Shop) -> Iterator[Outcome]:
    """What is written and sent during the block; everything in it is there afterwards."""
    log, mails, posts = (
        len(log_lines(shop.live.settings)),
        len(shop.mails.mails),
        len(shop.slack.posts),
    )
    known = read_rows(shop)
    outcome = Outcome([], [], [], [])
    yield outcome
    rows = read_rows(shop)
    outcome.rows += rows[len(known) :] if rows[: len(known)] == known else rows
    # Not what says that the job works again, after a drill before, and not that something was sent.
    lines = log_lines(shop.live.settings)[log:]
    outcome.log += [line for line in lines if " resolved: " not in line and " sent" not in line]
    outcome.mails += [one for one in shop.mails.mails[mails:] if AGAIN not in one["Subject"]]
    outcome.posts += [one for one in shop.slack.posts[posts:] if AGAIN not in json.dumps(one)]


def read_rows(shop: Shop) -> list[dict[str, Any]]:
    try:
        return read_history(shop.live.settings)
    except ValueError:
        return []


def row(model_id: str, previous: str | None, status: str, **others: Any) -> dict[str, Any]:
    """The part of a history row that the documentation promises."""
    verification = PASSED if status == "success" else NOT_MADE
    return {
        "model_id": model_id,
        "previous_model_id": previous,
        "status": status,
        "verification": others.get("verification", verification),
        "rollback_triggered": others.get("rollback_triggered", False),
    }


def only_row(outcome: Outcome) -> dict[str, Any]:
    [entry] = outcome.rows
    return {key: entry[key] for key in row("", None, "failed")}


def test_a_good_model_serves(shop):
    before, model = shop.serving(), shop.new_model()
    with watched(shop) as outcome:
        assert shop.end(shop.start()) == "success"
    assert shop.serving() == model
    assert only_row(outcome) == row(model, before, "success")
    outcome.is_quiet()


def test_a_corrupt_artefact_is_refused_by_the_gate(shop):
    before, model = shop.serving(), shop.new_model()
    factors = shop.artefact(model) / "model" / "item_factors.npy"
    factors.write_bytes(factors.read_bytes()[:-1] + b"x")
    with watched(shop) as outcome:
        assert shop.end(shop.start(model_id=model)) == "failed"
    assert shop.serving() == before
    assert only_row(outcome) == row(model, before, "failed")
    outcome.is_told_once(model, "item_factors.npy")


def test_a_model_whose_products_are_all_sold_out_never_serves(shop):
    before = shop.serving()
    model = shop.new_model(shop_products=products(unavailable=tuple(range(ITEMS))))
    with watched(shop) as outcome:
        assert shop.end(shop.start(model_id=model)) == "failed"
    assert shop.serving() == before
    assert only_row(outcome) == row(model, before, "failed")
    outcome.is_told_once(
        model, "none of its products is available", f"{before} is still in service"
    )


def test_a_model_that_loads_but_recommends_nothing_to_its_users_is_taken_back(shop):
    before, model = shop.serving(), shop.new_model(sample_users=("gone-1", "gone-2"))
    with watched(shop) as outcome:
        assert shop.end(shop.start(model_id=model)) == "failed"
    assert shop.serving() == before
    checks = {**PASSED, "recommendations_work": False}
    expected = row(model, before, "rolled_back", verification=checks, rollback_triggered=True)
    assert only_row(outcome) == expected
    outcome.is_told_once(model, "only 0 of 2 sample users", f"{before} is in service again")


def test_a_service_that_dies_during_the_verification_comes_back_with_the_previous_model(shop):
    before, model = shop.serving(), shop.new_model(sample_users=("1",) * MANY)
    pid = shop.live.component_pid("service")
    with watched(shop) as outcome:
        run_id = shop.start(model_id=model)
        wait_for(lambda: answers_of(shop, model) > 50, 60, "the verification")
        os.kill(pid, signal.SIGKILL)
        assert shop.end(run_id) == "failed"
    assert shop.serving() == before
    assert shop.live.component_pid("service") != pid
    checks = {**PASSED, "recommendations_work": False}
    expected = row(model, before, "rolled_back", verification=checks, rollback_triggered=True)
    assert only_row(outcome) == expected
    outcome.is_told_once(model, "recommendations_work: ", f"{before} is in service again")


def test_no_service_and_one_that_wants_another_token(shop):
    before, model = shop.serving(), shop.new_model()
    shop.configure(patience_seconds=1)
    settings, port = shop.live.settings, int(shop.live.service_url.rpartition(":")[2])
    with shop.live.without_service():
        with watched(shop) as outcome:
            run_id = shop.start(model_id=model)
            assert shop.end(run_id) == "failed"
        assert only_row(outcome) == row(model, None, "failed")
        outcome.is_told_once(model, "ConnectionError")

        # A person clears the run, and it fails anew: one more alert, and not two.
        with watched(shop) as outcome:
            clear = {"dag_run_id": run_id, "dry_run": False, "only_failed": False}
            shop.live.airflow("POST", f"/dags/{JOB}/clearTaskInstances", clear)
            assert shop.end(run_id) == "failed"
        assert only_row(outcome) == row(model, None, "failed")
        outcome.is_told_once(model, "ConnectionError")

        with running_service(settings, port, OTHER_TOKEN, requests_per_client_minute=0):
            with watched(shop) as outcome:
                assert shop.end(shop.start(model_id=model)) == "failed"
            assert shop.serving() == before
        assert only_row(outcome) == row(model, before, "failed")
        outcome.is_told_once(model, "answered 401", f"{before} is still in service")
    wait_for(lambda: health(shop).get("status") == "healthy", 60, "the service")
    assert shop.serving() == before


def test_a_damaged_history_is_set_aside_and_told(shop):
    before, model = shop.serving(), shop.new_model()
    history = shop.live.settings.deployment_history
    history.write_text('{"deployments": [{"mod')
    with watched(shop) as outcome:
        assert shop.end(shop.start()) == "success"
    assert shop.serving() == model
    assert only_row(outcome) == row(model, before, "success")
    assert read_history(shop.live.settings) == outcome.rows
    [aside] = history.parent.glob("deployment_history.damaged_*.json")
    assert aside.read_text() == '{"deployments": [{"mod'
    [line] = [line for line in outcome.log if " triggered: " in line]
    assert line.startswith(f"WARNING | alerting | {JOB}_history triggered: ")
    assert aside.name in line
    assert (len(outcome.mails), len(outcome.posts)) == (1, 0)

    # Nobody guesses what was before: a rollback needs the history.
    history.write_text("[]")
    with watched(shop) as outcome:
        assert shop.end(shop.start(rollback=True)) == "failed"
    assert shop.serving() == model
    [entry] = outcome.rows
    assert entry["status"] == "failed"
    assert "is not a deployment history" in entry["error"]
    [post] = outcome.posts
    assert "is not a deployment history" in json.dumps(post)


def test_a_canary_that_holds_serves_everybody_afterwards(shop):
    before, model = shop.serving(), shop.new_model()
    shop.configure(canary=CANARY)
    with watched(shop) as outcome, traffic(shop) as answered:
        assert shop.end(shop.start()) == "success"
    assert shop.serving() == model
    assert only_row(outcome) == row(model, before, "success")
    outcome.is_quiet()
    # For a while both answered, and who had got the new model did not get the old one again.
    first_new = next(place for place, (_, made_by) in enumerate(answered) if made_by == model)
    assert sum(made_by == before for _, made_by in answered[first_new:]) > 20
    got_new = set()
    for user, made_by in answered:
        assert made_by == model or user not in got_new
        got_new |= {user} if made_by == model else set()


def test_a_canary_that_is_worse_is_ended(shop):
    before, model = shop.serving(), shop.new_model()
    shop.configure(canary=CANARY | {"max_latency_ratio": 1e-6})
    with watched(shop) as outcome:
        with traffic(shop):
            assert shop.end(shop.start()) == "failed"
        with traffic(shop) as answered:
            time.sleep(1)
    assert {made_by for _, made_by in answered} == {before}
    assert only_row(outcome) == row(model, before, "failed")
    told = f"{before} is still in service"
    outcome.is_told_once(model, "the canary failed: avg_latency_ms", told)


@pytest.fixture
def asking(shop: Shop) -> None:
    """Approval is required, and Airflow knows it."""
    shop.configure(require_approval=True)
    wait_for(lambda: "approve" in shop.tasks(), 60, "the task `approve`")


@pytest.mark.usefixtures("asking")
def test_an_approved_model_serves(shop):
    before, model, question_asked = shop.serving(), shop.new_model(), datetime.now(UTC)
    with watched(shop) as outcome:
        run_id = shop.start()
        question = shop.question(run_id)
        assert question["subject"] == f"Deploy {model}?"
        assert f"**{before}**" in question["body"]
        assert shop.serving() == before
        shop.answer(run_id, "Approve")
        assert shop.end(run_id) == "success"
    assert shop.serving() == model
    assert only_row(outcome) == row(model, before, "success")
    # Somebody was told that an answer was wanted, and where to give it.
    [line] = [line for line in outcome.log if " triggered: " in line]
    assert line.startswith(f"WARNING | alerting | {JOB}_waits triggered: ")
    assert f"model_id={model}, serving={before}, " in line
    [mail] = outcome.mails
    page = f"{shop.live.client.url}/dags/{JOB}/runs/"
    assert page in mail.get_body(("plain",)).get_content()
    summary = wait_for(lambda: shop.mirrored(run_id).get("summary"), 15, "the mirror")
    assert summary["approve"]["chosen_options"] == ["Approve"]
    assert datetime.fromisoformat(summary["approve"]["responded_at"]) > question_asked

    # It serves already: there is nothing to ask.
    again = shop.start()
    assert shop.end(again) == "success"
    states = shop.live.client.task_instances(JOB, again)
    assert {one["task_id"]: one["state"] for one in states}["approve"] == "skipped"


@pytest.mark.usefixtures("asking")
def test_a_command_that_waits_for_a_person_says_so(shop):
    client, model = shop.live.client, shop.new_model()

    def begun(state: str) -> str:
        """The run that is in `state`, as soon as there is one."""
        path = f"/dags/{JOB}/dagRuns"

        def there() -> list[str]:
            runs = shop.live.airflow("GET", f"{path}?state={state}")["dag_runs"]
            return [run["dag_run_id"] for run in runs]

        return str(wait_for(there, 60, f"a run that is {state}")[0])

    with ThreadPoolExecutor() as aside:
        asking = aside.submit(shop.live.recsys, "model-deployment")
        run_id = begun("running")
        shop.question(run_id)
        behind = aside.submit(shop.live.recsys, "model-deployment")
        begun("queued")
        shop.answer(run_id, "Approve")
        done, after = asking.result(), behind.result()
    page = client.run_url(JOB, run_id)
    assert (done.returncode, after.returncode) == (0, 0), done.stderr + after.stderr
    assert f"approve: waits for a person; answer at\n  {page}\n" in done.stderr
    said = " ".join(after.stderr.split())
    assert (
        f"{JOB}: another run goes first, which waits for a person; approve or reject there" in said
    )
    assert f"  {page}\n" in after.stderr
    assert shop.serving() == model


@pytest.mark.usefixtures("asking")
def test_a_rejected_model_never_serves(shop):
    before, model = shop.serving(), shop.new_model()
    with watched(shop) as outcome:
        run_id = shop.start()
        shop.question(run_id)
        shop.answer(run_id, "Reject")
        assert shop.end(run_id) == "failed"
    assert shop.serving() == before
    assert only_row(outcome) == row(model, before, "failed")
    outcome.without_notice().is_told_once(model, "admin rejected it")


@pytest.mark.usefixtures("asking")
def test_a_question_that_nobody_answers_ends_as_a_refusal(shop):
    before, model = shop.serving(), shop.new_model()
    shop.configure(require_approval=True, approval_hours=10 / 3600)
    with watched(shop) as outcome:
        run_id = shop.start()
        assert shop.end(run_id) == "failed"
    assert shop.serving() == before
    assert only_row(outcome) == row(model, before, "failed")
    outcome.without_notice().is_told_once(model, "nobody answered in time")
    assert shop.asked(run_id)["response_received"]  # or Airflow would still call for an answer


@pytest.mark.usefixtures("asking")
def test_an_artefact_that_is_damaged_after_the_gate_is_refused_by_the_service(shop):
    before, model = shop.serving(), shop.new_model()
    with watched(shop) as outcome:
        run_id = shop.start()
        shop.question(run_id)
        (shop.artefact(model) / "model" / "item_factors.npy").write_bytes(b"x")
        shop.answer(run_id, "Approve")
        assert shop.end(run_id) == "failed"
    assert shop.serving() == before
    assert only_row(outcome) == row(model, before, "failed")
    told = f"{before} is still in service"
    outcome.without_notice().is_told_once(model, "item_factors.npy", told)


def test_no_failure_was_told_twice_later(shop):
    runs = shop.live.client.runs_since(JOB, datetime(2015, 1, 1, tzinfo=UTC))
    failed = sum(run["state"] == "failed" for run in runs)
    lines = log_lines(shop.live.settings)
    told = sum(f"{JOB}_failed triggered" in line for line in lines)
    again = [post for post in shop.slack.posts if AGAIN in json.dumps(post)]
    posts = len(shop.slack.posts) - len(again)
    assert told == posts == failed + 1  # the run that failed again was told again
    assert 0 < len(again) < failed  # and whoever was told of a failure, that the job works again


def test_no_log_holds_a_token(shop):
    settings = shop.live.settings
    logs = [*settings.logs.rglob("*.*"), *(settings.home / ".airflow" / "logs").rglob("*.log")]
    logs = [path for path in logs if path.is_file()]
    assert len(logs) > 20
    tokens = [read_env(settings)["RECSYS_ADMIN_TOKEN"].encode(), OTHER_TOKEN.encode()]
    for path in logs:
        content = path.read_bytes()
        assert not any(token in content for token in tokens), path


def health(shop: Shop) -> dict[str, Any]:
    with contextlib.suppress(requests.RequestException):
        return dict(requests.get(f"{shop.live.service_url}/health", timeout=5).json())
    return {}


def answers_of(shop: Shop, model_id: str) -> int:
    query = "SELECT count(*) FROM requests WHERE model_id = ?"
    with contextlib.closing(sqlite3.connect(shop.live.settings.service_db)) as connection:
        return int(connection.execute(query, (model_id,)).fetchone()[0])


@contextlib.contextmanager
def traffic(shop: Shop) -> Iterator[list[tuple[str, str]]]:
    """Users who ask one after the other all the time; who got an answer made by which model."""
    stop, answered = threading.Event(), []

    def ask() -> None:
        session = requests.Session()
        for user in itertools.cycle(str(number) for number in range(USERS)):
            if stop.is_set():
                return
            body = {"user_id": user}
            answer = session.post(f"{shop.live.service_url}/recommend", json=body, timeout=5)
            answered.append((user, answer.json()["model_id"]))
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answered
    finally:
        stop.set()
        thread.join()
