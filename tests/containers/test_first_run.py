"""The first start, as docs/production.md says: from an empty volume to lists."""

import io
import json
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import requests

from recsys.data.sample import write_sample_shop
from recsys.settings import Settings
from tests.containers.engine import wait_for
from tests.containers.stack import (
    AIRFLOW,
    READY_SECONDS,
    RECIPIENT,
    WELL_SECONDS,
    Containers,
    ask_within,
    status,
)

REVIEWS = 6000
WATCHING = ("exporter", "prometheus", "alertmanager")
CHAIN = ("bert_embeddings", "model_training", "model_deployment")


def first_run(containers: Containers) -> None:
    """Raw files go in, and one command does the rest."""
    containers.wait_until_well(WELL_SECONDS, "postgres", "valkey", *AIRFLOW, "proxy")
    with TemporaryDirectory() as folder:
        shop = Settings(Path(folder))
        write_sample_shop(shop.raw / "viecomrec", reviews=REVIEWS)
        command = ("exec", "-T", "worker", "tar", "-x", "-C", "/state/data/raw")
        containers.compose(*command, input=_tar(shop.raw))
    containers.recsys("up")
    containers.wait_until_well(60, "service-1", "service-2")


def _tar(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return packed.getvalue()


def test_a_service_without_a_model_is_unhealthy_and_everything_else_is_well(started: Containers):
    others = ("postgres", "valkey", "proxy", "mail", *WATCHING)
    started.wait_until_well(WELL_SECONDS, *AIRFLOW, *others)
    assert started.recommend().status_code == 503


def test_one_command_makes_both_replicas_recommend(serving: Containers):
    for _ in range(4):
        answer = serving.recommend()
        assert answer.status_code == 200
        assert answer.json()["recommendations"]
    assert ask_within(serving, "service-1") == ask_within(serving, "service-2")


def test_no_job_of_the_chain_ran_twice_and_none_failed(serving: Containers):
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    runs = {job: list(serving.client.runs_since(job, long_ago)) for job in serving.client.dags()}
    assert {job: len(runs[job]) for job in CHAIN} == dict.fromkeys(CHAIN, 1)
    assert not [
        run["dag_run_id"] for some in runs.values() for run in some if run["state"] == "failed"
    ]


def test_a_refresh_ends_well_after_the_first_interaction(serving: Containers):
    """It archives events below data/raw, which must not be root's."""
    body = {"event_id": "first", "user_id": "1", "product_id": "7", "rating": 5}
    token = {"Authorization": f"Bearer {serving.variables['RECSYS_WRITE_TOKEN']}"}
    sent = requests.post(f"{serving.url}/interactions", json=body, headers=token, timeout=10)
    assert sent.status_code in (200, 202), sent.text
    result = json.loads(serving.recsys("data-refresh"))
    assert result["state"] == "success"
    # Links lead to where people find the UI, not to a name in the containers' network.
    assert result["url"].startswith(f"http://127.0.0.1:{serving.ports['AIRFLOW_PORT']}/dags/")
    assert requests.get(result["url"], timeout=10).status_code == 200


def test_the_outcomes_of_what_was_recommended_are_counted(serving: Containers):
    def lists() -> int:
        result = json.loads(serving.recsys("outcomes"))
        assert result["state"] == "success"
        return int(result["summary"]["report"]["lists"])

    assert serving.recommend().status_code == 200
    wait_for(lists, 240, "the first lists are counted")


def test_alerts_reach_the_mail_catcher(serving: Containers):
    serving.recsys("alerts", "test", "--severity", "warning")

    def told() -> list[dict[str, Any]]:
        return [mail for mail in serving.mails() if "Cảnh báo thử" in mail["Subject"]]

    mails = wait_for(told, 30, "a mail")
    assert mails[0]["To"][0]["Address"] == RECIPIENT


def test_a_service_with_a_model_is_ready_after_seconds_of_work(serving: Containers):
    """Counted in seconds of a core: a busy machine fails no test."""
    serving.compose("restart", "--no-deps", "service-2")
    (container,) = serving.containers("service-2")
    address = serving.address("service-2")
    wait_for(lambda: status(f"http://{address}:8000") == 200, 120, "the service is ready")
    process = psutil.Process(container["State"]["Pid"])
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    work = sum(one.user + one.system for one in times)
    seconds = time.time() - process.create_time()
    print(f"the service was ready after {seconds:.1f} s, {work:.1f} s of a core")
    assert work <= READY_SECONDS
    serving.wait_until_well(WELL_SECONDS, "service-2")
