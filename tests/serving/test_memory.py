"""A worker never carries what only training and reading tables need."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.models.hybrid import Hybrid
from recsys.settings import REPOSITORY, Settings
from tests.serving.service_process import running_service
from tests.serving.shops import ITEMS, add_model, histories, products

pytestmark = pytest.mark.boots

HEAVY = {"pandas", "pyarrow", "scipy", "implicit", "torch", "airflow"}
ADMIN = {"Authorization": "Bearer tok"}
ASKED: list[tuple[str, dict]] = [
    ("/recommend", {"user_id": 1}),
    ("/recommend", {"user_id": 1, "brands": ["dep"], "min_price": 5000, "max_price": 30000}),
    ("/recommend", {"user_id": "nobody", "categories": ["Tóc"]}),
    ("/recommend", {"user_id": "nobody", "history": ["p3"], "exclude": ["p4"]}),
    ("/recommend", {"user_id": 0, "exclude_seen": False}),
    ("/batch_recommend", {"user_ids": [0, 1, "nobody"]}),
    ("/similar_items", {"product_id": "p3"}),
    ("/search", {"query": "dầu gội", "brands": ["Sạch"]}),
    (
        "/interactions",
        {"events": [{"event_id": "e", "user_id": 5, "product_id": "p3", "rating": 5}]},
    ),
    ("/recommend", {"user_id": 5}),
]
SHOWN = ("/health", "/model_info", "/stats", "/metrics", "/demo", "/docs", "/openapi.json")


def test_no_request_and_no_reload_brings_heavy_libraries_into_a_worker(
    settings: Settings, free_port: int
):
    add_model(settings, "als_1")
    add_model(settings, "hybrid_1", model=blend(), select=False)
    words = ContentConfig(text_fields=("product_name", "brand"))
    embed_products(settings, words, products(), "v1")
    address = f"http://127.0.0.1:{free_port}"
    with running_service(settings, free_port, workers=2, catalogue_check_seconds=0.2):
        ask_everything(address)
        for model_id in ("hybrid_1", "als_1", "hybrid_1"):
            answer = requests.post(
                f"{address}/reload_model", json={"model_id": model_id}, headers=ADMIN, timeout=60
            )
            assert answer.status_code == 200, answer.text
            ask_everything(address)
        publish(settings)
        wait_for_catalogue(address, "v_newer")
        ask_everything(address)
        parent, *workers = (libraries_of(one) for one in service_processes(free_port))
        assert len(workers) == 2
        assert parent & HEAVY == set()
        for libraries in workers:
            assert "numpy" in libraries
            assert libraries & HEAVY == set()


def test_what_a_worker_does_now_and_then_needs_no_heavy_libraries():
    """Its alerts and its watch on the health reports, which come every five minutes."""
    program = (
        "import sys, serving.worker\n"
        "from recsys.alerting import AlertManager\n"
        "from recsys.health import watch_reports\n"
        f"print(*{HEAVY!r} & set(sys.modules))"
    )
    path = f"{REPOSITORY}:{REPOSITORY / 'include'}"
    output = subprocess.check_output(
        [sys.executable, "-c", program], env={"PYTHONPATH": path}, text=True
    )
    assert output.split() == []


def blend() -> Hybrid:
    """A hybrid that uses all its components and text."""
    vectors = np.eye(ITEMS, 6, dtype=np.float32)
    model = Hybrid.create({"weights": {"content": 0.3}, "als": {"factors": 2, "starts": 1}})
    return model.use_content(vectors).fit(histories(), ITEMS)


def ask_everything(address: str) -> None:
    # Twice: with two workers each of them most likely gets its turn.
    for path, body in ASKED * 2:
        answer = requests.post(f"{address}{path}", json=body, timeout=20)
        assert answer.status_code == 200, (path, answer.text)
        if path not in ("/interactions", "/batch_recommend"):
            assert answer.json()["recommendations"], (path, body)
    for path in SHOWN * 2:
        assert requests.get(f"{address}{path}", timeout=20).status_code == 200, path


def publish(settings: Settings) -> None:
    """A newer catalogue, written before there were shown products: the table has to be read."""
    folder = settings.versions / "v_newer"
    folder.mkdir(parents=True)
    products(unavailable=(9,)).to_parquet(folder / "products.parquet")
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, "files": {}}))
    settings.processed.symlink_to("versions/v_newer")


def wait_for_catalogue(address: str, version: str) -> None:
    """Until each of many answers says so: then all workers have it."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        seen = {
            requests.get(f"{address}/model_info", timeout=20).json()["catalogue_version"]
            for _ in range(20)
        }
        if seen == {version}:
            return
        time.sleep(0.1)
    raise AssertionError(f"the workers do not take over {version}")


def service_processes(port: int) -> list[psutil.Process]:
    """The parent and its workers."""
    [parent] = [
        child
        for child in psutil.Process().children()
        if child.environ().get("RECSYS_SERVICE_PORT") == str(port)
    ]
    return [parent, *parent.children()]


def libraries_of(process: psutil.Process) -> set[str]:
    """The Python packages whose compiled modules the process has mapped."""
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    return set(re.findall(r"/site-packages/([^/\s]+)/", maps))
