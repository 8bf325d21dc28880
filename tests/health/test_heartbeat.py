"""The dead-man's switch outside hears of the hourly check when all is well, and only then."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recsys.config import ConfigError
from recsys.health import evaluate
from recsys.settings import Settings
from tests.ports import find_free_port
from tests.sinks import log_lines, write_alerts_config

WELL = {name: {"healthy": True} for name in ("service", "data", "model", "pipeline")}
WARNING = WELL | {"data": {"healthy": False, "severity": "warning", "error": "old"}}
TOKEN = "3f9d2c71-ping"


class Switch:
    """Waits for signs of life; answers with `status`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.status = 200
        self.url = ""


@pytest.fixture
def switch() -> Iterator[Switch]:
    found = Switch()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            self.send_response(found.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/{TOKEN}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def shop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    write_alerts_config(settings, "email: {enabled: false}\nslack: {enabled: false}\n")
    return settings


def test_all_well_is_told_once_an_hour(
    shop: Settings, switch: Switch, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HEARTBEAT_URL", switch.url)
    assert evaluate(shop, WELL)["heartbeat"] == "sent"
    assert switch.asked == [f"/{TOKEN}"]


@pytest.mark.parametrize(("results", "component"), [(WARNING, None), (WELL, "data")])
def test_what_is_not_well_or_not_all_is_not_told(
    shop: Settings, switch: Switch, monkeypatch: pytest.MonkeyPatch, results: dict, component: str
):
    monkeypatch.setenv("HEARTBEAT_URL", switch.url)
    assert evaluate(shop, results, component)["heartbeat"] == "withheld"
    assert switch.asked == []


def test_nobody_waits_for_it_by_default(shop: Settings):
    assert evaluate(shop, WELL)["heartbeat"] == "not set up"
    assert [line for line in log_lines(shop) if "Heartbeat" in line] == []


@pytest.mark.parametrize("status", [302, 404, 500])
def test_another_answer_is_a_line_in_the_log_and_no_failure(
    shop: Settings, switch: Switch, monkeypatch: pytest.MonkeyPatch, status: int
):
    monkeypatch.setenv("HEARTBEAT_URL", switch.url)
    switch.status = status
    summary = evaluate(shop, WELL)
    assert (summary["heartbeat"], summary["status"]) == ("failed", "healthy")
    assert f"ERROR | alerting | Heartbeat failed: HTTP {status}" in log_lines(shop)
    assert switch.asked == [f"/{TOKEN}"]


def test_nobody_there_is_a_line_without_the_url(shop: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HEARTBEAT_URL", f"http://127.0.0.1:{find_free_port()}/{TOKEN}")
    assert evaluate(shop, WELL)["heartbeat"] == "failed"
    [line] = [line for line in log_lines(shop) if "Heartbeat" in line]
    assert "ConnectionError" in line
    assert TOKEN not in line


@pytest.mark.parametrize("drips", [False, True])
def test_one_that_never_answers_is_given_up(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, drips: bool
):
    """Also one that sends a byte of its answer now and then."""
    monkeypatch.setattr("recsys.alerting.heartbeat.DEADLINE_SECONDS", 1.0)
    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HEARTBEAT_URL", f"http://127.0.0.1:{server.getsockname()[1]}/{TOKEN}")

        def answer() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    while not ending.wait(0.1):
                        connection.send(b"H" if drips else b"")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        began = time.monotonic()
        assert evaluate(shop, WELL)["heartbeat"] == "failed"
        assert time.monotonic() - began < 30
        ending.set()
        thread.join(timeout=10)
    assert "ERROR | alerting | Heartbeat failed: no answer within 1 s" in log_lines(shop)


@pytest.mark.parametrize("url", ["ftp://example.com", "example.com/ping", "https://"])
def test_what_is_no_url_is_refused_without_its_value(shop: Settings, url: str):
    path = write_alerts_config(shop, f"heartbeat: {{url: '{url}'}}\n")
    with pytest.raises(ConfigError) as refused:
        evaluate(shop, WELL)
    assert f"{path}: heartbeat.url: expected a URL" in str(refused.value)
    assert "example" not in str(refused.value)
