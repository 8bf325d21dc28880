import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from recsys.config import ConfigError
from recsys.database import connect
from recsys.errors import InputError
from recsys.health import evaluate, report_is_overdue, watch_reports
from recsys.health.examination import BrokenCheckError
from tests.health.test_service import TABLE
from tests.sinks import log_lines

NOW = datetime(2025, 1, 15, 8, 35, tzinfo=UTC)
GOOD = {"healthy": True}
RESULTS = dict.fromkeys(("service", "data", "model", "pipeline"), GOOD)


def bad(severity="critical", error="it is broken"):
    return {"healthy": False, "severity": severity, "error": error, "problems": []}


def latest(settings):
    return json.loads((settings.reports / "health" / "latest.json").read_text())


def test_a_healthy_system_gives_a_report_and_no_alert(shop, mails):
    summary = evaluate(shop, RESULTS, now=NOW)
    assert summary == {
        "status": "healthy",
        "unhealthy": [],
        "alerts": [],
        "overdue_jobs": [],
        "redelivered": 0,
        "heartbeat": "not set up",
        "report": "reports/health/health_20250115_1535.json",
    }
    report = json.loads((shop.home / summary["report"]).read_text())
    assert report == latest(shop)
    assert report["metrics"]["requests"] is None
    assert set(report["checks"]) == set(RESULTS)
    assert mails.mails == []


def test_an_unhealthy_system_is_told_once_and_its_recovery_too(shop, mails, slack):
    for minute in range(3):
        now = NOW + timedelta(minutes=minute)
        assert evaluate(shop, RESULTS | {"service": bad()}, now=now)["status"] == "critical"
    assert len(mails.mails) == len(slack.posts) == 1
    assert mails.mails[0]["Subject"] == "[CRITICAL] System unhealthy: service"
    evaluate(shop, RESULTS, now=NOW)
    evaluate(shop, RESULTS, now=NOW)
    assert len(mails.mails) == len(slack.posts) == 2
    assert mails.mails[1]["Subject"] == "[RESOLVED] Resolved: service_unhealthy"


@pytest.mark.parametrize("order", [("service", "pipeline"), ("pipeline", "service")])
def test_a_warning_never_hides_a_critical(shop, order):
    results = RESULTS | {order[0]: bad("critical"), order[1]: bad("warning")}
    assert evaluate(shop, results, now=NOW)["status"] == "critical"


def test_a_warning_that_gets_worse_is_told_again(shop, mails, slack):
    evaluate(shop, RESULTS | {"data": bad("warning")}, now=NOW)
    assert (len(mails.mails), len(slack.posts)) == (1, 0)
    evaluate(shop, RESULTS | {"data": bad("critical")}, now=NOW)
    assert (len(mails.mails), len(slack.posts)) == (2, 1)


def test_the_last_hour_is_held_against_the_rules(shop, mails):
    with connect(shop.service_db) as database:
        database.execute(TABLE)
        database.executemany(
            "INSERT INTO requests (timestamp, user_id, latency_ms, fallback, error)"
            " VALUES (?, ?, 215.3, 0, ?)",
            [("2025-01-15 08:30:00", user, None) for user in range(20)],
        )
    summary = evaluate(shop, RESULTS, now=NOW)
    assert summary["alerts"] == ["high_latency"]
    assert summary["status"] == "warning"
    line = "WARNING | alerting | high_latency triggered: avg_latency_ms=215.3 > 200"
    assert line in log_lines(shop)
    assert latest(shop)["alerts"][0]["value"] == 215.3


def test_one_component_gives_a_partial_report_and_leaves_the_last_full_one(shop):
    evaluate(shop, RESULTS, now=NOW)
    later = NOW + timedelta(minutes=5)
    summary = evaluate(shop, {"data": bad("warning")}, "data", now=later)
    assert summary["unhealthy"] == ["data"]
    report = json.loads((shop.home / summary["report"]).read_text())
    assert set(report["checks"]) == {"data"}
    assert "metrics" not in report
    assert latest(shop)["generated_at"] == NOW.isoformat()


def test_an_unknown_component_is_refused(shop):
    with pytest.raises(InputError, match="expected one of service, data, model, pipeline"):
        evaluate(shop, RESULTS, "disk")


def test_a_check_that_broke_fails_the_run_after_the_others_were_told(shop, mails):
    with pytest.raises(BrokenCheckError, match="the data check broke"):
        evaluate(shop, RESULTS | {"data": None, "service": bad()}, now=NOW)
    assert [mail["Subject"] for mail in mails.mails] == ["[CRITICAL] System unhealthy: service"]
    assert latest(shop)["status"] == "critical"
    assert latest(shop)["checks"]["data"]["broken"] is True


