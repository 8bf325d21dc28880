"""The OpenAPI document is true: whatever it allows is answered as it says, and nothing else is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.settings import Settings
from tests.conftest import find_free_port
from tests.serving.service_process import running_service
from tests.serving.shops import add_model, products

pytestmark = pytest.mark.boots

TOKEN = "a-token-for-tests"
# What is no schema's to say: a time in the future, a control character, another event under an id;
# a least price above the highest, a placement that the shop has not configured, who is no customer.
CONFIG = """\
[[operations]]
include-path-regex = "^/(recommend|batch_recommend|similar_items|search|bought_together)$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "5xx"]

[[operations]]
include-path = "/rules/preview"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "5xx"]

[[operations]]
include-path-regex = "^/users/"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "5xx"]

[[operations]]
include-path = "/interactions"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429", "5xx"]
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(tmp_path_factory.mktemp("openapi"))
    add_model(settings, "als_1")
    words = ContentConfig(text_fields=("product_name", "brand"))
    embed_products(settings, words, products(), "v1")
    port = find_free_port()
    with running_service(
        settings,
        port,
        token=TOKEN,
        write_token=TOKEN,
        max_topk=50,
        max_events_of_user_per_day=0,
        max_events_of_product_per_day=0,
    ):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(url: str, tmp_path: Path):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = ["schemathesis", "run", f"{url}/openapi.json", "--checks", "all"]
    options = ["-n", "25", "--generation-deterministic", "--no-color"]
    # An export is a process of its own, which takes seconds; its parameters are those of a DELETE.
    options += ["--exclude-path", "/users/{user_id}/export"]
    done = subprocess.run(
        [*command, *options, "-H", f"Authorization: Bearer {TOKEN}"],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 20" in done.stdout


def test_every_operation_says_what_it_is_for_and_how_it_fails(url: str):
    document = requests.get(f"{url}/openapi.json", timeout=20).json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            assert "503" in operation["responses"], path
    schemas = document["components"]["schemas"]
    lists = ("Recommend", "Batch", "Similar", "Together", "Search")
    for name in (f"{one}Request" for one in lists):
        assert schemas[name]["properties"]["topk"]["maximum"] == 50
    assert "Problem" in schemas


@pytest.mark.parametrize(("topk", "status"), [(50, 200), (51, 422), (50.0, 200), ("50", 422)])
def test_as_many_recommendations_may_be_asked_for_as_the_document_says(
    url: str, topk: object, status: int
):
    body = {"user_id": 1.0, "topk": topk}
    answer = requests.post(f"{url}/recommend", json=body, timeout=20)
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["user_id"] == 1
