"""The pages of the reports in a real browser, from files without a server."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from recsys.drift.examination import Material
from recsys.drift.page import render_drift_pages
from recsys.drift.report import checks_of, state_of
from recsys.language import LANGUAGES
from recsys.outcomes.page import render_outcome_pages
from recsys.outcomes.report import build_report, write_outcome_report
from recsys.publishing import write_json
from recsys.quality import write_report
from recsys.reporting import is_plain, page_in, write_pages
from recsys.settings import Settings
from tests import browser as browsers
from tests.browser import (
    DESK,
    PHONE,
    english,
    read_words,
    serious_faults,
    wider_than_the_window,
)
from tests.data.shop import END, PRODUCTS, refresh, row, write_shop
from tests.drift.made_report import made_report, material
from tests.drift.shop import ZONE, events
from tests.experiments.made_pages import make_pages
from tests.outcomes.test_job import DAY
from tests.outcomes.test_report import make_shop
from tests.reporting.test_texts import AREAS

pytestmark = [pytest.mark.boots, pytest.mark.timeout(300)]

UNFOLD = "document.querySelectorAll('details').forEach(one => one.open = true)"
FOREIGN = english(*(area / "texts" for area in AREAS))
DRIFT = [f"drift/drift_report_{day}.html" for day in ("20240520", "20240527", "20240603")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from browsers.chromium()


def two_versions(settings: Settings) -> None:
    """The reports of a first version, and of one after it that has something of everything."""
    usual = [row(f"u{n % 7}", n % 9, 4 + n % 2, comment=f"da mịn sau {n} ngày") for n in range(60)]
    write_shop(settings, usual)
    write_report(settings, refresh(settings)["version_id"])
    spam = [row(f"s{n}", 1, comment="mua một lần là nghiện luôn nha mọi người") for n in range(12)]
    bad = [row("x", rating=9), row("x", time="soon"), row("", "2"), row("y", rating="năm")]
    garbled = [row("g", 3, comment="Kem dÆ°á»¡ng ẩm")]
    products = [*PRODUCTS[:6], "6,Son,Đẹp,Son,250,x", "7,Sữa,Đẹp,Kem,9990000,x", "8,Mi,Đẹp,Mi,,x"]
    write_shop(settings, [*usual, *spam, *bad, *garbled], products)
    write_report(settings, refresh(settings, END + timedelta(days=30))["version_id"])


@pytest.fixture(scope="module")
def quality(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    settings = Settings(tmp_path_factory.mktemp("quality") / "home")
    two_versions(settings)
    pages = sorted((settings.reports / "data_quality").glob("*.html"))
    return [page for page in pages if is_plain(page)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three weeks of a shop: nothing to judge by, seen once, and raised."""
    settings = Settings(tmp_path_factory.mktemp("reports"))
    weeks = [
        made_report(Material(events([0, 3])), ends_early=True),
        made_report(material(settings, weeks_of_change=1)),
        made_report(material(Settings(settings.home / "other"), weeks_of_change=2)),
    ]
    for name, report in zip(DRIFT, weeks, strict=True):
        page = settings.reports / name
        write_pages(page, render_drift_pages(report, page, ZONE))
        write_json(page.with_suffix(".json"), report)
    return settings.reports


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of a week without lists, and of one with everything that a report may have."""
    settings = Settings(tmp_path_factory.mktemp("outcomes") / "home")
    make_shop(settings)
    quiet, last = DAY - timedelta(days=40), DAY + timedelta(days=1)
    pages = [settings.home / write_outcome_report(settings, quiet)["page"]]
    report = build_report(settings, last)
    rate = {"value": 0.1, "low": 0.05, "high": 0.2}
    best = {"product": "p1", "name": "Son Đẹp", "shown": 40, "clicks": 20, "expected": 10.0}
    report["exploration"] = {
        **{"places": 80, "share": 0.25, "products": 2, "earned": 1, "clicks_of_all_lists": 60},
        **{"explored": rate, "others": rate, "lost": {"value": 12.3, "low": 3, "high": 21}},
        "best": [best],
    }
    model = {"model_id": "als_1", "deployed": True, "refused": None, "clicks": rate}
    model |= {"served": 0.1, "support": 0.7, "effective_customers": 40.2}
    refused = {**model, "model_id": "bpr_1", "deployed": False, "refused": "it cannot be loaded"}
    report["candidates"] = {
        **{"lists": 100, "customers": 50, "first_day": "2026-03-01", "last_day": "2026-03-10"},
        "models": [one | {"metrics": {"recall_at_10": 0.12}} for one in (model, refused)],
    }
    report["simulated"] = "7 lists and 3 events"
    report["open_since"] = report["days"][-1]["day"]
    pages.append(pages[0].with_name(f"outcomes_{last:%Y%m%d}.html"))
    write_pages(pages[1], render_outcome_pages(report, pages[1], ZONE))
    return pages


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_pages(Settings(tmp_path_factory.mktemp("experiments") / "home"))


@dataclass
class Look:
    """A page as a browser has it, and what went wrong meanwhile."""

    page: Page
    faults: list[str]


@pytest.fixture
def look(browser: Browser) -> Iterator:
    contexts = []

    def at(path: Path, theme: str, width: int) -> Look:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=theme)
        contexts.append(context)
        page, faults = context.new_page(), list[str]()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda one: faults.extend(elsewhere(one.url)))
        page.goto(path.as_uri())
        return Look(page, faults)

    yield at
    for context in contexts:
        context.close()


def elsewhere(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:")) else [f"request to {url}"]


@pytest.mark.parametrize("name", DRIFT)
def test_a_drift_report_is_sound_wherever_it_is_read(look, reports: Path, name: str) -> None:
    find_no_fault(look, reports / name)


@pytest.mark.parametrize("number", [0, 1])
def test_a_quality_report_is_sound_wherever_it_is_read(
    look, quality: list[Path], number: int
) -> None:
    find_no_fault(look, quality[number])


@pytest.mark.parametrize("number", [0, 1])
def test_a_report_of_outcomes_is_sound_wherever_it_is_read(
    look, outcomes: list[Path], number: int
) -> None:
    find_no_fault(look, outcomes[number])


@pytest.mark.parametrize("name", ["skewed", "falls-back", "worse", "better", "begun", "many"])
def test_a_report_of_an_experiment_is_sound_wherever_it_is_read(
    look, experiments: dict[str, Path], name: str
) -> None:
    find_no_fault(look, experiments[name])


def test_an_experiment_says_what_it_found_and_leads_to_those_before(
    look, experiments: dict[str, Path]
) -> None:
    seen = look(experiments["better"], "light", PHONE)
    assert seen.page.locator("h1 .badge").inner_text() == "Đã có bên thắng"
    assert "Tốt hơn hien-nay: +" in seen.page.locator("section#found").inner_text()
    assert seen.page.locator("section#found svg.chart").count() == 1
    seen.page.get_by_role("link", name="worse").click()
    assert seen.page.url == experiments["worse"].as_uri()
    assert seen.page.locator("h1 .badge").inner_text() == "Đã kết thúc"
    seen.page.get_by_role("link", name="English").click()
    assert "Worse than hien-nay: -" in seen.page.locator("section#found").inner_text()
    seen.page.get_by_role("link", name="skewed").click()
    assert seen.page.evaluate("document.documentElement.lang") == "en"
    assert seen.page.locator("section#split .badge").inner_text() == "Not as intended"


def find_no_fault(look, plain: Path) -> None:
    """In both languages, both themes and at both widths."""
    for code in LANGUAGES:
        for theme, width in (("light", PHONE), ("dark", DESK), ("dark", PHONE), ("light", DESK)):
            seen = look(page_in(plain, code), theme, width)
            where = f"{plain.name} {code} {theme} {width}"
            assert seen.page.evaluate("document.documentElement.lang") == code
            seen.page.evaluate(UNFOLD)
            assert wider_than_the_window(seen.page) <= 0, where
            assert serious_faults(seen.page) == [], where
            assert seen.faults == [], where
            if code == "vi":
                assert read_words(seen.page) & FOREIGN == set(), where


def test_the_second_quality_report_leads_to_the_first_and_doubts(look, quality: list[Path]) -> None:
    seen = look(quality[1], "light", DESK)
    for name in ("prices", "encoding", "campaigns", "dates"):
        assert seen.page.locator(f"section#{name} .badge").inner_text() == "Cần xem", name
    assert "9.990.000" in seen.page.locator("section#prices").inner_text()
    seen.page.locator("ul.weeks a").click()
    assert seen.page.url == quality[0].as_uri()
    assert seen.page.locator("section#stars .badge").inner_text() == "Chưa đánh giá được"


def test_the_made_weeks_show_every_state_of_the_checks(reports: Path) -> None:
    found = [json.loads((reports / name).with_suffix(".json").read_bytes()) for name in DRIFT]
    states = [{one: state_of(part) for one, part in checks_of(week).items()} for week in found]
    assert set(states[0].values()) == {"not_judged"}
    changed = ("rating", "popularity", "embedding", "model", "kinds")
    assert {states[1][name] for name in changed} == {"seen_once"}
    assert {states[2][name] for name in changed} == {"raised"}


def test_the_switch_and_the_links_lead_where_they_say(look, reports: Path) -> None:
    seen = look(reports / DRIFT[2], "light", DESK)
    assert seen.page.locator("section#rating .badge").inner_text() == "Báo động"
    seen.page.get_by_role("link", name="English").click()
    assert seen.page.locator("section#rating .badge").inner_text() == "Raised"
    seen.page.get_by_role("link", name="20 May 2024 – 26 May 2024").click()
    assert seen.page.evaluate("document.documentElement.lang") == "en"
    assert seen.page.locator("section#rating .badge").inner_text() == "Seen once"
    seen.page.get_by_role("link", name="13 May 2024 – 19 May 2024").click()
    assert seen.page.locator("h1 .badge").inner_text() == "Not judged"
    assert seen.page.locator(".good").count() == 0
