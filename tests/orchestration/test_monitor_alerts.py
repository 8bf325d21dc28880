"""The alerts of the last weeks, as their page says them."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from recsys.alerting import Alert, AlertManager, RunEvent, Severity, Texts
from recsys.alerting.runs import tell_of_run
from recsys.orchestration.monitor.alerts import DAYS, SHOWN, gather_alerts
from recsys.orchestration.monitor.sections import section
from recsys.schedule import load_zone
from recsys.settings import Settings
from tests.orchestration.monitor_pages import render

NOW = datetime.now(UTC)


def show_alerts(settings: Settings, language: str = "vi") -> str:
    found = section(lambda: gather_alerts(settings, NOW))
    words = Texts(language, UTC).worded
    shown = {"alerts": found, "alert_days": DAYS, "most": SHOWN, "words": words}
    return render(settings, "alerts.html", language, **shown)


def manager_at(settings: Settings, ago: timedelta) -> AlertManager:
    return AlertManager(settings, clock=lambda: NOW - ago)


def condition(name: str, severity: Severity = Severity.CRITICAL) -> Alert:
    return Alert(name, f"{name} is the case", severity, until_resolved=True)


def test_alerts_are_shown_newest_first_with_their_run(settings: Settings) -> None:
    manager = AlertManager(settings)
    manager.send_alert("first_alert", "one", "info")
    about = {"job": "data_refresh", "run_id": "manual__1+00"}
    manager.send_alert("second_alert", "two", "critical", ["log"], context=about)
    page = show_alerts(settings)
    assert page.index("second_alert") < page.index("first_alert")
    assert "Nghiêm trọng" in page
    assert "/recsys/runs/data_refresh/manual__1%2B00" in page


def test_what_is_over_says_after_how_long_and_what_is_not_stands_first(settings: Settings) -> None:
    manager_at(settings, timedelta(hours=9)).deliver(condition("tracking_silent"))
    manager_at(settings, timedelta(hours=8)).deliver(condition("served_lists_lost"))
    manager_at(settings, timedelta(hours=6)).resolve("tracking_silent", "events come again")
    happened = condition("an_event", Severity.WARNING)
    manager_at(settings, timedelta(hours=1)).deliver(replace(happened, event=True))
    found = gather_alerts(settings, NOW)
    assert [one.alert.name for one in found.open] == ["served_lists_lost"]
    assert [one.alert.name for one in found.others] == ["an_event", "tracking_silent"]
    event, silent = found.others
    assert (event.over, event.open) == (None, False)
    assert silent.lasted == 3 * 3_600
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", show_alerts(settings, "en")))
    assert "1 thing is not resolved" in text
    assert "Resolved after 3.0 h" in text
    assert text.index("served_lists_lost") < text.index("an_event") < text.index("tracking_silent")


def test_what_is_told_again_after_a_while_is_one_thing_until_it_is_over(settings) -> None:
    for hours in (9, 1):
        manager_at(settings, timedelta(hours=hours)).send_alert("data_drift", "high", "critical")
    found = gather_alerts(settings, NOW)
    assert [(one.at - NOW, one.open) for one in found.open] == [(timedelta(hours=-1), True)]
    assert len(found.others) == 1
    manager_at(settings, timedelta(0)).resolve("data_drift", "low again")
    assert gather_alerts(settings, NOW + timedelta(minutes=1)).open == []


def test_a_notice_that_something_is_over_is_no_alert_of_its_own(settings: Settings) -> None:
    manager_at(settings, timedelta(hours=2)).deliver(condition("tracking_silent"))
    AlertManager(settings).resolve("tracking_silent", "events come again")
    found = gather_alerts(settings, NOW + timedelta(minutes=1))
    assert len(found.open) + len(found.others) == 1
    assert "Everything that was told is over." in show_alerts(settings, "en")


def test_alerts_are_counted_by_day_and_severity_and_older_ones_are_left_out(
    settings: Settings,
) -> None:
    for days, name, severity in (
        *((0, "a", Severity.WARNING), (3, "b", Severity.WARNING), (3, "c", Severity.CRITICAL)),
        *((3, "d", Severity.WARNING), (DAYS + 1, "e", Severity.WARNING)),
    ):
        manager_at(settings, timedelta(days=days)).deliver(condition(name, severity))
    found = gather_alerts(settings, NOW)
    assert {one.alert.name for one in found.open} == set("abcde")  # "e" is not over, either
    lines = {line.name: list(line.values) for line in found.chart.lines}
    day = str((NOW - timedelta(days=3)).astimezone(load_zone(settings)).date())
    at = list(found.chart.days).index(day)
    assert len(found.chart.days) == DAYS
    assert (lines["alerts_warning"][at], lines["alerts_critical"][at]) == (2, 1)
    assert (lines["alerts_warning"][-1], sum(lines["alerts_info"])) == (1, 0)


def test_an_alert_is_told_in_the_language_of_the_page_whatever_the_mail_was(
    settings: Settings,
) -> None:
    tell_of_run(RunEvent("task_failed", "data_refresh", "manual__1", "manual", task="x"), settings)
    vi, en = show_alerts(settings), show_alerts(settings, "en")
    assert "Pipeline data_refresh thất bại" in vi
    assert "Bước x của data_refresh thất bại sau lần thử cuối cùng." in vi
    assert "Với cửa hàng:" in vi
    assert "Pipeline data_refresh failed" in en
    assert "Task x of data_refresh failed at its last try." in en
    assert "For the shop:" in en
    assert "thất bại" not in en


def test_an_alert_that_an_earlier_release_has_told_keeps_its_words(settings: Settings) -> None:
    said = {"text": "Bước x thất bại.", "headline": "Pipeline x thất bại"}
    manager_at(settings, timedelta(hours=1)).deliver(replace(condition("x_failed"), **said))
    for language in ("vi", "en"):
        page = show_alerts(settings, language)
        assert all(words in page for words in said.values())


def test_weeks_without_an_alert_and_a_schedule_that_cannot_be_read_are_sentences(
    settings: Settings,
) -> None:
    assert f"Không có cảnh báo nào trong {DAYS} ngày." in show_alerts(settings)
    path = settings.home / "config" / "scheduler_config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    page = show_alerts(settings)
    assert "Không đọc được phần này" in page
    assert "scheduler_config.json" in page
