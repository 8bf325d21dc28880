"""The report of four weeks: what it says, and that it says it of anything."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys import schema
from recsys.data.simulated import note_traffic
from recsys.outcomes.job import compute_outcomes
from recsys.outcomes.page import render_outcome_pages
from recsys.outcomes.report import DAYS, build_report, write_outcome_report
from recsys.outcomes.year import outcome_year
from recsys.reporting.charts import Line, curves
from recsys.schedule import DataInterval, load_zone
from recsys.settings import Settings
from tests.data.shop import refresh, row, write_shop
from tests.outcomes.shop import NOON, a_list, an_event, record, send
from tests.outcomes.test_job import DAY

COURSES = ("click_rate", "purchase_rate", "value_per_1000_lists")


def run(settings: Settings, days: float = 3) -> None:
    now = NOON + timedelta(days=days)
    compute_outcomes(settings, DataInterval(now - timedelta(hours=1), now))


@pytest.fixture
def shop(settings: Settings) -> Settings:
    make_shop(settings)
    return settings


def make_shop(settings: Settings) -> None:
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


def test_days_without_a_holdout_say_nothing_of_the_uplift(shop: Settings) -> None:
    last = DAY + timedelta(days=2)
    before = build_report(shop, last)
    quiet = [a_list(900 + n, ["a"], f"u{n}", 48.0, placement="home") for n in range(60)]
    record(shop, quiet, lost=0)
    send(shop, [an_event("heard", "z", user="nobody", hours=49.0)])
    run(shop)
    after = build_report(shop, last)
    assert after["silent"] == []
    assert after["totals"]["lists"] == before["totals"]["lists"] + 60
    assert after["uplift"] == before["uplift"]


def test_rates_are_those_of_days_that_are_not_silent(shop: Settings) -> None:
    last = DAY + timedelta(days=2)
    before = build_report(shop, last)
    record(shop, [a_list(900 + n, ["a"], f"u{n}", 48.0) for n in range(100)], lost=0)
    run(shop)
    after = build_report(shop, last)
    assert after["silent"] == [str(last)]
    assert after["totals"]["lists"] == before["totals"]["lists"] + 100
    assert after["rates"] == before["rates"]
    year = outcome_year(shop, last + timedelta(days=1))
    assert year["totals"]["lists"] == after["totals"]["lists"]
    assert year["totals"]["click_rate"] == after["rates"]["click_rate"]


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
    assert "Một phần lượt truy cập này là mô phỏng:" in page
    assert "7 danh sách và 3 sự kiện" in page
    assert page.count('class="chart"') == 7
    for path in (shop.home / "reports" / "outcomes").glob("*.html"):
        assert not re.search(r"<script|<img|https?:", path.read_text(encoding="utf-8"))
    report = json.loads((shop.home / summary["report"]).read_text(encoding="utf-8"))
    assert report["totals"]["lists"] == summary["lists"] == 240
    assert not any(isinstance(one, float) and math.isnan(one) for one in numbers(report))


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
    assert "Không có danh sách nào trong những ngày này" in page
    assert '<span class="badge">Chưa đánh giá được</span>' in page
    assert "<svg" not in page


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


def english_page(report: dict[str, Any]) -> str:
    return render_outcome_pages(report, Path("outcomes_20260311.html"), UTC)["en"]


def text_of(page: str) -> str:
    """What a reader sees: without styles and tags, which do not part words."""
    return re.sub(r"<[^>]*>", "", page.split("</style>")[1])


def test_numbers_stand_apart_and_are_written_out(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    report["uplift"]["spent_per_user"] |= {"rest": 22_320.4, "holdout": 0.00004}
    text = text_of(english_page(report))
    assert "22,320" in text
    assert not re.search(r"\de[+-]\d", text)
    low = report["rates"]["click_rate"]["low"]
    assert f"({100 * low:.2f}% – " in text
    assert f"{report['rates']['value_per_1000_lists']['value']:,.0f} " in text


def test_a_holdout_that_tells_nothing_yet_has_no_picture(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    for one in report["uplift"].values():
        one |= {"low": None, "high": None}
    page = english_page(report)
    section = page[page.index('id="uplift"') : page.index('id="click_rate"')]
    assert "too few customers" in section
    assert '<span class="badge">Not judged</span>' in section
    assert "<svg" not in section


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.3, "spend more"), (-0.3, -0.1, "spend less"), (-1.0, 1.0, "No certain difference")],
)
def test_the_uplift_is_sure_only_beyond_its_interval(
    shop: Settings, low: float, high: float, words: str
) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    report["uplift"]["spent_per_user"] |= {"low": low, "high": high, "value": (low + high) / 2}
    section = english_page(report).split('id="uplift"')[1].split("</section>")[0]
    assert words in section


def test_a_page_leads_to_those_of_whole_weeks_before(shop: Settings) -> None:
    for days in (7, 13, 14):
        write_outcome_report(shop, DAY - timedelta(days=days))
    page = (shop.home / write_outcome_report(shop, DAY)["page"]).with_suffix(".en.html")
    links = re.findall(r'href="(outcomes_\d{8}.en.html)"', page.read_text(encoding="utf-8"))
    assert links[1:] == [
        f"outcomes_{DAY - timedelta(days=days):%Y%m%d}.en.html" for days in (7, 14)
    ]


def test_a_day_without_an_interval_has_no_band() -> None:
    known = [0.2, 0.2, 0.2, 0.2, 0.2]
    low, high = ([value, None, value, value, value] for value in (0.1, 0.3))
    picture = curves("x", list("abcde"), [Line("x", known, low, high)], str)
    bands = re.findall(r'<polygon class="band s1" points="([^"]*)"', picture)
    # A band of the first day alone, and one of the last three; each there and back.
    assert [len(band.split()) for band in bands] == [2, 6]


def test_a_day_of_which_no_event_arrived_is_not_judged(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    assert "nobody knows what customers did" not in english_page(report)
    report["silent"] = [report["days"][0]["day"]]
    page = english_page(report)
    assert "nobody knows what customers did: 10 Mar 2026." in page
    section = page.split('id="click_rate"')[1].split("</section>")[0]
    assert section.count("<circle") == 1  # the other day


def test_days_long_past_are_over(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    assert report["open_since"] is None
    assert "not over yet" not in english_page(report)


def test_the_last_days_are_not_over(settings: Settings) -> None:
    today = datetime.now(load_zone(settings)).date()
    report = build_report(settings, today - timedelta(days=2))
    assert report["open_since"] == str(today - timedelta(days=7))
    rate = {"value": 0.1, "low": 0, "high": 1}
    report["days"] = [{"day": report["last_day"], **dict.fromkeys(COURSES, rate)}]
    page = english_page(report)
    assert page.count("are not over yet") == 2  # of purchases and their value
    assert page.count('class="open"') == 2


def test_a_first_day_of_few_lists_presses_no_other_day_to_the_ground(shop: Settings) -> None:
    report = build_report(shop, DAY + timedelta(days=1))
    first = {"value": 0.5, "low": 0.0, "high": 1.0}
    usual = {"value": 0.05, "low": 0.04, "high": 0.06}
    days = [first, *[usual] * 8]
    for number, rate in enumerate(days):
        day = {"day": str(DAY + timedelta(days=number)), "click_rate": rate}
        report["days"][number:] = [day | dict.fromkeys(COURSES, rate)]
    page = english_page(report)
    section = page.split('id="click_rate"')[1].split("</section>")[0]
    assert "6.00%" in section or "8.00%" in section  # where the axis ends, not a hundred
    assert "100.00%" not in section


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
    yesterday = {"last_day": str(now - timedelta(days=1))}  # today has hardly begun
    assert year["last_day"] == yesterday["last_day"]
    path.write_text(json.dumps(yesterday))
    write_outcome_report(shop, now - timedelta(days=1))  # of past days, again
    write_outcome_report(shop, now)
    assert json.loads(path.read_text()) == yesterday
    write_outcome_report(shop, now + timedelta(days=1))
    assert json.loads(path.read_text())["last_day"] == str(now)
