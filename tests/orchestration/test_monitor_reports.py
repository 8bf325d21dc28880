"""Which files the monitor takes for report pages."""

import json

import pytest

from recsys.experiments.definitions import Definition
from recsys.experiments.state import Experiments
from recsys.orchestration.monitor.reports import (
    drift_severity,
    find_page,
    gather_reports,
    list_pages,
    pages_of_run,
)
from tests.orchestration.monitor_pages import render
from tests.serving.shops import add_model


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


def show(settings):
    return render(settings, "reports.html", **gather_reports(settings)._asdict())


def test_the_outcomes_of_four_weeks_are_shown_with_their_page(settings):
    folder = settings.reports / "outcomes"
    folder.mkdir(parents=True)
    rate = {"value": 0.0512, "low": 0.05, "high": 0.0525}
    report = {
        "days": [{"day": f"2026-03-0{n}", "click_rate": {"value": n / 100}} for n in (1, 2)],
        "totals": {"lists": 1234567},
        "rates": {"click_rate": rate, "purchase_rate": dict.fromkeys(rate)}
        | {"value_per_1000_lists": rate | {"value": 98765.4}},
    }
    (folder / "outcomes_20260301.html").write_text("older")
    (folder / "outcomes_20260302.html").write_text("x")
    (folder / "outcomes_20260302.json").write_text(json.dumps(report))
    page = show(settings)
    for shown in ("1.234.567", "5,12%", "5,00% – 5,25%", "98.765"):
        assert shown in page
    assert "/recsys/reports/outcomes/outcomes_20260302.html" in page
    (folder / "outcomes_20260302.json").write_text('{"days": 3}')
    assert "outcomes_20260302.json: is no report of outcomes" in show(settings)


def test_an_experiment_stands_there_from_its_start(settings):
    """Its first report is written by the next hour's job."""
    add_model(settings, "als_1")
    add_model(settings, "als_2", select=False)
    variants = [{"name": "today", "share": 0.5}, {"name": "new", "share": 0.5, "model_id": "als_2"}]
    content = {"name": "blend", "question": "Is it better?", "primary_metric": "clicks_per_list"}
    began = Definition.model_validate(content | {"variants": variants})
    Experiments(settings).start(began, by="lan")
    assert ">blend</b>" in show(settings)
    Experiments(settings).stop("blend", by="lan", because="enough")
    assert ">blend</b>" not in show(settings)
