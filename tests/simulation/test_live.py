"""Simulated customers of a running service, over HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest
import requests

from recsys import schema
from recsys.data.sample import write_sample_shop
from recsys.data.simulated import read_note
from recsys.data.staging import open_segments, sealed_segments, segment_lines
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.models.artifacts import save_artifact
from recsys.models.item_knn import ItemKnn
from recsys.registry import Registry
from recsys.settings import Settings
from recsys.simulation.job import simulate_now
from recsys.simulation.live import TrafficError
from tests.data.shop import refresh, row, write_shop
from tests.ports import find_free_port
from tests.serving.service_process import running_service

pytestmark = pytest.mark.boots

TOKEN = "a-token-of-the-front-end"


def deploy_item_knn(settings: Settings) -> None:
    """A model of the published version, as the current best."""
    version = current_version(settings)
    protocol = read_leave_one_out(version)
    known, items = protocol.everything, protocol.item_ids
    model = ItemKnn().fit(known, len(items))
    metrics = {"recall_at_10": 0.1, "recall_at_10_low": 0.1}
    save_artifact(
        settings.artifacts / "item_knn" / "item_knn_1",
        model=model,
        item_ids=list(items),
        user_ids=protocol.user_ids,
        histories=known,
        popularity=np.bincount(known.items, minlength=len(items)).astype(np.float32),
        products=version.products(),
        manifest={
            "model_id": "item_knn_1",
            "data_version": version.version_id,
            "metrics": metrics,
            "sample_users": protocol.user_ids[:3],
        },
    )
    registry = Registry(settings)
    registry.register(
        "item_knn_1",
        data_version=version.version_id,
        model_type="item_knn",
        hyperparameters={},
        metrics=metrics,
        baseline_comparison={"passes": True, "baseline_recall_at_10": 0.05},
        training_info={},
    )
    registry.select_best(version.version_id, selected_by="test")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, dict[str, str]]]:
    """A sample shop with a service that wants a token, and the variables that lead to it."""
    settings, port = Settings(tmp_path_factory.mktemp("live")), find_free_port()
    write_sample_shop(settings, reviews=1_500, products=96)
    refresh(settings, end=datetime.now(UTC))
    deploy_item_knn(settings)
    url = f"http://127.0.0.1:{port}"
    with running_service(settings, port, write_token=TOKEN):
        yield settings, {"RECSYS_SERVICE_URL": url, "RECSYS_WRITE_TOKEN": TOKEN}


def staged(settings: Settings) -> list[dict[str, str]]:
    folders = (open_segments(settings), sealed_segments(settings))
    paths = [path for folder in folders for path in folder.glob("*")]
    return [json.loads(line) for path in paths for line in segment_lines(path)]


def test_customers_are_shown_lists_and_what_they_do_is_stored(shop):
    settings, variables = shop
    lines: list[str] = []
    done = simulate_now(settings, variables, seconds=7, rate=100, seed=0, tell=lines.append)
    assert done["lists"] > 300
    assert done["events"] > 2
    assert done["refused"] == 0
    assert done["events"] == sum(done[kind] for kind in schema.Kind)
    assert any("lists (" in line for line in lines)

    events = staged(settings)
    assert len(events) == done["events"]
    known = set(current_version(settings).user_metadata()[schema.USER])
    for event in events:
        assert event["event_id"].startswith(f"sim-{event['recommendation_id']}")
        assert UUID(event["recommendation_id"]).version == 7
        assert event["session_id"].startswith("sim-")
        assert event["placement"] in ("home", "product", "cart")
        user = event["user_id"]
        assert user == "" or user in known or user.startswith("sim-")
    assert {event["user_id"] for event in events} & known
    metrics = requests.get(f"{variables['RECSYS_SERVICE_URL']}/metrics", timeout=20).text
    beside_carts = r'requests_total\{endpoint="/bought_together",status="(...)"\} (\d+)'
    counted = re.findall(beside_carts, metrics)
    assert {status: int(count) > 0 for status, count in counted}["2xx"]
    assert {status for status, count in counted if count != "0"} == {"2xx"}
    note = read_note(settings)
    assert (note.lists, note.events) == (done["lists"], done["events"])


def test_ctrl_c_ends_it_with_a_summary(shop):
    settings, variables = shop
    before = read_note(settings) or None
    # What a background job of a shell starts does not hear of Ctrl-C, unless it asks for it.
    program = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('recsys', run_name='__main__')"
    )
    command = ["simulate-traffic", "--minutes", "2", "--rate", "30"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command],
        env=os.environ | variables | {"RECSYS_HOME": str(settings.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "lists (" in line and not line.startswith("0 lists"):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "stopped by hand" in said
    done = json.loads(out)
    assert 0 < done["lists"] < 3_000
    assert read_note(settings).lists == (before.lists if before else 0) + done["lists"]


def test_without_the_token_it_says_which_one_is_missing(shop):
    settings, variables = shop
    address = {"RECSYS_SERVICE_URL": variables["RECSYS_SERVICE_URL"]}
    with pytest.raises(TrafficError, match="wants a token, the one in RECSYS_WRITE_TOKEN"):
        simulate_now(settings, address, seconds=20, rate=100, seed=0, tell=print)


def test_without_a_service_it_says_how_to_start_it(shop):
    settings, _ = shop
    nowhere = {"RECSYS_SERVICE_URL": f"http://127.0.0.1:{find_free_port()}"}
    with pytest.raises(TrafficError, match=r"there is no service at .* start it with `make up`"):
        simulate_now(settings, nowhere, seconds=1, rate=1, seed=0, tell=print)


def test_a_service_of_another_shop_is_refused(shop, settings):
    """The own version is of a sample, and the service at the address is not of this state root."""
    _, variables = shop
    write_sample_shop(settings, reviews=400, products=60)
    refresh(settings, end=datetime.now(UTC))
    with pytest.raises(InputError, match="there is no data version of this name"):
        simulate_now(settings, variables, seconds=1, rate=1, seed=0, tell=print)
    write_shop(settings, [row("u1", "1"), row("u2", "2")])
    with pytest.raises(InputError, match="is not what `sample-data` wrote"):
        simulate_now(settings, variables, seconds=1, rate=1, seed=0, tell=print)
