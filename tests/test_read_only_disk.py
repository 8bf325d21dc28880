"""A disk that became read-only, a real one: customers get their lists, and people are told."""

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests

from recsys.settings import Settings
from tests.data.shop import published_rows, refresh, row, write_shop
from tests.live_stack import wait_for
from tests.serving.service_process import running_service
from tests.serving.shops import add_model
from tests.sinks import write_alerts_config
from tests.test_disk_full import ALERTS
from tests.test_served_lists import found

FOLDERS = ["logs", "data"]


@pytest.fixture
def mend(settings: Settings, mails, slack, monkeypatch) -> Iterator[Callable[[], None]]:
    """A state root whose logs and data are read-only until this is called."""
    add_model(settings, "als_1")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)
    write_alerts_config(settings, ALERTS.format(port=mails.port))
    mounted: list[str] = []

    def mount(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)

    def remount(how: str) -> None:
        for path in mounted:
            assert mount("-o", f"remount,{how},bind", path).returncode == 0

    for name in FOLDERS:
        path = str(settings.home / name)
        (settings.home / name).mkdir(exist_ok=True)
        done = mount("--bind", path, path)
        if done.returncode != 0:
            pytest.skip(f"this user may not mount a folder: {done.stderr.strip()}")
        mounted.append(path)
    remount("ro")
    yield lambda: remount("rw")
    for path in mounted:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.boots
def test_a_service_starts_on_a_read_only_disk_and_takes_events_when_it_is_mended(
    settings, mend, mails, slack, free_port
):
    url = f"http://127.0.0.1:{free_port}"

    def recommend(user: int | str) -> int:
        return requests.post(f"{url}/recommend", json={"user_id": user}, timeout=10).status_code

    def buy() -> int:
        event = {"event_id": "e1", "user_id": "new", "product_id": "p1", "rating": 5}
        return requests.post(f"{url}/interactions", json=event, timeout=10).status_code

    def rows() -> int:
        with contextlib.closing(sqlite3.connect(settings.service_db)) as connection:
            found = connection.execute("SELECT count(*) FROM requests WHERE user_id IS NOT NULL")
            return int(found.fetchone()[0])

    with running_service(settings, free_port) as output:
        assert {recommend(user) for user in (1, 2, "new")} == {200}
        assert buy() == 503
        wait_for(lambda: slack.posts, 40, "the alert")
        assert "The request log cannot be written" in mails.mails[0]["Subject"]
        assert "--- Logging error ---" not in output.read_text()
        mend()
        assert buy() == 200
        assert recommend("new") == 200
        wait_for(settings.service_db.is_file, 20, "the database of requests")
        wait_for(lambda: rows() >= 4, 20, "the rows of the time without a disk")
    lists, lost = found(settings)
    assert ([one.user_id for one in lists], lost) == (["1", "2", "new", "new"], 0)
    write_shop(settings, [row("u1", 1)])
    refresh(settings, end=datetime.now(UTC) + timedelta(minutes=1))
    assert set(published_rows(settings)["user_id"]) == {"u1", "new"}
