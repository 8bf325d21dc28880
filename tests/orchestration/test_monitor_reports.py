"""Which files the monitor takes for report pages."""

import json
import re
from datetime import date, timedelta

import pytest

from recsys.orchestration.monitor.reports import (
    WEEKLY,
    WEEKS,
    drift_severity,
    find_page,
    gather_reports,
    list_pages,
    pages_of_run,
)
from tests.orchestration.monitor_pages import render


@pytest.fixture
def reports(settings):
    """Three drift pages, one of quality, and files beside them that are no pages."""
    drift, quality = settings.reports / "drift", settings.reports / "data_quality"
    drift.mkdir(parents=True)
    quality.mkdir()
    for day in ("20230102", "20230116", "20230109"):
        (drift / f"drift_report_{day}.html").write_text(f"<h1>{day}</h1>")
    (drift / "drift_report_20230116.json").write_text(json.dumps({"overall_severity": "high"}))
    (drift / "last_retrain.json").write_text("{}")
    (drift / "notes.html").write_text("not a report")
    (quality / "20230101T000000Z-a.html").write_text("<h1>a</h1>")
    (quality / ".20230101T000000Z-b.html.1f.tmp").write_text("half written")
    (settings.home / "secret.html").write_text("secret")
    (quality / "leak.html").symlink_to(settings.home / "secret.html")
    return settings


def test_pages_are_listed_newest_first_without_what_is_no_page(reports):
    names = [page.name for page in list_pages(reports, "drift")]
    assert names == [f"drift_report_{day}.html" for day in ("20230116", "20230109", "20230102")]
    assert list_pages(reports, "drift")[0].title == "20230116"
    assert [page.name for page in list_pages(reports, "data_quality")] == [
        "20230101T000000Z-a.html"
    ]


def test_a_missing_folder_has_no_pages(settings):
    assert list_pages(settings, "drift") == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("drift", "../data_quality/20230101T000000Z-a.html"),
        ("drift", "../../secret.html"),
        ("drift", "drift_report_20230116.json"),
        ("drift", "notes.html"),
        ("drift", ""),
        ("drift", "drift_report_*.html"),
        ("data_quality", "leak.html"),
        ("data_quality", "/etc/passwd"),
        ("..", "secret.html"),
        ("health", "latest.json"),
        ("../reports/drift", "drift_report_20230116.html"),
    ],
)
def test_only_what_the_folder_lists_is_found(reports, kind, name):
    assert find_page(reports, kind, name) is None


def test_a_page_is_one_report_in_each_language_that_it_was_written_in(reports):
    folder = reports.reports / "drift"
    (folder / "drift_report_20230109.en.html").write_text("<h1>week</h1>")
    (folder / "drift_report_20230116.en.html").symlink_to(reports.home / "secret.html")
    pages = list_pages(reports, "drift")
    assert [page.name_in("vi") for page in pages] == [page.name for page in pages]
    assert [page.name_in("en") for page in pages] == [
        "drift_report_20230116.html",
        "drift_report_20230109.en.html",
        "drift_report_20230102.html",
    ]
    assert find_page(reports, "drift", "drift_report_20230116.en.html") is None
    found = find_page(reports, "drift", "drift_report_20230109.en.html")
    assert found is not None
    assert found.path.read_text() == "<h1>week</h1>"


def test_the_severity_of_a_drift_page_is_unknown_without_its_json(reports):
    newest, _, oldest = list_pages(reports, "drift")
    assert drift_severity(newest) == "high"
    assert drift_severity(oldest) is None


def test_the_pages_of_a_run_are_those_its_tasks_name(reports):
    summary = {
        "detect": {"page": "reports/drift/drift_report_20230109.html", "rows": 3},
        "summarise": {
            "page": "reports/drift/drift_report_20230109.html",
            "gone": "reports/drift/drift_report_19990101.html",
            "trick": "reports/drift/../../secret.html",
        },
        "is_current": True,
        "train": [{"page": "reports/drift/drift_report_20230102.html"}],
    }
    assert [page.title for page in pages_of_run(reports, summary)] == ["20230109"]
    assert pages_of_run(reports, None) == []


def show(settings, language="vi"):
    found = gather_reports(settings)._asdict()
    page = render(settings, "reports.html", language, **found, weekly=WEEKLY)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)), page


def test_the_reports_of_a_week_stand_in_one_row(reports):
    outcomes = reports.reports / "outcomes"
    outcomes.mkdir()
    for day in ("20230116", "20230118", "20230122", "20230123"):
        (outcomes / f"outcomes_{day}.html").write_text("x")
    weeks = gather_reports(reports).weeks
    assert [week.monday for week in weeks] == [
        *("2023-01-23", "2023-01-16", "2023-01-09", "2023-01-02", "2022-12-26")
    ]
    second = weeks[1]
    assert second.severity == "high"
    assert [page.title for page in second.pages["outcomes"]] == ["20230122", "20230118", "20230116"]
    assert set(second.pages) == {"drift", "outcomes"}
    text, page = show(reports, "en")
    assert "from 16 Jan 2023 16 Jan 2023 High – 22 Jan 2023 and 2 more that week" in text
    assert "/recsys/reports/outcomes/outcomes_20230122.html" in page
    # All of them are there, folded away.
    assert "/recsys/reports/outcomes/outcomes_20230118.html" in page
    assert "Outcomes (4)" in text


def test_a_shop_without_reports_has_a_sentence_for_each_kind(settings):
    text, _ = show(settings)
    assert text.count("Chưa có báo cáo nào.") == 5


def test_a_page_whose_name_is_no_day_is_in_no_week_and_still_there(reports):
    (reports.reports / "drift" / "drift_report_20239999.html").write_text("x")
    assert len(gather_reports(reports).weeks) == 4
    assert "drift_report_20239999.html" in show(reports)[1]


def test_old_weeks_are_folded_away(settings):
    folder = settings.reports / "drift"
    folder.mkdir(parents=True)
    monday = date(2026, 3, 2)
    for week in range(WEEKS + 3):
        day = monday - timedelta(weeks=week)
        (folder / f"drift_report_{day:%Y%m%d}.html").write_text("x")
    found = gather_reports(settings)
    assert [week.monday for week in found.weeks][:2] == ["2026-03-02", "2026-02-23"]
    assert len(found.weeks) == WEEKS
    assert len(found.pages["drift"].content) == WEEKS + 3
