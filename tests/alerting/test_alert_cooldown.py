import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.alerting import AlertManager
from recsys.alerting.message import Alert, Severity
from recsys.database import connect
from recsys.settings import REPOSITORY
from tests.sinks import log_lines


def triggered(settings) -> list[str]:
    return [line for line in log_lines(settings) if " triggered: " in line]


def test_five_checks_give_one_alert(manager, mails, settings):
    for _ in range(5):
        manager.check_alert_conditions({"avg_latency_ms": 215.3})
    assert len(mails.mails) == 1
    assert len(triggered(settings)) == 1


def test_the_cooldown_survives_a_restart(manager, settings, clock, mails):
    manager.send_alert("a", "look")
    assert AlertManager(settings, clock=clock).send_alert("a", "look") == {
        "log": "held back",
        "email": "held back",
    }
    assert len(mails.mails) == 1


def test_a_reminder_follows_when_the_cooldown_is_over(manager, clock, mails):
    manager.send_alert("a", "look")
    clock.forward(minutes=59)
    manager.send_alert("a", "look")
    assert len(mails.mails) == 1
    clock.forward(minutes=1)
    manager.send_alert("a", "look")
    assert len(mails.mails) == 2


def test_a_rule_can_have_a_cooldown_of_its_own(manager, clock, mails):
    for _ in range(3):
        manager.check_alert_conditions({"fallback_rate": 0.5})
        clock.forward(minutes=5)
    assert len(mails.mails) == 3


def test_a_clock_that_was_set_back_does_not_silence_an_alert(manager, clock, mails):
    manager.send_alert("a", "look")
    clock.forward(days=-30)
    manager.send_alert("a", "look")
    assert len(mails.mails) == 2


def test_different_alerts_do_not_hold_each_other_back(manager, mails):
    manager.send_alert("a", "look")
    manager.send_alert("b", "look")
    assert len(mails.mails) == 2


def test_a_higher_severity_passes_and_a_lower_one_does_not(manager, mails, slack):
    manager.send_alert("a", "look", "warning")
    manager.send_alert("a", "run", "critical")
    manager.send_alert("a", "look", "warning")
    assert (len(mails.mails), len(slack.posts)) == (2, 1)


def test_a_channel_that_was_not_told_yet_is_told(manager, mails, settings):
    manager.send_alert("a", "look", channels=["log"])
    assert manager.send_alert("a", "look") == {"log": "held back", "email": "sent"}
    assert len(triggered(settings)) == 1


def test_a_cleared_condition_is_announced_once_to_those_who_were_told(
    manager, settings, mails, slack
):
    manager.check_alert_conditions({"avg_latency_ms": 215.3})
    for _ in range(2):
        manager.check_alert_conditions({"avg_latency_ms": 120})
    assert [mail["Subject"] for mail in mails.mails] == [
        "[WARNING] Alert: high_latency",
        "[RESOLVED] Resolved: high_latency",
    ]
    assert slack.posts == []
    resolved = "INFO | alerting | high_latency resolved: avg_latency_ms=120 <= 200"
    assert log_lines(settings).count(resolved) == 1


def test_what_breaks_again_after_it_was_resolved_is_news(manager, mails):
    for value in (300, 100, 300):
        manager.check_alert_conditions({"avg_latency_ms": value})
    assert len(mails.mails) == 3


def test_an_unknown_metric_does_not_resolve_anything(manager, mails):
    manager.check_alert_conditions({"avg_latency_ms": 300})
    manager.check_alert_conditions({"avg_latency_ms": None})
    manager.check_alert_conditions({})
    assert len(mails.mails) == 1


def test_a_pipeline_that_fails_again_after_a_success_is_news(manager, settings, mails, slack):
    manager.send_pipeline_alert("embeddings", "failed", "KeyError")
    assert manager.send_pipeline_alert("embeddings", "success", "done")["log"] == "sent"
    assert manager.send_pipeline_alert("embeddings", "failed", "KeyError again") == {
        "log": "sent",
        "email": "sent",
        "slack": "sent",
    }
    assert [mail["Subject"] for mail in mails.mails] == [
        "[CRITICAL] Alert: embeddings_failed",
        "[RESOLVED] Resolved: embeddings_failed",
        "[CRITICAL] Alert: embeddings_failed",
    ]


