"""What /docs shows as examples is what the service answers."""

import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from fastapi.testclient import TestClient
from httpx import Response

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.settings import REPOSITORY, Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.ports import find_free_port
from tests.serving.service_process import service_in_thread
from tests.serving.shops import add_model, products

TOKEN = "a-token-for-tests"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
TOLD = yaml.safe_load((REPOSITORY / "serving" / "examples.yaml").read_text(encoding="utf-8"))
EXAMPLES = [
    (route, name, one)
    for route, told in TOLD["routes"].items()
    for name, one in told["examples"].items()
]
# Keys whose content depends on the model, or on what was asked before.
FREE = {"metrics", "hyperparameters", "fallback_methods", "endpoints", "records", "parts"}
# What needs a disk that fails, or minutes.
NOT_PROVOKED = {
    ("GET /metrics", 503),
    ("POST /reload_model", 503),
    ("POST /canary", 503),
    ("GET /canary", 503),
    ("DELETE /canary", 503),
    ("GET /users/{user_id}/export", 503),
    ("DELETE /users/{user_id}", 503),
}


class Services(NamedTuple):
    """Clients of services in different states."""

    usual: TestClient
    closed: TestClient  # no tokens, and reached from other machines
    empty: TestClient  # no model
    wordless: TestClient  # no embeddings
    busy: TestClient  # one request a minute
    slow: TestClient  # has no time for anything that takes some


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    made = Settings(tmp_path_factory.mktemp("shop"))
    make_shop(made)
    trusted = ServiceEnvironment(admin_token=TOKEN, write_tokens={TOKEN: ""})

    def client(
        environment: ServiceEnvironment = trusted,
        shop: bool = True,
        words: bool = True,
        **config: Any,
    ) -> TestClient:
        settings = Settings(tmp_path_factory.mktemp("examples") / "home")
        if shop:
            shutil.copytree(made.home, settings.home, symlinks=True)
        if not words:
            shutil.rmtree(settings.embeddings, ignore_errors=True)
        (settings.home / "config").mkdir(parents=True, exist_ok=True)
        (settings.home / "config" / "serving.yaml").write_text(yaml.safe_dump(config))
        return running.enter_context(TestClient(create_app(settings, environment)))

    with ExitStack() as running:
        yield Services(
            usual=client(),
            closed=client(ServiceEnvironment(host="0.0.0.0"), words=False),
            empty=client(shop=False),
            wordless=client(words=False),
            busy=client(words=False, requests_per_client_minute=1),
            slow=client(words=False, request_timeout_seconds=1e-9),
        )


def make_shop(settings: Settings) -> None:
    """A shop whose customers and products have the ids of the examples."""
    tried = TOLD["routes"]["POST /canary"]["examples"]["tenth"]["request"]["model_id"]
    for model_id in (tried, "als_1"):
        shown = products(name_of=str).assign(picture="https://cdn.shop.example/7.jpg")
        add_model(settings, model_id, name_of=str, select=model_id == "als_1", shop_products=shown)
    texts = ContentConfig(text_fields=("product_name", "brand"))
    embed_products(settings, texts, products(name_of=str), "v1")
    (settings.home / "config").mkdir()
    (settings.home / "config" / "rules.yaml").write_text(
        "rules:\n- name: no-shampoo\n  action: hide\n  products: {ids: ['39']}\n"
        "  author: lan\n  reason: recalled\n"
    )


def ask(client: TestClient, route: str, one: dict[str, Any], **options: Any) -> Response:
    method, path = route.split(" ")
    told = TOLD["routes"][route].get("parameters", {}) | one.get("parameters", {})
    within = {name for name in told if f"{{{name}}}" in path}
    query = {name: value for name, value in told.items() if name not in within}
    given: dict[str, Any] = {"params": query, "headers": ADMIN}
    if "request" in one:
        given["json"] = one["request"]
    return client.request(method, path.format(**told), **(given | options))


