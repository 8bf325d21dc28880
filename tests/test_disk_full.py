"""A disk without space, a real and small one: what fails says so, nothing is torn, and the same
work succeeds as soon as there is space again."""

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from recsys.alerting.runs import RunEvent, tell_of_run
from recsys.data.staging import append_events
from recsys.data.versions import current_version, list_versions, open_version
from recsys.database import connect
from recsys.models.artifacts import verify_artifact
from recsys.orchestration.mirror import error_line
from recsys.registry import Registry
from recsys.settings import Settings
from recsys.training.job import select_best, train_model
from tests.data.shop import published_rows, refresh, row, write_shop
from tests.live_stack import wait_for
from tests.models.shop import publish_shop, taste_interactions
from tests.serving.service_process import running_service
from tests.serving.shops import add_model
from tests.sinks import (
    MailSink,
    WebhookSink,
    webhook_sink,
    write_alerts_config,
)
from tests.test_served_lists import found as lists_found

MEGABYTES = 24
# Bytes of free space to try with: the work stops at another place each time.
STEPS = [0, *(2**power * 4096 for power in range(11))]
# A training needs some forty pages; what it writes last is small.
TRAINING_STEPS = range(0, 64 * 4096, 2 * 4096)
ALERTS = """\
language: en
email: {{smtp_server: 127.0.0.1, smtp_port: {port}, sender: a@example.com, password: null,
  recipients: [team@example.com]}}
slack: {{webhook_url: "${{SLACK_WEBHOOK_URL}}"}}
"""


class Disk:
    """A mounted tmpfs and a file that takes its space away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, leave: int = 0) -> None:
        """Leave so many bytes free."""
        self.free()
        status = os.statvfs(self.folder)
        size = status.f_bavail * status.f_frsize - leave
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this user may not mount a tmpfs: {done.stderr.strip()}")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def settings(disk: Disk) -> Settings:
    return Settings(disk.folder / "home")


@pytest.fixture
def slack(
    settings: Settings, mails: MailSink, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WebhookSink]:
    with webhook_sink() as sink:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", sink.url)
        write_alerts_config(settings, ALERTS.format(port=mails.port))
        yield sink


def failure_of(work: Callable[[], object]) -> Exception | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whatever library meets the full disk first
        return error
    return None


def assert_told(settings: Settings, job: str, error: Exception, mails: Any, slack: Any) -> None:
    """What Airflow's callback sends of a failed task leaves a machine whose disk is full."""
    before = len(mails.mails), len(slack.posts)
    line = error_line(error)
    assert line
    failure = RunEvent("task_failed", job, "manual__1", "manual", task="t", error=line)
    sent = tell_of_run(failure, settings)
    assert (sent["email"], sent["slack"]) == ("sent", "sent")
    assert (len(mails.mails), len(slack.posts)) == (before[0] + 1, before[1] + 1)
    text = mails.mails[-1].get_body(("plain",)).get_content()
    assert line in text
    assert "Disk almost full, free" in text
    assert f"0 MB ({settings.home})" in text


def leftovers(settings: Settings) -> list[Path]:
    return [path for path in settings.home.rglob("*") if path.name.endswith(".tmp")]


def test_a_refresh_publishes_all_or_nothing(settings, disk, mails, slack):
    rows = [row(f"u{n % 40}", n % 9, time=f"2025-01-{1 + n % 28:02}") for n in range(400)]
    write_shop(settings, rows)
    refresh(settings)
    first, before = current_version(settings).version_id, published_rows(settings)
    event = {"event_id": "e1", "user_id": "staged", "product_id": "3", "rating": 5}
    append_events(settings, [event | {"timestamp": "2025-02-01T00:00:00Z"}])
    write_shop(settings, [*rows, *(row(f"new{n}", n % 9, time="2025-02-02") for n in range(200))])
    failures = 0
    for free in STEPS:
        disk.fill(leave=free)
        error = failure_of(lambda: refresh(settings, force_full=True))
        if error is None:
            break
        if not failures:
            assert_told(settings, "data_refresh", error, mails, slack)
        failures += 1
        assert current_version(settings).version_id == first
        for version_id in list_versions(settings):
            open_version(settings, version_id).verify()
        assert published_rows(settings).equals(before)
        assert leftovers(settings) == []
    else:
        pytest.fail("the refresh never had enough space")
    assert failures >= 5
    disk.free()
    if current_version(settings).version_id == first:
        refresh(settings)
    current_version(settings).verify()
    users = set(published_rows(settings)["user_id"])
    assert users == {*(f"u{n}" for n in range(40)), *(f"new{n}" for n in range(200)), "staged"}
    assert leftovers(settings) == []


