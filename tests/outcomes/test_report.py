"""The report of four weeks: what it says, and that it says it of anything."""

import json
import math
import re
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from recsys import schema
from recsys.data.simulated import note_traffic
from recsys.outcomes.job import compute_outcomes
from recsys.outcomes.report import (
    DAYS,
    _draw_lines,
    build_report,
    render_page,
    write_outcome_report,
)
from recsys.schedule import DataInterval, load_zone
from recsys.settings import Settings
from tests.data.shop import refresh, row, write_shop
from tests.outcomes.shop import NOON, a_list, an_event, record, send
from tests.outcomes.test_job import DAY


def run(settings: Settings, days: float = 3) -> None:
    now = NOON + timedelta(days=days)
    compute_outcomes(settings, DataInterval(now - timedelta(hours=1), now))


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """Two days, two models, a holdout of a third of the customers."""
    lists, events = [], []
    for number in range(240):
        held = number % 3 == 0
        other = {"experiment": "holdout", "variant": "popularity"} if held else {}
        lists.append(
            a_list(
                number, ["a", "b", "c"], f"u{number % 120}", 24.0 * (number % 2),
                model_id=f"als_{number % 2}", placement="<home>",
                sources="ppp" if held else "mme", **other,
            )
        )  # fmt: skip
        if number % (6 if held else 1) == 0:
            at = 24.0 * (number % 2) + 1
            events.append(an_event(number, "abc"[number % 3], user=f"u{number % 120}", hours=at))
        if (number % 12 == 0 and not held) or number % 24 == 0:
            events.append(
                an_event(
                    f"p{number}", "b", "purchase", f"u{number % 120}", 24.0 * (number % 2) + 2,
                    value=1000.0,
                )
            )  # fmt: skip
    record(settings, lists, lost=5)
    send(settings, events)
    run(settings)
    return settings


