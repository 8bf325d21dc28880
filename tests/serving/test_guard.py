"""Who may do what, and what nobody may do."""

import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect

from recsys.publishing import write_text
from recsys.settings import REPOSITORY, Settings
from serving import engine
from serving.app import create_app
from serving.config import ServiceEnvironment, read_environment
from serving.routes import administration, customers, rules
from serving.routes.administration import require_admin
from tests.serving.conftest import TOKEN
from tests.serving.service_process import running_service
from tests.serving.shops import ITEMS, USERS, add_model

ORIGIN = {"Origin": "https://shop.example"}

PUBLIC_WRITES = {
    "/recommend",
    "/batch_recommend",
    "/similar_items",
    "/bought_together",
    "/search",
    "/interactions",
    "/demo/customer",  # writes nothing; of real customers for the bearer of the admin token alone
}
INJECTIONS = [
    "' OR 1=1 --",
    "1; DROP TABLE requests",
    "../../../etc/passwd",
    "/etc/passwd",
    "%2e%2e%2f",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "\x00",
    "\u202e\u0000\ufeff",
    "đỏ 🧴 \U0001f9f4",
    "a" * 128,
    "-1",
    "9" * 128,
    "NaN",
    "null",
    "\r\nX-Injected: 1",
]


def all_dependencies(dependant: Dependant) -> set[object]:
    found = {dependant.call}
    for inner in dependant.dependencies:
        found |= all_dependencies(inner)
    return found


def admin_routes() -> list[APIRoute]:
    routers = (administration.router, customers.router, rules.router)
    routes = [route for router in routers for route in router.routes]
    return [route for route in routes if isinstance(route, APIRoute)]


def test_every_admin_route_has_the_auth_dependency():
    routes = admin_routes()
    assert {route.path for route in routes} >= {"/reload_model", "/rules/preview"}
    for route in routes:
        assert require_admin in all_dependencies(route.dependant), route.path


def test_every_route_that_writes_is_an_admin_route_or_known_to_be_public(settings: Settings):
    document = create_app(settings, ServiceEnvironment()).openapi()
    writes = {
        path
        for path, operations in document["paths"].items()
        if set(operations) - {"get", "head", "options"}
    }
    admin = {route.path_format for route in admin_routes()}
    assert writes == PUBLIC_WRITES | (admin & writes)
    for path in admin:
        for operation in document["paths"][path].values():
            assert operation["security"] == [{"HTTPBearer": []}]


def test_every_admin_route_refuses_without_a_configured_token(settings: Settings):
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        for route in admin_routes():
            for method in route.methods:
                assert client.request(method, route.path, json={}).status_code == 403


@pytest.mark.parametrize("text", INJECTIONS)
def test_hostile_ids_are_ids_or_bad_requests(shared_client: TestClient, text: str):
    bodies = {
        "/recommend": {"user_id": text, "history": [text], "exclude": [text], "brands": [text]},
        "/batch_recommend": {"user_ids": [text]},
        "/similar_items": {"product_id": text},
        "/bought_together": {"product_ids": [text, "p1"], "exclude": [text], "user_id": text},
        "/search": {"query": text},
        "/interactions": {"event_id": text, "user_id": text, "product_id": text, "rating": 5},
    }
    for path, body in bodies.items():
        answer = shared_client.post(path, json=body)
        assert answer.status_code in (200, 404, 422, 503), path
        assert answer.status_code != 503 or path == "/search"
        assert "x-injected" not in answer.headers


