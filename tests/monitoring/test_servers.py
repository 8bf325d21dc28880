"""A real Prometheus over the real service and exporter: the board has data in every query, and an
alert arrives by mail, once."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from recsys.alerting import AlertManager
from recsys.exporter.airflow import COUNTERS, GAUGES, HEARTBEATS
from recsys.exporter.server import exporting
from recsys.settings import Settings
from recsys.tracking import RunStatus
from tests.exporter.process import free_udp_port
from tests.exporter.shop import lived_in_shop, record_run
from tests.monitoring.rules import MONITORING
from tests.monitoring.servers import Watched, faster, watching
from tests.ports import find_free_port
from tests.serving.service_process import running_service
from tests.serving.shops import product_id
from tests.sinks import MailSink, mail_sink

pytestmark = pytest.mark.boots
TIMES = 15
"""So many times faster than the files say: a scrape a second."""


class Stand(NamedTuple):
    settings: Settings
    watched: Watched
    mails: MailSink
    statsd_port: int
    service: str


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    lived_in = lived_in_shop(tmp_path_factory.mktemp("lived_in"))
    port, exporter_port, statsd_port = find_free_port(), find_free_port(), free_udp_port()
    folder = tmp_path_factory.mktemp("prometheus")
    with contextlib.ExitStack() as running:
        sink = running.enter_context(mail_sink())
        # The exporter first: the service's start takes a while.
        running.enter_context(exporting(lived_in, "127.0.0.1", exporter_port, statsd_port))
        running.enter_context(running_service(lived_in, port))
        targets = {"service": [f"127.0.0.1:{port}"], "exporter": [f"127.0.0.1:{exporter_port}"]}
        watched = running.enter_context(watching(folder, targets, sink.port, TIMES))
        yield Stand(lived_in, watched, sink, statsd_port, f"http://127.0.0.1:{port}")


def until(said: Callable[[], object], what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.3)


def live(stand: Stand) -> None:
    """A moment of a shop: lists, events, Airflow at work."""
    for user in (3, 4, 5, "nobody"):
        requests.post(f"{stand.service}/recommend", json={"user_id": user}, timeout=10)
    event = {"user_id": 3, "product_id": product_id(1), "kind": "click"}
    event["event_id"] = f"e{time.time_ns()}"
    requests.post(f"{stand.service}/interactions", json=event, timeout=10)
    lines = [f"airflow.{name}:1|c" for name in (*HEARTBEATS, *COUNTERS)]
    lines += [f"airflow.{name}:1|g" for name in GAUGES]
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto("\n".join(lines).encode(), ("127.0.0.1", stand.statsd_port))


def queries() -> list[str]:
    board: dict[str, Any] = json.loads((MONITORING / "grafana" / "board.json").read_text("utf-8"))
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def test_every_query_of_the_board_has_data(stand: Stand):
    asked = [faster(query, TIMES) for query in queries()]
    assert len(asked) > 40
    empty: list[str] = []

    def all_have_data() -> bool:
        live(stand)
        empty[:] = [
            query
            for query in asked
            if not any(one["value"][1] != "NaN" for one in stand.watched.ask(query))
        ]
        return not empty

    with contextlib.suppress(AssertionError):  # the queries are told below
        until(all_have_data, "every query has data")
    assert empty == []


def test_panels_lie_beside_each_other_and_have_one_source():
    board = json.loads((MONITORING / "grafana" / "board.json").read_text("utf-8"))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert columns.stop <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    source = (MONITORING / "grafana" / "datasource.yml").read_text("utf-8")
    named = set(re.findall(r'"uid": "(\w+)"', json.dumps(board["panels"])))
    assert all(f"uid: {uid}" in source for uid in named)


def test_an_alert_arrives_by_mail_once_and_its_end(stand: Stand):
    """A training fails, and the next one succeeds."""
    now = datetime.now(UTC)

    def told(status: str) -> list[str]:
        subjects = [str(mail["Subject"]) for mail in stand.mails.mails]
        return [one for one in subjects if f"[{status}] JobFailed" in one and "training" in one]

    assert told("FIRING") == []
    record_run(stand.settings, "model_training", RunStatus.FAILED, now)
    until(lambda: told("FIRING"), "the failure is told")
    assert told("FIRING") == ["[FIRING] JobFailed: the last run of model_training failed"]
    record_run(
        stand.settings, "model_training", RunStatus.SUCCESS, now + timedelta(seconds=1), 0.01
    )
    until(lambda: told("RESOLVED"), "its end is told")
    assert len(told("FIRING")) == 1


def test_what_only_the_product_knows_is_told_by_mail(stand: Stand):
    AlertManager(stand.settings).send_alert("lipsticks_low", "3 left", channels=["log"])
    until(
        lambda: [mail for mail in stand.mails.mails if mail["Subject"] == "lipsticks_low"],
        "the product's alert is told",
    )


def test_spans_are_divided_and_ages_are_not(tmp_path: Path):
    text = 'expr: time() - x > 30 * 86400 and rate(y{z="5m"}[5m])\nfor: 5m\nscrape_interval: 15s\n'
    assert faster(text, 10) == (
        'expr: time() - x > 30 * 86400 and rate(y{z="5m"}[30000ms])\n'
        "for: 30000ms\nscrape_interval: 1500ms\n"
    )
