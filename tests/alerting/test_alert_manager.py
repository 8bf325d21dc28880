import re
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recsys.alerting import AlertManager, Severity, send_pipeline_alert
from recsys.alerting.message import Alert
from recsys.errors import InputError
from tests.sinks import log_lines


def test_default_channels_follow_the_severity(manager, mails, slack, settings):
    assert manager.send_alert("a", "for your information", "info") == {"log": "sent"}
    assert manager.send_alert("b", "look") == {"log": "sent", "email": "sent"}
    assert set(manager.send_alert("c", "run", "critical")) == {"log", "email", "slack"}
    assert len(mails.mails) == 2
    assert len(slack.posts) == 1


def test_explicit_channels_are_the_only_ones(manager, mails, slack, settings):
    assert manager.send_alert("a", "look", "info", ["slack"]) == {"slack": "sent"}
    assert (len(mails.mails), len(slack.posts)) == (0, 1)
    assert log_lines(settings) == ["INFO | alerting | Slack notification sent"]


def test_the_log_has_the_documented_form(manager, settings):
    manager.check_alert_conditions({"avg_latency_ms": 215.3})
    text = (settings.logs / "service" / "alerts.log").read_text()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    expected = (
        rf"{time} \| WARNING \| alerting \| high_latency triggered: avg_latency_ms=215\.3 > 200\n"
        rf"{time} \| INFO \| alerting \| Email sent to team@example\.com, boss@example\.com\n"
    )
    assert re.fullmatch(expected, text)


def test_an_alert_of_several_lines_is_one_line_of_the_log(manager, settings):
    manager.send_alert("a", "first\n2025-01-15 | INFO | alerting | forged\r\x1b[31mred", "info")
    assert len(log_lines(settings)) == 1
    assert "\x1b" not in log_lines(settings)[0]


@pytest.mark.parametrize("severity", ["urgent", "CRITICAL", "", None])
def test_an_unknown_severity_is_refused_and_its_message_kept(manager, settings, severity):
    with pytest.raises(InputError, match="expected one of info, warning, critical"):
        manager.send_alert("a", "the disk is full", severity)
    (line,) = log_lines(settings)
    assert line.startswith("ERROR | alerting | a refused: severity")
    assert line.endswith("message=the disk is full")


@pytest.mark.parametrize("channels", [["sms"], [], "log"])
def test_unknown_channels_are_refused_and_the_message_kept(manager, settings, channels):
    with pytest.raises(InputError, match="log, email, slack"):
        manager.send_alert("a", "the disk is full", channels=channels)
    assert "the disk is full" in log_lines(settings)[0]


def test_pipeline_alerts_take_their_severity_from_the_status(manager, mails, slack):
    assert manager.send_pipeline_alert("p", "success", "done") == {"log": "sent"}
    assert "slack" in manager.send_pipeline_alert("p", "failed", "KeyError")
    assert list(manager.send_pipeline_alert("p", "paused", "hm")) == ["log", "email"]
    assert list(manager.send_pipeline_alert("q", "failed", "hm", severity="info")) == ["log"]


def test_rules_are_evaluated_with_unknown_metrics_left_out(manager):
    triggered = manager.check_alert_conditions(
        {"avg_latency_ms": 215.0, "error_rate": 0.02, "fallback_rate": None, "cpu": 1}
    )
    assert [alert["alert_name"] for alert in triggered] == ["high_latency"]
    expected = {"metric": "avg_latency_ms", "value": 215.0, "threshold": 200, "severity": "warning"}
    assert expected.items() <= triggered[0].items()
    assert manager.check_alert_conditions({"avg_latency_ms": float("nan")}) == []
    assert manager.check_alert_conditions({}) == []


def test_a_value_on_the_threshold_is_within_it(manager):
    assert manager.check_alert_conditions({"avg_latency_ms": 200, "error_rate": 0.05}) == []


def test_a_rule_can_watch_for_too_little(manager):
    assert [a["alert_name"] for a in manager.check_alert_conditions({"requests": 0})] == [
        "no_traffic"
    ]


def test_a_metric_that_is_no_number_is_refused(manager):
    with pytest.raises(InputError, match="metric error_rate: 'high' is not a number"):
        manager.check_alert_conditions({"error_rate": "high"})


def test_of_two_rules_on_one_metric_only_the_worse_leaves_the_log(manager, mails, slack, settings):
    triggered = manager.check_alert_conditions({"avg_latency_ms": 600})
    assert [alert["alert_name"] for alert in triggered] == ["high_latency", "critical_latency"]
    assert triggered[0]["channels"] == {"log": "sent"}
    assert len(mails.mails) == len(slack.posts) == 1
    assert "critical_latency" in mails.mails[0]["Subject"]
    assert sum("triggered" in line for line in log_lines(settings)) == 2


def test_the_documented_call_needs_no_arguments(settings, configure, monkeypatch, mails):
    configure()
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    AlertManager().send_alert(
        alert_name="high_latency",
        message="Average latency exceeded 200ms",
        severity="warning",
        channels=["log", "email"],
    )
    assert len(mails.mails) == 1
    assert "slack" in send_pipeline_alert("my_pipeline", "failed", "boom", severity="critical")


def test_severities_are_ordered():
    assert Severity.INFO.rank < Severity.WARNING.rank < Severity.CRITICAL.rank


def test_a_log_that_cannot_be_written_stops_nothing(manager, mails, settings):
    (settings.home / "logs" / "service").mkdir(parents=True)
    (settings.home / "logs" / "service" / "alerts.log").mkdir()
    assert manager.send_alert("a", "look")["email"] == "sent"
    assert len(mails.mails) == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(), max_size=20), message=st.text(st.characters(), max_size=50))
@example(name="a\ud800", message="b\udce9\x00\u2028\x85")
def test_no_text_breaks_an_alert_or_its_line(manager_to_log, name, message):
    before = log_lines(manager_to_log[1])
    manager_to_log[0].deliver(
        Alert(name, message, Severity.INFO, facts={name: message}, key=str(uuid4()))
    )
    assert len(log_lines(manager_to_log[1])) == len(before) + 1


@pytest.fixture
def manager_to_log(manager, settings):
    return manager, settings


def test_a_surrogate_does_not_keep_a_mail_from_being_sent(manager, mails):
    assert manager.send_alert("a", "file caf\udce9 is gone")["email"] == "sent"
    assert "file caf? is gone" in mails.mails[0].get_body(("plain",)).get_content()


def test_an_exception_can_be_the_message(manager, mails):
    manager.send_alert("a", KeyError("rating"))
    assert "KeyError" not in mails.mails[0].get_body(("plain",)).get_content()
    assert "'rating'" in mails.mails[0].get_body(("plain",)).get_content()