def test_text_that_is_no_text_is_a_bad_request(shared_client: TestClient):
    for raw in (
        b'{"user_id": "\\ud800"}',
        b'{"user_id": "\xff"}',
        b"\x00",
        b"{" * 5000,
        b"[" * 9999,
    ):
        answer = shared_client.post(
            "/recommend", content=raw, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422)
        assert len(answer.json()["detail"]) > 10


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=200)
ANYTHING = st.recursive(
    PLAIN | st.sampled_from(INJECTIONS),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=20,
)
VALID_BODIES = {
    "/recommend": {"user_id": 1, "topk": 3, "history": ["p1"], "brands": ["A"], "min_price": 1},
    "/batch_recommend": {"user_ids": [1, "x"], "topk": 3, "exclude": ["p1"]},
    "/similar_items": {"product_id": "p1", "topk": 3, "max_price": 9000},
    "/bought_together": {"product_ids": ["p1", 2], "topk": 3, "exclude": ["p9"]},
    "/search": {"query": "son", "topk": 3},
    "/interactions": {"event_id": "e", "user_id": 1, "product_id": "p1", "rating": 5},
    "/reload_model": {"model_id": "als_1"},
    "/canary": {"model_id": "als_1", "share": 0.1},
}


@st.composite
def fuzzed_bodies(draw: st.DrawFn, path: str) -> bytes:
    """A valid body with a value replaced, a key added or bytes cut out; or anything at all."""
    body = dict(VALID_BODIES[path])
    kind = draw(st.sampled_from(["value", "key", "bytes", "anything", "raw"]))
    if kind == "raw":
        return draw(st.binary(max_size=300))
    if kind == "anything":
        return json.dumps(draw(ANYTHING)).encode()
    if kind == "key":
        body[draw(st.text(max_size=20))] = draw(ANYTHING)
    if kind == "value":
        body[draw(st.sampled_from(sorted(body)))] = draw(ANYTHING)
    content = json.dumps(body).encode()
    if kind == "bytes":
        at = draw(st.integers(0, len(content) - 1))
        content = content[:at] + draw(st.binary(max_size=4)) + content[at + 1 :]
    return content


@pytest.mark.parametrize("path", VALID_BODIES)
@hypothesis_settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_a_fuzzed_body_is_answered_or_refused_with_a_sentence(
    shared_client: TestClient, admin: dict[str, str], path: str, data: st.DataObject
):
    content = data.draw(fuzzed_bodies(path))
    answer = shared_client.post(
        path, content=content, headers={"Content-Type": "application/json", **admin}
    )
    # Without embeddings every search that could be answered is a documented 503.
    assert answer.status_code in ({200, 503} if path == "/search" else {200}) | {400, 404, 409, 422}
    if answer.status_code != 200:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["status"] == answer.status_code
        assert re.fullmatch(r"(?s)[A-Z]\w+ \w+ .+", problem["detail"])
    if path == "/canary":
        shared_client.delete("/canary", headers=admin)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_ten_megabytes_is_refused(shared_client: TestClient, chunked: bool):
    text = b'{"user_id": "' + b"x" * 10_000_000 + b'"}'
    content = iter([text[:5_000_000], text[5_000_000:]]) if chunked else text
    answer = shared_client.post(
        "/recommend", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert "1000000 bytes" in answer.json()["detail"]


def with_config(settings: Settings, text: str) -> TestClient:
    (settings.home / "config").mkdir(parents=True, exist_ok=True)
    (settings.home / "config" / "serving.yaml").write_text(text)
    return TestClient(create_app(settings, ServiceEnvironment()))


def test_a_client_has_its_share_of_requests(settings: Settings):
    add_model(settings, "als_1")
    with with_config(settings, "requests_per_client_minute: 5\n") as client:
        found = [client.get("/model_info").status_code for _ in range(8)]
        assert found == [200] * 5 + [429] * 3
        assert "5 requests a minute" in client.get("/model_info").json()["detail"]


def test_who_watches_and_deploys_has_an_allowance_beside_that_of_the_shop(settings: Settings):
    add_model(settings, "als_1")
    with with_config(settings, "requests_per_client_minute: 5\n") as client:
        asked = [client.post("/recommend", json={"user_id": 1}).status_code for _ in range(6)]
        assert asked == [200] * 5 + [429]
        assert client.get("/health").status_code == 200
        assert client.head("/health").status_code == 200
        assert client.get("/metrics").status_code == 200
        assert client.post("/reload_model").status_code == 403
        # An allowance, not freedom.
        assert [client.get("/health").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("203.0.113.9", "203.0.113.10", False),
    ],
)
def test_a_customer_with_a_network_of_addresses_is_one_client(
    settings: Settings, one: str, other: str, together: bool
):
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "serving.yaml").write_text("requests_per_client_minute: 1\n")
    app = create_app(settings, ServiceEnvironment())
    with TestClient(app, client=(one, 1)) as client:
        assert client.get("/demo").status_code == 200
    found = TestClient(app, client=(other, 1)).get("/demo").status_code
    assert found == (429 if together else 200)


