import pytest
import yaml

from recsys.alerting.config import (
    AlertsConfig,
    EmailConfig,
    LoggingConfig,
    SlackConfig,
    load_alerts_config,
)
from recsys.alerting.message import Channel
from recsys.config import ConfigError
from recsys.settings import REPOSITORY
from tests.sinks import write_alerts_config

SHIPPED = REPOSITORY / "config" / "alerts_config.yaml"


def errors_of(settings, text, **environment):
    path = write_alerts_config(settings, text)
    with pytest.raises(ConfigError) as caught:
        load_alerts_config(settings, environment)
    return str(caught.value).replace(str(path), "FILE").splitlines()


def test_the_shipped_file_holds_the_documented_rules(settings):
    rules = load_alerts_config(settings, {}).config.alerts
    assert {
        name: (rule.metric, rule.threshold, rule.severity.value, list(rule.channels))
        for name, rule in rules.items()
    } == {
        "high_latency": ("avg_latency_ms", 200, "warning", ["log", "email"]),
        "critical_latency": ("avg_latency_ms", 500, "critical", ["log", "email", "slack"]),
        "high_error_rate": ("error_rate", 0.05, "critical", ["log", "email", "slack"]),
        "high_fallback_rate": ("fallback_rate", 0.3, "warning", ["log", "email"]),
    }


def test_variables_come_from_the_environment(settings):
    environment = {
        "SMTP_SERVER": "smtp.example.com",
        "ALERT_EMAIL_SENDER": "alerts@example.com",
        "ALERT_EMAIL_PASSWORD": "app-password",
        "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/x",
        "HEARTBEAT_URL": "https://ping.example.com/a-secret-id",
    }
    setup = load_alerts_config(settings, environment)
    assert setup.unset == {}
    assert setup.config.email.smtp_server == "smtp.example.com"
    assert setup.config.email.password.get_secret_value() == "app-password"
    assert "app-password" not in repr(setup)
    assert "services" not in repr(setup)
    assert "a-secret-id" not in repr(setup)


def test_unset_and_empty_variables_are_named_with_their_channel(settings):
    setup = load_alerts_config(settings, {"SMTP_SERVER": "x", "ALERT_EMAIL_PASSWORD": ""})
    assert setup.unset == {
        "email": ("ALERT_EMAIL_SENDER", "ALERT_EMAIL_PASSWORD"),
        "slack": ("SLACK_WEBHOOK_URL",),
        "heartbeat": ("HEARTBEAT_URL",),
    }


def test_a_rule_without_channels_gets_those_of_its_severity(settings):
    write_alerts_config(settings, "alerts: {x: {metric: requests, threshold: 1, severity: info}}")
    rule = load_alerts_config(settings, {}).config.alerts["x"]
    assert rule.channels == (Channel.LOG,)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("alerts: {high_latency: {threshold: fast, severity: warning}}",
         "FILE: alerts.high_latency.threshold: expected a number (got 'fast')"),
        ("alerts: {high_latency: {threshold: 1, severity: urgent, channels: [log]}}",
         "FILE: alerts.high_latency.severity: expected one of 'info', 'warning', 'critical'"
         " (got 'urgent')"),
        ("alerts: {high_latency: {threshold: 1, severity: info, channels: [sms]}}",
         "FILE: alerts.high_latency.channels.0: expected one of 'log', 'email', 'slack'"
         " (got 'sms')"),
        ("alerts: {mine: {threshold: 1, severity: info}}",
         "FILE: alerts.mine.metric: is missing"),
        ("alerts: {high_latency: {threshold: .nan, severity: info}}",
         "FILE: alerts.high_latency.threshold: expected a finite number (got nan)"),
        ("email: {smtp_port: 70000}",
         "FILE: email.smtp_port: expected at most 65535 (got 70000)"),
        ("email: {smtp_port: '${PORT}'}",
         "FILE: email.smtp_port: expected a whole number (got '${PORT}')"),
        ("email: {recipients: [team]}",
         "FILE: email.recipients: expected a list of e-mail addresses"),
        ("language: fr", "FILE: language: expected one of 'vi', 'en' (got 'fr')"),
        ("cooldown: 5",
         "FILE: cooldown: there is no such key: expected one of language, public_url,"
         " cooldown_minutes, alerts, email, slack, heartbeat, logging"),
        ("email: {pasword: hunter2}",
         "FILE: email.pasword: there is no such key: expected one of enabled, smtp_server,"
         " smtp_port, sender, username, password, recipients"),
        ("slack: {webhook_url: hooks.slack.com/services/T/B/hunter2}",
         "FILE: slack.webhook_url: expected a URL that starts with https:// (or http://)"),
        ("email: hunter2", "FILE: email: expected keys with values"),
        ("cooldown_minutes: '${MINUTES}'",
         "FILE: cooldown_minutes: the environment variable MINUTES is not set"),
        ("- a", "FILE: expected a mapping of keys to values"),
    ],
)  # fmt: skip
def test_an_error_names_file_and_key_and_no_secret(settings, text, error):
    assert errors_of(settings, text, PORT="hunter2") == [error]


def test_every_error_is_reported_at_once(settings):
    lines = errors_of(settings, "language: fr\ncooldown_minutes: -1\nemail: {smtp_port: x}")
    assert len(lines) == 3


def test_every_key_is_one_that_the_code_reads(settings):
    """Unknown keys are errors, so the shipped file holds none; and no known one is missing."""
    content = yaml.safe_load(SHIPPED.read_text())
    assert set(content) == set(AlertsConfig.model_fields)
    for section, model in (
        ("email", EmailConfig),
        ("slack", SlackConfig),
        ("logging", LoggingConfig),
    ):
        assert set(content[section]) == set(model.model_fields)


DOCUMENTED = """
alerts:
  high_latency:
    threshold: 200  # ms
    severity: warning
    channels: [log, email]
  high_error_rate:
    threshold: 0.05  # 5%
    severity: critical
    channels: [log, email, slack]
email:
  enabled: true
  smtp_server: "${SMTP_SERVER}"
  smtp_port: 587
  sender: "${ALERT_EMAIL_SENDER}"
  password: "${ALERT_EMAIL_PASSWORD}"
  recipients:
    - team@example.com
slack:
  enabled: true
  webhook_url: "${SLACK_WEBHOOK_URL}"
  channel: "#ml-alerts"
logging:
  enabled: true
  path: logs/service/alerts.log
"""


def test_a_file_with_the_documented_keys_alone_is_enough(settings):
    write_alerts_config(settings, DOCUMENTED)
    config = load_alerts_config(settings, {}).config
    assert config.alerts["high_error_rate"].metric == "error_rate"
    assert config.email.recipients == ("team@example.com",)


def test_an_empty_file_changes_nothing(settings):
    shipped = load_alerts_config(settings, {}).config
    write_alerts_config(settings, "")
    assert load_alerts_config(settings, {}).config == shipped


def test_a_rule_can_be_switched_off(settings):
    write_alerts_config(settings, "alerts: {high_latency: {enabled: false}}")
    rules = load_alerts_config(settings, {}).config.alerts
    assert {name for name, rule in rules.items() if not rule.enabled} == {"high_latency"}