@pytest.mark.parametrize(
    ("database", "part"), [("service_db", "traffic"), ("pipeline_db", "silence")]
)
def test_a_damaged_database_fails_the_run_after_the_report(shop, database, part, mails):
    evaluate(shop, RESULTS, now=NOW - timedelta(days=30))
    path = getattr(shop, database)
    path.unlink(missing_ok=True)
    if part == "traffic":
        path.write_bytes(b"this is no database" * 1000)
    else:  # what can be set aside and made again is no reason
        path.symlink_to(shop.home / "away" / "some.db")
    with pytest.raises(BrokenCheckError, match=part):
        evaluate(shop, RESULTS | {"data": bad()}, now=NOW)
    assert latest(shop)["broken"] == [part]
    assert latest(shop)["status"] == "critical"
    assert "[CRITICAL] System unhealthy: data" in [mail["Subject"] for mail in mails.mails]


def test_a_bad_configuration_fails_the_run(shop):
    (shop.home / "config" / "health.yaml").write_text("metrics: {window: 5}")
    with pytest.raises(ConfigError, match=r"health\.yaml: metrics\.window: there is no such key"):
        evaluate(shop, RESULTS, now=NOW)


def test_what_a_channel_refused_is_delivered_at_the_next_check(shop, slack):
    slack.status = 500
    evaluate(shop, RESULTS | {"service": bad()}, now=NOW)
    slack.status = 200
    assert evaluate(shop, RESULTS | {"service": bad()}, now=NOW)["redelivered"] == 1
    assert evaluate(shop, RESULTS | {"service": bad()}, now=NOW)["redelivered"] == 0


def test_old_reports_are_removed(shop):
    first = evaluate(shop, RESULTS, now=NOW)["report"]
    old = (datetime.now(UTC) - timedelta(days=91)).timestamp()
    os.utime(shop.home / first, (old, old))
    evaluate(shop, RESULTS)
    assert not (shop.home / first).exists()
    assert (shop.reports / "health" / "latest.json").exists()


def aged(settings, **span):
    moment = (datetime.now(UTC) - timedelta(**span)).timestamp()
    os.utime(settings.reports / "health" / "latest.json", (moment, moment))


def test_reports_are_overdue_after_two_hours(shop):
    now = datetime.now(UTC)
    assert report_is_overdue(shop, now) is False
    evaluate(shop, RESULTS)
    aged(shop, minutes=119)
    assert report_is_overdue(shop, now) is False
    aged(shop, minutes=121)
    assert report_is_overdue(shop, now) is True
    assert report_is_overdue(shop, now, since=now - timedelta(minutes=5)) is False


def test_a_service_that_never_saw_a_report_waits_two_hours(shop):
    now = datetime.now(UTC)
    assert report_is_overdue(shop, now, since=now - timedelta(minutes=119)) is False
    assert report_is_overdue(shop, now, since=now - timedelta(minutes=121)) is True


def test_a_health_check_that_is_switched_off_is_never_overdue(shop):
    evaluate(shop, RESULTS)
    aged(shop, days=1)
    job = {"enabled": False, "cron": "0 * * * *", "timeout_minutes": 5, "deadline_minutes": 3}
    content = {"timezone": "Asia/Ho_Chi_Minh", "jobs": {"health_check": job}}
    (shop.home / "config" / "scheduler_config.json").write_text(json.dumps(content))
    assert report_is_overdue(shop, datetime.now(UTC)) is False


def test_a_health_check_with_a_bad_schedule_is_overdue_when_it_stops(shop):
    evaluate(shop, RESULTS)
    aged(shop, days=1)
    content = {"jobs": {"health_check": {"cron": "never"}}}
    (shop.home / "config" / "scheduler_config.json").write_text(json.dumps(content))
    assert report_is_overdue(shop, datetime.now(UTC)) is True


def test_the_service_tells_once_that_reports_stopped_and_that_they_are_back(shop, mails, slack):
    now = datetime.now(UTC)
    since = now - timedelta(hours=5)
    evaluate(shop, RESULTS)
    assert watch_reports(shop, now, since) is False
    aged(shop, hours=3)
    for _ in range(3):
        assert watch_reports(shop, now, since) is True
    assert len(mails.mails) == len(slack.posts) == 1
    assert mails.mails[0]["Subject"] == "[CRITICAL] Nobody is checking the system's health"
    evaluate(shop, RESULTS)
    assert watch_reports(shop, datetime.now(UTC), since) is False
    assert watch_reports(shop, datetime.now(UTC), since) is False
    assert len(mails.mails) == 2