def test_the_report_says_what_happened(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    totals = report["totals"]
    assert (totals["lists"], totals["items"]) == (240, 720)
    assert [one["lists"] for one in report["days"]] == [120, 120]
    rate = report["rates"]["click_rate"]
    assert rate["value"] == totals["clicks"] / 240
    assert rate["low"] < rate["value"] < rate["high"]
    by_model = {one["key"]: one for one in report["by"]["model"]}
    assert [by_model[f"als_{n}"]["lists"] for n in (0, 1)] == [120, 120]
    assert sum(one["clicks"] for one in by_model.values()) == totals["clicks"]
    sources = {one["key"]: one["items"] for one in report["by"]["source"]}
    assert sources == {"model": 320, "explore": 160, "popularity": 240}
    assert [one["shown"] for one in report["positions"]] == [240, 240, 240]
    assert report["lost_lists"] == 5
    assert report["coverage"] is None
    assert report["happened"]["attributed"]["click"] >= totals["clicks"]
    assert set(report["series"]["model"]["als_0"][0]) == {"day", "rate"}


def test_the_uplift_is_that_of_everybody_else_over_the_holdout(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    clicks = report["uplift"]["clicks_per_user"]
    assert clicks["rest"] > clicks["holdout"] > 0
    assert clicks["value"] == pytest.approx(clicks["rest"] / clicks["holdout"] - 1)
    assert clicks["low"] < clicks["value"] < clicks["high"]
    # All that customers spent counts on both sides, attributed or not.
    assert report["totals"]["spent"] >= report["totals"]["value"]


def test_the_page_is_one_file_that_takes_names_for_no_markup(shop: Settings) -> None:
    note_traffic(shop, NOON, NOON, lists=7, events=3)
    summary = write_outcome_report(shop, DAY + timedelta(days=1))
    assert summary["page"] == "reports/outcomes/outcomes_20260311.html"
    page = (shop.home / summary["page"]).read_text(encoding="utf-8")
    assert "&lt;home&gt;" in page
    assert "<home>" not in page
    assert "Some of this traffic is simulated: 7 lists and 3 events" in page
    assert page.count('src="data:image/png;base64,') == 8
    assert "http" not in page.replace("http-equiv", "")
    report = json.loads((shop.home / summary["report"]).read_text(encoding="utf-8"))
    assert report["totals"]["lists"] == summary["lists"] == 240
    assert not any(isinstance(one, float) and math.isnan(one) for one in numbers(report))


def test_tables_and_plots_are_wider_than_a_telephone_by_themselves(shop: Settings) -> None:
    page = render_page(build_report(shop, date(2026, 3, 12)))
    assert page.count("<table>") == page.count('<div class="wide"><table>') > 1
    assert page.count("<img ") == page.count('<p class="wide"><img ') > 1


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [one for inner in value.values() for one in numbers(inner)]
    return (
        [one for inner in value for one in numbers(inner)] if isinstance(value, list) else [value]
    )


def test_a_report_of_nothing_says_so(settings: Settings) -> None:
    summary = write_outcome_report(settings, DAY)
    assert (summary["days"], summary["lists"]) == (0, 0)
    page = (settings.home / summary["page"]).read_text(encoding="utf-8")
    assert "No lists were served in these days." in page
    assert "<img" not in page


def test_days_before_the_four_weeks_are_not_in_it(settings: Settings) -> None:
    record(settings, [a_list(1, "ab"), a_list(2, "ab", hours=24.0 * DAYS)])
    run(settings, DAYS + 1)
    report = build_report(settings, DAY + timedelta(days=DAYS))
    assert [one["day"] for one in report["days"]] == [str(DAY + timedelta(days=DAYS))]


def test_one_list_and_no_event_make_a_page(settings: Settings) -> None:
    record(settings, [a_list(1, "a", user="", session_id="")])
    run(settings)
    summary = write_outcome_report(settings, DAY)
    report = json.loads((settings.home / summary["report"]).read_text(encoding="utf-8"))
    assert report["rates"]["click_rate"] == {"value": 0.0, "low": None, "high": None}
    assert report["anonymous_lists"] == 1


def test_coverage_counts_what_can_be_bought_and_what_is_new(settings: Settings) -> None:
    # Products 0 to 8 are in the catalogue; 1 was rated long ago, 2 lately, the others never.
    write_shop(settings, [row("u1", 1), row("u2", 2, time="2026-03-01 10:00:00")])
    refresh(settings, NOON)
    record(settings, [a_list(1, ["1", "2", "3", "gone"])])
    run(settings)
    coverage = build_report(settings, DAY)["coverage"]
    assert coverage["catalogue"] == 9
    assert (coverage["shown"], coverage["new"], coverage["new_shown"]) == (3, 8, 2)
    assert coverage["share_of_top_percent"] == 0.25
    assert schema.PRODUCT not in coverage


def text_of(page: str) -> str:
    """What a reader sees: without styles and tags, which do not part words."""
    return re.sub(r"<[^>]*>", "", page.split("</style>")[1])


def test_numbers_stand_apart_and_are_written_out(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    report["uplift"]["spent_per_user"] |= {"rest": 22_320.4, "holdout": 0.00004}
    text = text_of(render_page(report))
    assert "22,320" in text
    assert not re.search(r"\de[+-]\d", text)
    low = report["rates"]["click_rate"]["low"]
    assert f"% {100 * low:.2f} to" in text
    assert f"{report['rates']['value_per_1000_lists']['value']:,.0f} " in text


def test_a_holdout_that_tells_nothing_yet_has_no_picture(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    for one in report["uplift"].values():
        one |= {"low": None, "high": None}
    page = render_page(report)
    assert "too few customers" in page
    assert page.count('src="data:image/png;base64,') == 7


def test_a_day_without_an_interval_has_no_band() -> None:
    known, unknown = (
        {"value": 0.2, "low": low, "high": high} for low, high in ((0.1, 0.3), (None,) * 2)
    )
    days = [{"day": f"2026-03-{1 + n:02}", "rate": unknown if n == 1 else known} for n in range(5)]
    axes = Figure().subplots()
    _draw_lines({"all": days}, "click_rate", None, axes)
    [band] = axes.collections
    marked = {
        round(x - date2num(date(2026, 3, 1))) for path in band.get_paths() for x, _ in path.vertices
    }
    assert marked == {0, 2, 3, 4}


def test_days_long_past_are_over(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    assert report["open_since"] is None
    assert "not over yet" not in render_page(report)


def test_the_last_days_are_not_over(settings: Settings) -> None:
    today = datetime.now(load_zone(settings)).date()
    report = build_report(settings, today - timedelta(days=2))
    assert report["open_since"] == str(today - timedelta(days=7))
    assert "not over yet" in render_page(report)


def test_a_first_day_of_few_lists_presses_no_other_day_to_the_ground_and_no_name_lies_on_a_point():
    def day(number: int, value: float, wide: float) -> dict[str, Any]:
        rate = {"value": value, "low": max(0.0, value - wide), "high": value + wide}
        return {"day": (DAY + timedelta(days=number)).isoformat(), "rate": rate}

    usual = [day(number, 0.05, 0.01) for number in range(1, 9)]
    figure = Figure(figsize=(8.4, 3.2))
    axes = figure.add_axes((0.08, 0.13, 0.88, 0.76))
    _draw_lines({"als_1": [day(0, 0.5, 0.5), *usual], "als_2": usual}, "click_rate", None, axes)
    assert 6 < axes.get_ylim()[1] < 12  # per cent, not a hundred
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= axes.get_window_extent().y1 - 1
    assert legend.y1 <= figure.bbox.y1


def test_the_year_is_written_once_a_day_and_agrees_with_the_report(shop: Settings) -> None:
    run(shop)
    now = DAY + timedelta(days=3)
    write_outcome_report(shop, now)
    path = shop.reports / "outcomes" / "year.json"
    year, report = json.loads(path.read_text()), build_report(shop, now)
    assert year["totals"]["clicks"] == report["totals"]["clicks"] > 0
    assert year["totals"]["click_rate"] == report["rates"]["click_rate"]
    for name in ("placement", "model", "side"):
        for ours, theirs in zip(year["by"][name], report["by"][name], strict=True):
            assert {one: theirs[one] for one in ours} == ours
    for name, found in year["uplift"].items():
        assert found == {one: report["uplift"][name][one] for one in found}
    path.write_text(json.dumps({"last_day": str(now)}))
    write_outcome_report(shop, now - timedelta(days=1))  # of past days, again
    write_outcome_report(shop, now)
    assert json.loads(path.read_text()) == {"last_day": str(now)}
    write_outcome_report(shop, now + timedelta(days=1))
    assert json.loads(path.read_text())["last_day"] == str(now + timedelta(days=1))
