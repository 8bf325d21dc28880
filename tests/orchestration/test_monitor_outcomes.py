"""What became of the lists, as the page of outcomes says it."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.monitor.made_year import SILENT, make_year
from recsys.orchestration.monitor.outcomes import RATES, SLICES, gather_outcomes
from recsys.orchestration.monitor.sections import section
from recsys.publishing import write_json
from recsys.schedule import load_zone
from recsys.settings import Settings
from tests.orchestration.monitor_pages import render

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(tmp_path_factory.mktemp("outcomes") / "home")
    make_year(settings, NOW, days=40)
    return settings


@pytest.fixture
def month(made: Settings, settings: Settings) -> Settings:
    """A state root with reports of its own."""
    for path in (made.reports / "outcomes").iterdir():
        target = settings.reports / "outcomes" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return settings


def newest(settings: Settings) -> Path:
    return max((settings.reports / "outcomes").glob("outcomes_*.json"))


def page(settings: Settings, language: str = "en", span: int = 28) -> str:
    found = section(lambda: gather_outcomes(settings, span))
    shown = {"spans": (28, 365), "span": span, "slices": SLICES, "rates": RATES}
    silent = ", ".join(found.content.silent) if found.content else ""
    html = render(
        *(settings, "outcomes.html", language),
        **{"found": found, "steps": ("items", "clicks", "carts", "purchases")},
        **shown,
        silent_days=silent,
    )
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


@pytest.mark.parametrize("span", [28, 365])
def test_rates_have_intervals_day_by_day_and_by_key(month: Settings, span: int) -> None:
    found = gather_outcomes(month, span)
    assert found is not None
    assert found.total["clicks"] < found.total["items"]
    charts = {chart.name: chart for chart in found.charts}
    [clicks] = charts["click_rate"].lines
    known = [ends for ends in zip(clicks.low, clicks.values, clicks.high, strict=True) if ends[1]]
    assert known
    assert all(low < value < high for low, value, high in known)
    assert set(found.by) == set(SLICES)
    home, *_ = found.by["placement"]
    assert home["key"] == "home"
    for rate in RATES:
        assert 0 < home[rate]["low"] < home[rate]["value"] < home[rate]["high"]
        assert home[rate]["high"] <= found.widest["placement"][rate]
    assert {line.name for line in charts["click_rate_by_placement"].lines} == {
        *("home", "product", "cart")
    }


def test_a_silent_day_is_marked_and_has_no_rates(month: Settings) -> None:
    silent = str((NOW.astimezone(load_zone(month)) - SILENT * DAY).date())
    found = gather_outcomes(month, 28)
    assert found is not None
    assert found.silent == [silent]
    charts = {chart.name: chart for chart in found.charts}
    for name, chart in charts.items():
        at = list(chart.days).index(silent)
        assert list(chart.marks) == [silent]
        values = [line.values[at] for line in chart.lines]
        assert all(values) if name == "lists" else values == [None] * len(values)
    assert "Tracking was silent On these days lists were shown and no event came" in page(month)
    assert silent in page(month)
    year = gather_outcomes(month, 365)
    assert year is not None
    assert year.silent == [silent]


def test_the_year_is_the_sum_of_its_weeks(month: Settings) -> None:
    year = json.loads((month.reports / "outcomes" / "year.json").read_text())
    for name in ("lists", "clicks", "purchases"):
        assert sum(week[name] for week in year["weeks"]) == year["totals"][name] > 0
        placements = sum(row[name] for row in year["by"]["placement"])
        assert placements == pytest.approx(year["totals"][name], rel=0.05)
    assert year["days"] == 39
    assert all(datetime.fromisoformat(week["day"]).weekday() == 0 for week in year["weeks"])


def test_whether_lists_sell_is_said_in_a_sentence(month: Settings) -> None:
    path = newest(month)
    report = json.loads(path.read_text())

    def said(**changes: object) -> str:
        write_json(path, report | changes)
        return page(month)

    def uplift(low: float | None, high: float | None) -> dict:
        return {"bought_per_user": {"value": 0.05, "low": low, "high": high}}

    yes = said(uplift=uplift(0.01, 0.09))
    assert "Yes: customers with recommendations buy more" in yes
    assert "All purchases per customer and day: +5.0% (+1.0% to +9.0%)" in yes
    assert "No: customers with recommendations buy less" in said(uplift=uplift(-0.09, -0.01))
    assert "Not known yet" in said(uplift=uplift(-0.01, 0.09))
    assert "Not known yet" in said(uplift=uplift(None, None))
    alone = said(uplift=None)
    assert "nobody knows whether they would have bought anyway" in alone
    assert "holdout_share" in alone
    quiet = report["totals"] | {"clicks": 0, "purchases": 0}
    assert "Unknown: no click and no purchase was ever sent." in said(totals=quiet)
    assert "No list was given yet." in said(totals=quiet | {"lists": 0}, days=[])


def test_the_page_speaks_before_the_first_report_and_of_a_damaged_one(
    month: Settings, settings: Settings
) -> None:
    newest(month).write_text('{"days": 3}')
    assert "is no report of outcomes" in page(month)
    assert "Do the recommendations sell?" in page(month, span=365)
    for path in (month.reports / "outcomes").iterdir():
        path.unlink()
    for span in (28, 365):
        assert "No report yet" in page(month, span=span)