def alike(one: Any, other: Any) -> bool:
    """Whether two values have the same keys and kinds of values; of a list the first entry counts,
    and what one of them lacks (null, an empty list) may be anything in the other."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            key in FREE or alike(one[key], other[key]) for key in one
        )
    if isinstance(one, list) and isinstance(other, list):
        return not one or not other or alike(one[0], other[0])
    numbers = [isinstance(value, int | float) for value in (one, other)]
    return None in (one, other) or all(numbers) or type(one) is type(other)


@pytest.mark.parametrize(
    ("route", "name", "one"), EXAMPLES, ids=[f"{r} {n}" for r, n, _ in EXAMPLES]
)
def test_a_request_of_the_examples_is_answered_as_they_say(
    services: Services, route: str, name: str, one: dict[str, Any]
):
    status = one.get("status", 200)
    got = ask(services.empty if status == 503 else services.usual, route, one)
    assert got.status_code == status, got.text
    if "answer" not in one:
        assert not got.content
    elif isinstance(one["answer"], str):
        assert set(re.findall("# TYPE.*", one["answer"])) <= set(re.findall("# TYPE.*", got.text))
    else:
        assert alike(got.json(), one["answer"]), got.text


def documented_problems() -> list[tuple[str, int]]:
    app = create_app(Settings(Path("/nowhere")), ServiceEnvironment())
    return [
        (f"{method.upper()} {path}", int(status))
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
        for status, response in operation["responses"].items()
        if "application/problem+json" in response.get("content", {})
    ]


@pytest.mark.parametrize(
    ("route", "status"),
    [one for one in documented_problems() if one not in NOT_PROVOKED and one[1] != 408],
)
def test_a_problem_of_the_examples_is_answered_in_their_words(
    services: Services, route: str, status: int
):
    one = TOLD["routes"][route].get("problems", {}).get(status) or TOLD["problems"][status]
    got = provoked(services, route, status, one)
    assert got.status_code == status
    assert got.headers["content-type"] == "application/problem+json"
    answer = got.json()
    assert numberless(answer["detail"]) == numberless(one["detail"])
    assert answer.get("errors") == one.get("errors")


def provoked(services: Services, route: str, status: int, one: dict[str, Any]) -> Response:
    """An answer with the status, from a service in the state that the example tells of."""
    examples = TOLD["routes"][route]["examples"]
    usual = next(iter(examples.values()))
    if status == 400:
        json = {"Content-Type": "application/json"}
        return ask(services.usual, route, {}, content=b"\xff", headers=ADMIN | json)
    if status == 401:
        return ask(services.usual, route, usual, headers={})
    if status == 403:
        return ask(services.closed, route, usual)
    if status == 413:
        return ask(services.usual, route, {}, content=b" " * 1_000_001)
    if status == 429:
        ask(services.busy, route, usual)
        return ask(services.busy, route, usual)
    if status == 503:
        states = {"No": services.empty, "There": services.wordless, "The": services.slow}
        return ask(states[one["detail"].split()[0]], route, usual)
    return ask(services.usual, route, one)


def numberless(text: str) -> str:
    return re.sub(r"\d+", "N", text)


def test_a_body_that_does_not_arrive_is_answered_as_the_example_says(tmp_path: Path):
    settings, port = Settings(tmp_path), find_free_port()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "serving.yaml").write_text("request_timeout_seconds: 0.2\n")
    with (
        service_in_thread(create_app(settings, ServiceEnvironment()), port),
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
    ):
        connection.sendall(b"POST /interactions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 408 ")
    assert TOLD["problems"][408]["detail"] in answer


def test_there_is_an_example_of_every_answer_and_of_no_other():
    app = create_app(Settings(Path("/nowhere")), ServiceEnvironment())
    paths = app.openapi()["paths"]
    routes = {
        f"{method.upper()} {path}": told
        for path, ms in paths.items()
        for method, told in ms.items()
    }
    assert TOLD["routes"].keys() == routes.keys()
    for route, told in routes.items():
        for status, response in told["responses"].items():
            for content in response.get("content", {}).values():
                assert content["examples"], (route, status)
        own = TOLD["routes"][route]
        answered = {one.get("status", 200) for one in own["examples"].values()}
        assert {str(status) for status in answered | own.get("problems", {}).keys()} <= told[
            "responses"
        ].keys(), route
        assert own.get("parameters", {}).keys() == {
            one["name"] for one in told.get("parameters", [])
        }
    used = {status for _, status in documented_problems()}
    assert TOLD["problems"].keys() <= used
