import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from recsys.alerting import AlertManager
from recsys.settings import REPOSITORY
from tests.sinks import log_lines


def test_a_message_is_made_of_blocks(manager, slack, settings):
    manager.send_alert(
        "data_late",
        "rows < 10 & falling",
        "critical",
        context={"job": "data_refresh", "url": "http://airflow/run"},
    )
    (post,) = slack.posts
    assert post["channel"] == "#ml-alerts"
    assert "data_late" in post["text"]
    header, section, facts, actions, context = post["blocks"]
    assert header["text"]["text"] == "🚨 [CRITICAL] Alert: data_late"
    assert section["text"]["text"] == "rows &lt; 10 &amp; falling"
    page = {"type": "mrkdwn", "text": "*Documentation*\ndocs/alerting.md"}
    assert facts["fields"] == [{"type": "mrkdwn", "text": "*Pipeline*\ndata_refresh"}, page]
    assert actions["elements"][0]["url"] == "http://airflow/run"
    assert "2025-01-15 15:35:00 +07" in context["elements"][0]["text"]
    assert log_lines(settings)[-1] == "INFO | alerting | Slack notification sent"


def test_long_texts_are_cut_to_what_slack_takes(manager, slack):
    manager.send_alert(
        "n" * 500, "m" * 9000, "critical", context={f"f{i}": "v" * 5000 for i in range(20)}
    )
    header, section, facts, _ = slack.posts[0]["blocks"]
    assert len(header["text"]["text"]) == 150
    assert len(section["text"]["text"]) == 3000
    assert len(facts["fields"]) == 10
    assert max(len(field["text"]) for field in facts["fields"]) == 2000


@pytest.mark.parametrize("message", ["", "   ", "\x00\x01", "\n"])
def test_a_text_of_nothing_is_a_dash(manager, slack, mails, message):
    manager.send_alert("stock_low", message, "critical", context={"reason": "", "where": " "})
    texts = [
        text
        for block in slack.posts[0]["blocks"]
        for text in [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        if text
    ]
    assert all(text["text"].strip() for text in texts)
    assert slack.posts[0]["blocks"][1]["text"]["text"] == "-"
    assert "\n-\n" in mails.mails[0].get_body(("plain",)).get_content().replace("\r\n", "\n")


def test_a_webhook_that_sends_byte_after_byte_is_left_in_time(settings, configure, monkeypatch):
    monkeypatch.setattr("recsys.alerting.slack.DEADLINE_SECONDS", 1.5)

    def drip(server):
        connection, _ = server.accept()
        with contextlib.suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                connection.sendall(b"x")
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token12"
        monkeypatch.setenv("SLACK_WEBHOOK_URL", url)
        configure()
        begin = time.monotonic()
        assert AlertManager(settings).send_alert("a", "x", channels=["slack"])["slack"] == "failed"
        assert time.monotonic() - begin < 4
    assert "took longer than 1.5 s" in log_lines(settings)[-1]


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_refusal_is_a_line_without_the_url(manager, slack, mails, settings, status):
    slack.status = status
    results = manager.send_alert("a", "run", "critical")
    assert results == {"log": "sent", "email": "sent", "slack": "failed"}
    assert len(mails.mails) == 1
    assert f"HTTP {status}" in log_lines(settings)[-1]
    assert log_lines(settings)[-1].startswith("ERROR | alerting | Slack failed: ")
    assert "tokenofthewebhook" not in "".join(log_lines(settings))


def test_a_webhook_that_does_not_answer_costs_no_more_than_the_timeout(
    settings, configure, monkeypatch
):
    monkeypatch.setattr("recsys.alerting.slack.WAIT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", f"http://127.0.0.1:{mute.getsockname()[1]}/token12")
        configure()
        begin = time.monotonic()
        assert AlertManager(settings).send_alert("a", "x", channels=["slack"])["slack"] == "failed"
        assert time.monotonic() - begin < 4
    assert "token12" not in "".join(log_lines(settings))


AS_AIRFLOW_DOES = """
import airflow.sdk
from recsys.alerting import AlertManager
import recsys.alerting.slack as slack
print(AlertManager().send_alert("a", "run", "critical", ["slack"]))
assert "airflow.providers.slack.hooks.slack_webhook" in __import__("sys").modules
"""

AS_THE_SERVICE_DOES = """
import sys
from recsys.alerting import AlertManager
print(AlertManager().send_alert("a", "run", "critical", ["slack"]))
assert "airflow" not in sys.modules
"""


@pytest.mark.parametrize("program", [AS_AIRFLOW_DOES, AS_THE_SERVICE_DOES])
def test_the_same_message_comes_from_airflow_and_from_elsewhere(
    settings, configure, slack, tmp_path, program
):
    configure()
    environment = os.environ | {
        "RECSYS_HOME": str(settings.home),
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "PYTHONPATH": str(REPOSITORY / "include"),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "{'slack': 'sent'}" in done.stdout
    assert len(slack.posts) == 1
    assert "tokenofthewebhook" not in done.stdout + done.stderr
