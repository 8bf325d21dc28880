import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from recsys.alerting.runs import RunEvent, tell_of_run
from recsys.cli.watching import alerts_app


@pytest.fixture
def run(settings, configure, monkeypatch):
    configure()
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    return lambda *arguments: CliRunner().invoke(alerts_app, arguments)


def test_a_test_alert_goes_out_every_time(run, mails, slack):
    for _ in range(2):
        done = run("test")
        assert done.exit_code == 0
        assert json.loads(done.stdout) == {"log": "sent", "email": "sent", "slack": "sent"}
    assert len(mails.mails) == len(slack.posts) == 2
    assert mails.mails[0]["Subject"] == "[INFO] Test alert, nothing to do"


def test_a_channel_that_fails_is_an_exit_code(run, slack):
    slack.status = 500
    done = run("test")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["slack"] == "failed"
    assert json.loads(run("test", "--severity", "warning").stdout) == {
        "log": "sent",
        "email": "sent",
    }


def test_the_last_alerts_are_listed_newest_first(run):
    run("test", "--severity", "info")
    run("test", "--severity", "warning")
    rows = json.loads(run("recent", "--limit", "5").stdout)
    assert [row["severity"] for row in rows] == ["info", "info"]
    assert [row["channels"] for row in rows] == [{"log": "sent", "email": "sent"}, {"log": "sent"}]


def test_a_failed_job_is_listed_with_why_and_where_to_look(run, settings):
    page = "http://shop.example/runs/r1"
    failed = RunEvent("task_failed", "data_refresh", "r1", "manual", task="ingest")
    tell_of_run(replace(failed, error="no column 'sao'", link=page), settings)
    [row] = json.loads(run("recent", "--limit", "1").stdout)
    assert row["facts"]["error"] == "no column 'sao'"
    assert row["link"] == page
