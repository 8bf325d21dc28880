"""One channel in trouble: the others deliver, the job goes on, the log says what happened."""

import pytest

from recsys.alerting import AlertManager
from recsys.alerting.runs import RunEvent, tell_of_run
from tests.ports import find_free_port
from tests.sinks import log_lines


@pytest.fixture
def fail_a_run(settings):
    def run(number: int) -> dict[str, str]:
        return tell_of_run(
            RunEvent(
                "run_failed",
                job="data_refresh",
                run_id=f"manual__{number}",
                run_type="manual",
                reason="task_failure",
            ),
            settings,
        )

    return run


def outcome_lines(settings) -> list[str]:
    return [line for line in log_lines(settings) if " triggered: " not in line]


def test_no_mail_server(configure, fail_a_run, settings, mails, slack):
    configure(port=find_free_port())
    assert fail_a_run(1) == {"log": "sent", "email": "failed", "slack": "sent"}
    assert (len(mails.mails), len(slack.posts)) == (0, 1)
    assert outcome_lines(settings) == [
        "ERROR | alerting | Email failed: ConnectionRefusedError: [Errno 111] Connection refused"
        " | alert=data_refresh_failed",
        "INFO | alerting | Slack notification sent",
    ]
    configure()
    assert AlertManager(settings).retry_undelivered() == 1
    assert len(mails.mails) == 1


def test_an_unknown_mail_server(configure, fail_a_run, settings, slack, monkeypatch):
    monkeypatch.setenv("SMTP_SERVER", "no-such-host.invalid")
    configure()
    assert fail_a_run(1) == {"log": "sent", "email": "failed", "slack": "sent"}
    assert "gaierror" in outcome_lines(settings)[0]


def test_slack_answers_500(configure, fail_a_run, settings, mails, slack):
    configure()
    slack.status = 500
    assert fail_a_run(1) == {"log": "sent", "email": "sent", "slack": "failed"}
    assert outcome_lines(settings) == [
        "INFO | alerting | Email sent to team@example.com, boss@example.com",
        "ERROR | alerting | Slack failed: DeliveryError: HTTP 500: server_error"
        " | alert=data_refresh_failed",
    ]


@pytest.mark.parametrize("value", [None, ""])
def test_an_unset_variable(configure, fail_a_run, settings, mails, slack, monkeypatch, value):
    if value is None:
        monkeypatch.delenv("SLACK_WEBHOOK_URL")
    else:
        monkeypatch.setenv("SLACK_WEBHOOK_URL", value)
    configure()
    assert fail_a_run(1) == {"log": "sent", "email": "sent", "slack": "not set up"}
    assert outcome_lines(settings)[-1] == (
        "WARNING | alerting | Slack not set up: SLACK_WEBHOOK_URL not set"
        " | alert=data_refresh_failed"
    )


def test_every_mail_refused(configure, fail_a_run, settings, mails, slack):
    configure()
    mails.refused = {"team@example.com", "boss@example.com"}
    assert fail_a_run(1) == {"log": "sent", "email": "failed", "slack": "sent"}
    assert "SMTPRecipientsRefused" in outcome_lines(settings)[0]


def test_everything_at_once(configure, fail_a_run, settings, slack, monkeypatch):
    slack.status = 500
    configure(port=find_free_port())
    path = settings.logs / "service" / "alert_state.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0" * 5000)
    assert fail_a_run(1) == {"log": "sent", "email": "failed", "slack": "failed"}
    assert any("data_refresh_failed triggered" in line for line in log_lines(settings))


def test_no_folder_for_the_log(configure, fail_a_run, settings, mails):
    configure()
    settings.logs.write_text("a file where the folder should be")
    assert fail_a_run(1)["email"] == "sent"
    assert len(mails.mails) == 1