def test_a_training_registers_a_whole_model_or_none(settings, disk, mails, slack):
    (settings.home / "config" / "training.yaml").write_text(
        "model_types: [item_knn]\ntuning: {seconds: 60, trials: 1}\n"
    )
    version = publish_shop(settings, taste_interactions())
    served = select_best(settings, [train_model(settings, "item_knn", version)])["model_id"]
    failures = 0
    for free in TRAINING_STEPS:
        disk.fill(leave=free)
        error = failure_of(lambda: train_model(settings, "item_knn", version))
        if error is None:
            break
        if not failures:
            assert_told(settings, "model_training", error, mails, slack)
        failures += 1
        registry = Registry(settings)
        assert registry.problem() is None
        assert [entry.model_id for entry in registry.list()] == [served]
        assert registry.current_best().model_id == served
        verify_artifact(registry.folder(registry.get(served)))
        assert leftovers(settings) == []
    else:
        pytest.fail("the training never had enough space")
    assert failures >= 3
    disk.free()
    summary = train_model(settings, "item_knn", version)
    assert select_best(settings, [summary])["model_id"]
    registry = Registry(settings)
    for entry in registry.list():
        verify_artifact(registry.folder(entry))
    with contextlib.closing(connect(settings.training_db)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        found = dict(connection.execute("SELECT status, count(*) FROM training_runs GROUP BY 1"))
    # Nothing is left "running": what could not be written down then was closed afterwards.
    assert set(found) <= {"success", "failed"}
    assert found["success"] == len(registry.list())


@pytest.mark.boots
def test_the_service_answers_and_catches_up_with_its_request_log(
    settings, disk, mails, slack, free_port
):
    add_model(settings, "als_1")
    url = f"http://127.0.0.1:{free_port}"

    def recommend(user: int) -> int:
        return requests.post(f"{url}/recommend", json={"user_id": user}, timeout=10).status_code

    def buy(event_id: str) -> int:
        event = {"event_id": event_id, "user_id": event_id, "product_id": "p1", "rating": 5}
        return requests.post(f"{url}/interactions", json=event, timeout=10).status_code

    def rows(where: str) -> int:
        with contextlib.closing(sqlite3.connect(settings.service_db)) as connection:
            query = f"SELECT count(*) FROM requests WHERE {where}"
            return int(connection.execute(query).fetchone()[0])

    with running_service(settings, free_port):
        assert [recommend(user) for user in range(20)] == [200] * 20
        assert buy("before") == 200
        wait_for(lambda: rows("endpoint = 'recommend'") == 20, 15, "the first rows")
        disk.fill()
        assert {recommend(user) for user in range(60)} == {200}
        refused = [
            event_id for event_id in (f"later{n}" for n in range(40)) if buy(event_id) == 503
        ]
        wait_for(lambda: slack.posts, 40, "the alert")
        assert {recommend(user) for user in range(60)} == {200}
        [post], [mail] = slack.posts, mails.mails
        assert "disk is full" in str(post)
        assert "The request log cannot be written" in mail["Subject"]

        disk.free()
        wait_for(
            lambda: rows("endpoint = 'recommend'") == 140, 15, "the rows of the time without space"
        )
        assert requests.get(f"{url}/stats", timeout=10).json()["rows_dropped"] == 0
        assert [buy(event_id) for event_id in refused] == [200] * len(refused)
        wait_for(lambda: len(slack.posts) == 2, 30, "the notice that all is well")
    assert refused
    assert len({one.id for one in lists_found(settings)[0]}) == 140
    assert lists_found(settings)[1] == 0
    lines = (settings.logs / "service" / "recommender.log").read_text().splitlines()
    assert all(line.count(" | ") >= 3 for line in lines)
    write_shop(settings, [row("u1", 1)])
    refresh(settings, end=datetime.now(UTC) + timedelta(minutes=1))
    users = set(published_rows(settings)["user_id"])
    assert users == {"u1", "before", *(f"later{n}" for n in range(40))}
