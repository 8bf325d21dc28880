"""What the images are made of."""

import json
import time

import pytest
import requests

from tests.containers.engine import EngineError, wait_for
from tests.containers.stack import VERSION, Containers
from tests.ports import find_free_port

MOST_BYTES = {"service": 1.2e9, "airflow": 2.0e9}
READY_SECONDS = 5
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys, serving
for module in pkgutil.walk_packages(serving.__path__, "serving."):
    importlib.import_module(module.name)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("target", MOST_BYTES)
def test_an_image_is_lean(images: Containers, target: str):
    size = images.engine.images()[f"recsys-{target}:{VERSION}"]["size"]
    print(f"{target}: {size / 1e9:.2f} GB")
    assert size <= MOST_BYTES[target]


def test_the_service_has_neither_airflow_nor_torch(images: Containers):
    def python(code: str) -> str:
        image = f"recsys-service:{VERSION}"
        return images.engine.docker("run", "--rm", "--read-only", image, "python", "-c", code)

    imported = set(json.loads(python(IMPORT_EVERYTHING)))
    assert {"fastapi", "numpy", "serving", "recsys"} <= imported
    for name in ("airflow", "torch", "sqlalchemy", "sklearn"):
        with pytest.raises(EngineError, match=f"No module named '{name}'"):
            python(f"import {name}")


def test_the_service_listens_within_seconds(images: Containers):
    """Without a model it answers 503; with one it must read that as well, see test_first_run."""
    port = find_free_port()
    options = ("--detach", "--read-only", "--tmpfs", "/tmp", "--publish", f"127.0.0.1:{port}:8000")
    host = ("--env", "RECSYS_SERVICE_HOST=0.0.0.0")
    began = time.monotonic()
    name = images.engine.docker("run", *options, *host, f"recsys-service:{VERSION}").strip()
    try:
        assert wait_for(lambda: _status(port), READY_SECONDS, "an answer") == 503
        print(f"the service answered after {time.monotonic() - began:.1f} s")
    finally:
        images.engine.docker("rm", "--force", "--volumes", name)


def _status(port: int) -> int | None:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code
    except requests.ConnectionError:
        return None