def test_further_successes_are_no_news(manager, mails, slack):
    manager.send_pipeline_alert("embeddings", "failed", "KeyError")
    for _ in range(4):
        manager.send_pipeline_alert("embeddings", "success", "done")
    assert len(mails.mails) == len(slack.posts) == 2


def test_a_success_clears_its_own_pipeline_only(manager, mails):
    manager.send_pipeline_alert("embeddings_weekly", "failed", "KeyError")
    manager.send_pipeline_alert("embeddings", "completed", "done")
    assert manager.send_pipeline_alert("embeddings_weekly", "failed", "x")["email"] == "held back"


@pytest.mark.parametrize("tell", ["pipeline", "alert"])
def test_what_is_held_back_is_a_line_in_the_log(manager, settings, tell):
    for number in (1, 2, 3):
        if tell == "pipeline":
            manager.send_pipeline_alert("p", "failed", f"error {number}")
        else:
            manager.send_alert("p_failed", f"error {number}", "critical")
    assert [line for line in log_lines(settings) if "p_failed " in line] == [
        "CRITICAL | alerting | p_failed triggered: error 1"
        + (" | job=p, status=failed" if tell == "pipeline" else ""),
        "INFO | alerting | p_failed held back: error 2",
        "INFO | alerting | p_failed held back: error 3",
    ]


def test_nothing_is_resolved_that_was_not_active(manager, mails, settings):
    assert manager.resolve("high_latency", "all is well") == {}
    assert log_lines(settings) == []


def test_told_until_resolved_outlives_any_cooldown(manager, clock, mails):
    alert = Alert("a", "look", Severity.WARNING, key="a/1", until_resolved=True)
    for _ in range(3):
        manager.deliver(alert)
        clock.forward(days=7)
    assert len(mails.mails) == 1
    manager.resolve("a/1", "over")
    manager.deliver(alert)
    assert len(mails.mails) == 3


@pytest.mark.parametrize("damage", ["junk", "cut off", "somebody else's", "a folder"])
def test_a_damaged_state_is_set_aside_and_made_again(settings, configure, mails, damage):
    configure()
    path = settings.logs / "service" / "alert_state.db"
    path.parent.mkdir(parents=True)
    if damage == "a folder":
        path.mkdir()
    elif damage == "somebody else's":
        with connect(path) as database:
            database.execute("CREATE TABLE alerts (what TEXT)")
    else:
        path.write_bytes(
            b"this is no database" * 100 if damage == "junk" else b"SQLite format 3\0x"
        )
    manager = AlertManager(settings)
    assert manager.send_alert("a", "look")["email"] == "sent"
    assert manager.send_alert("a", "look")["email"] == "held back"
    assert len(mails.mails) == 1
    assert len(list(path.parent.glob("alert_state.db.damaged-*-??????"))) == 1
    assert [one["alert"].name for one in manager.recent()] == ["a"]


def test_a_state_that_cannot_be_used_lets_alerts_through(manager, settings, mails):
    path = settings.logs / "service" / "alert_state.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"this is no database" * 100)
    path.with_name("alert_state.db.lock").mkdir()  # nobody can set it aside
    for _ in range(2):
        assert manager.send_alert("a", "look")["email"] == "sent"
    assert len(mails.mails) == 2
    assert "ERROR | alerting | Alert state unusable, nothing is held back: " in "\n".join(
        log_lines(settings)
    )


RACER = """
import sys, time
from recsys.alerting import AlertManager
manager = AlertManager()
time.sleep(max(0, float(sys.argv[1]) - time.time()))
for number in range(20):
    manager.send_alert(f"alert_{number}", "look")
    manager.check_alert_conditions({"avg_latency_ms": 300 if number % 2 else 100})
"""