def test_a_client_may_send_so_many_bytes_a_minute(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serving.app.MAX_CLIENT_BYTES_MINUTE", 10_000)
    body = {"user_id": 1, "exclude": ["x" * 100] * 40}
    with with_config(settings, "") as client:
        found = [client.post("/search", json=body).status_code for _ in range(4)]
        chunks = [b" " * 4000]
        chunked = client.post("/search", content=iter(chunks), headers={"Content-Type": "text/x"})
    assert found == [422, 422, 422, 429]
    assert chunked.status_code == 429


@pytest.mark.parametrize("path", ["/health", "/metrics", "/demo", "/model_info", "/nowhere"])
def test_head_is_answered_like_get_without_the_body(shared_client: TestClient, path: str):
    got, head = shared_client.get(path), shared_client.head(path)
    assert head.status_code == got.status_code
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.content == b""


def test_a_path_names_all_methods_that_it_answers_to(shared_client: TestClient):
    for path, method, allowed in (
        ("/recommend", "GET", "POST"),
        ("/recommend", "HEAD", "POST"),
        ("/canary", "PUT", "DELETE, GET, HEAD, POST"),
        ("/health", "POST", "GET, HEAD"),
    ):
        answer = shared_client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_pages_for_people_load_nothing_from_elsewhere(shared_client: TestClient):
    for page, others in (("/docs", ["/docs/docs.js", "/demo/demo.css"]), ("/demo", [])):
        answer = shared_client.get(page)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert ("img-src https:" in policy) is (page == "/demo")  # pictures of the shop's products
        named = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
        assert all(name[0] == "/" or name == "data:," for name in named)
        assert set(others) <= set(named)
        for name in named:
            assert name == "data:," or shared_client.get(name).status_code == 200
    assert shared_client.get("/redoc").status_code == 404


PROXY, OUTER_PROXY, SHOPPER, OTHER = "10.0.0.5", "10.0.0.6", "203.0.113.9", "2001:db8::7"


@pytest.mark.parametrize(
    ("connection", "headers", "client"),
    [
        (SHOPPER, [], SHOPPER),
        (SHOPPER, [OTHER], SHOPPER),  # not a proxy: what it says does not count
        (PROXY, [], PROXY),
        (PROXY, [SHOPPER], SHOPPER),
        (PROXY, [OTHER], OTHER),
        (PROXY, [f"1.2.3.4, {SHOPPER}"], SHOPPER),  # the shopper made 1.2.3.4 up
        (PROXY, [f"{SHOPPER}, {OUTER_PROXY}"], SHOPPER),
        (PROXY, [f"1.2.3.4, {SHOPPER}, {OUTER_PROXY}"], SHOPPER),
        (PROXY, ["1.2.3.4", SHOPPER], SHOPPER),
    ],
)
def test_a_client_is_the_nearest_address_that_is_no_trusted_proxy(
    settings: Settings, connection: str, headers: list[str], client: str
):
    """The limit is used up by the client itself, then asked for in its name."""
    folder = settings.home / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serving.yaml").write_text("requests_per_client_minute: 2\n")
    environment = read_environment({"RECSYS_SERVICE_TRUSTED_PROXIES": "10.0.0.0/29, 192.0.2.1"})
    app = create_app(settings, environment)
    with TestClient(app, client=(client, 1)) as itself:
        for _ in range(2):
            itself.get("/demo")
        forwarded = [("X-Forwarded-For", value) for value in headers]
        through = TestClient(app, client=(connection, 1))
        assert through.get("/demo", headers=forwarded).status_code == 429
        unknown = TestClient(app, client=("198.51.100.1", 1))
        assert unknown.get("/demo", headers=forwarded).status_code != 429


def test_nobody_is_trusted_to_name_clients_unless_configured(settings: Settings):
    with with_config(settings, "requests_per_client_minute: 2\n") as client:
        for number in range(3):
            answer = client.get("/model_info", headers={"X-Forwarded-For": f"203.0.113.{number}"})
        assert answer.status_code == 429


def test_a_slow_answer_is_given_up(settings: Settings):
    add_model(settings, "als_1")
    rules = "allowed_origins: ['https://shop.example']\nrequest_timeout_seconds: 0.002\n"
    asked = {"user_ids": [number % USERS for number in range(1000)], "topk": ITEMS}
    with with_config(settings, rules) as client:
        answer = client.post("/batch_recommend", json=asked, headers=ORIGIN)
        assert answer.status_code == 503
        assert "too long" in answer.json()["detail"]
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        assert client.app.state.service.engine.model_id == "als_1"


def test_loading_a_model_may_take_longer_than_a_request(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, admin: dict[str, str]
):
    add_model(settings, "als_1")
    add_model(settings, "als_2")
    environment = ServiceEnvironment(admin_token=TOKEN)
    write_text(settings.home / "config" / "serving.yaml", "request_timeout_seconds: 0.2\n")
    with TestClient(create_app(settings, environment)) as client:
        load = engine.load_snapshot

        def slowly(*arguments: Any, **options: Any) -> Any:
            time.sleep(0.6)
            return load(*arguments, **options)

        monkeypatch.setattr(engine, "load_snapshot", slowly)
        answer = client.post("/reload_model", json={"model_id": "als_2"}, headers=admin)
        assert answer.status_code == 200
        assert client.get("/health").json()["model_id"] == "als_2"


def test_cors_is_off_by_default_and_limited_to_configured_origins(settings: Settings):
    origin = {"Origin": "https://shop.example"}
    with with_config(settings, "") as client:
        assert "access-control-allow-origin" not in client.get("/health", headers=origin).headers
    with with_config(settings, "allowed_origins: ['https://shop.example']\n") as client:
        headers = client.get("/health", headers=origin).headers
        assert headers["access-control-allow-origin"] == "https://shop.example"
        other = client.get("/health", headers={"Origin": "https://evil.example"}).headers
        assert "access-control-allow-origin" not in other


def test_a_page_of_an_allowed_origin_can_read_why_a_list_was_refused(settings: Settings):
    rules = "allowed_origins: ['https://shop.example']\nmax_topk: 10\nmax_body_bytes: 1000\n"
    rules += "requests_per_client_minute: 3\n"
    headers = {**ORIGIN, "Content-Type": "application/json"}
    add_model(settings, "als_1")
    with with_config(settings, rules) as client:
        long = client.post("/recommend", json={"user_id": 1, "topk": 11}, headers=headers)
        large = client.post("/recommend", content=iter([b" " * 600] * 2), headers=headers)
        larger = client.post("/recommend", content=b" " * 1001, headers=headers)
        many = client.post("/recommend", json={"user_id": 1}, headers=headers)
    for answer, status in ((long, 422), (large, 413), (larger, 413), (many, 429)):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["access-control-allow-origin"] == ORIGIN["Origin"]
    assert many.headers["access-control-expose-headers"] == "Retry-After"
    assert int(many.headers["retry-after"]) > 0


def test_a_web_socket_is_refused_and_no_fault(shared_client: TestClient):
    with pytest.raises(WebSocketDisconnect), shared_client.websocket_connect("/recommend"):
        pass


def test_answers_carry_the_headers_browsers_need(shared_client: TestClient):
    for path in ("/health", "/demo", "/nowhere"):
        headers = shared_client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_paths_of_the_demo_page_are_fixed(shared_client: TestClient):
    assert "Gợi ý" in shared_client.get("/demo").text
    for path in ("/demo/../app.py", "/demo/%2e%2e/app.py", "/demo//etc/passwd", "/demo/index.html"):
        assert shared_client.get(path).status_code == 404


def test_unknown_paths_and_methods_get_problem_documents(shared_client: TestClient):
    for answer, status in (
        (shared_client.get("/nowhere"), 404),
        (shared_client.get("/recommend"), 405),
    ):
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "this path" in answer.json()["detail"].lower()
    assert {"/docs", "/health"} <= set(shared_client.get("/").json()["detail"].split())


@pytest.mark.boots
def test_a_caller_who_hangs_up_in_the_middle_is_no_failure(settings: Settings, free_port: int):
    add_model(settings, "als_1")
    with running_service(settings, free_port) as output:
        for path in ("/recommend", "/similar_items"):
            with socket.create_connection(("127.0.0.1", free_port)) as caller:
                caller.sendall(
                    f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    'Content-Length: 100\r\n\r\n{"user_id":'.encode()
                )
        text = requests.get(f"http://127.0.0.1:{free_port}/metrics", timeout=20).text
        assert "5xx" not in text
    assert "Traceback" not in output.read_text()


@pytest.mark.boots
def test_the_token_is_in_no_log(settings: Settings, free_port: int):
    token = "k9-SECRET-token-9k"
    add_model(settings, "als_1")
    with running_service(settings, free_port, token=token) as output:
        for headers, body in (
            ({"Authorization": f"Bearer {token}"}, {}),
            ({"Authorization": f"Bearer {token}x"}, {}),
            ({"Authorization": token}, {}),
            ({"Authorization": f"Bearer {token}"}, {"model_id": token}),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", free_port, timeout=30)
            connection.request(
                "POST",
                f"/reload_model?token={token}",
                json.dumps(body),
                {"Content-Type": "application/json", **headers},
            )
            answer = connection.getresponse()
            assert answer.status in (200, 401, 409)
            answer.read()
    written = [output, *settings.home.rglob("*.log"), *settings.home.rglob("*.db*")]
    assert len(written) > 2
    for path in written:
        assert token.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECSYS_SERVICE_PORT", "http"),
        ("RECSYS_SERVICE_PORT", "70000"),
        ("RECSYS_SERVICE_TRUSTED_PROXIES", "*"),
        ("RECSYS_SERVICE_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("RECSYS_SERVICE_TRUSTED_PROXIES", "proxy,10.0.0.1"),
    ],
)
def test_a_bad_environment_is_one_sentence(tmp_path: Path, name: str, value: str):
    done = subprocess.run(
        [sys.executable, "-m", "serving"],
        cwd=REPOSITORY,
        env=os.environ | {"RECSYS_HOME": str(tmp_path), name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_the_request_table_survives_hostile_ids(settings: Settings, client: TestClient):
    for text in INJECTIONS:
        client.post("/recommend", json={"user_id": text})
    client.app.state.service.requests.flush()
    count = sqlite3.connect(settings.service_db).execute("SELECT count(*) FROM requests")
    assert count.fetchone()[0] == len(INJECTIONS)


@pytest.mark.parametrize("user_id", [True, {}, 1.5, "", "x" * 129, 2**62 + 1])
def test_what_is_no_id_is_refused_in_a_sentence(client: TestClient, user_id: Any):
    answer = client.post("/recommend", json={"user_id": user_id})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == "body.user_id"
    assert error["message"].startswith("Input should be a whole number up to 2^62, or text")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_json_under_another_content_type_is_told_which_one_is_wanted(client, kind):
    answer = client.post("/recommend", content='{"user_id": 1}', headers={"Content-Type": kind})
    assert answer.status_code == 422
    assert "Content-Type has to be application/json" in answer.json()["detail"]