@pytest.mark.timeout(120)
def test_processes_that_see_the_same_thing_at_once_send_one_alert(
    settings, configure, mails, tmp_path
):
    configure()
    import time

    environment = os.environ | {
        "RECSYS_HOME": str(settings.home),
        "PYTHONPATH": str(REPOSITORY / "include"),
    }
    start = str(time.time() + 3)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, start], env=environment) for _ in range(6)
    ]
    assert [racer.wait() for racer in racers] == [0] * 6
    names = [mail["Subject"].split()[-1] for mail in mails.mails]
    for number in range(20):
        assert names.count(f"alert_{number}") == 1
    lines = [line for line in triggered(settings) if "alert_" in line]
    assert len(lines) == 20
    # Triggered and resolved alternate: neither is ever told twice in a row.
    latency = [line for line in log_lines(settings) if "high_latency" in line and "<=" in line]
    assert abs(len(latency) - sum("high_latency trig" in line for line in triggered(settings))) <= 1


KILLED = """
import os, sys
from recsys.alerting import AlertManager
from recsys.alerting.mail import MailSender
MailSender.send = lambda self, alert, at: os.kill(os.getpid(), 9)
AlertManager().send_alert("a", "look")
"""


def test_what_a_killed_sender_left_is_delivered_later(settings, configure, mails, clock):
    configure()
    environment = os.environ | {
        "RECSYS_HOME": str(settings.home),
        "PYTHONPATH": str(REPOSITORY / "include"),
    }
    assert subprocess.run([sys.executable, "-c", KILLED], env=environment).returncode == -9
    assert mails.mails == []
    from datetime import UTC, datetime, timedelta

    clock.now = datetime.now(UTC) + timedelta(minutes=1)
    manager = AlertManager(settings, clock=clock)
    assert manager.retry_undelivered() == 0
    clock.forward(minutes=5)
    assert manager.retry_undelivered() == 1
    assert manager.retry_undelivered() == 0
    assert len(mails.mails) == 1


def test_only_the_last_reminder_is_delivered_late(manager, clock, slack):
    slack.status = 500
    for _ in range(3):
        manager.send_alert("a", "run", "critical")
        clock.forward(hours=2)
    assert len(slack.posts) == 3
    slack.status = 200
    assert manager.retry_undelivered() == 1


def test_what_was_resolved_is_not_delivered_late(manager, slack):
    slack.status = 500
    manager.send_alert("a", "run", "critical", ["slack"])
    manager.resolve("a", "over")
    slack.status = 200
    assert manager.retry_undelivered() == 0


def test_a_channel_that_never_works_is_given_up(manager, slack):
    slack.status = 500
    manager.send_alert("a", "run", "critical", ["slack"])
    for _ in range(30):
        assert manager.retry_undelivered() == 0
    assert len(slack.posts) == 25


def test_a_channel_that_is_still_down_is_tried_once_for_all(manager, slack):
    slack.status = 500
    for number in range(5):
        manager.send_alert(f"a{number}", "run", "critical", ["slack"])
    assert manager.retry_undelivered() == 0
    assert len(slack.posts) == 6
    slack.status = 200
    assert manager.retry_undelivered() == 5


def test_the_recent_alerts_say_what_became_of_them(manager, slack):
    slack.status = 500
    manager.send_alert("a", "look", "critical", context={"job": "data_refresh"})
    manager.send_alert("a", "look", "critical")
    (recent,) = manager.recent()
    assert recent["repeats"] == 1
    assert recent["alert"].facts == {"job": "data_refresh"}
    assert recent["deliveries"] == {"log": "sent", "email": "sent", "slack": "failed"}


def test_the_state_keeps_no_secret(manager, settings, slack):
    manager.send_alert("a", f"posting to {slack.url} failed", context={"password": "password=x1y2"})
    content = b"".join(
        Path(file).read_bytes() for file in (settings.logs / "service").glob("alert_state.db*")
    )
    assert b"tokenofthewebhook" not in content
    assert b"x1y2" not in content
    assert json.dumps("a").encode() in content
