"""Every page of the monitor in a real browser: both languages, both themes, phone and desk."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from recsys.merchandising.rules import read_rules
from recsys.orchestration import monitor as monitor_package
from recsys.registry import Registry
from recsys.settings import Settings
from tests import browser as browsers
from tests.browser import DESK, PHONE, english, read_words, serious_faults, wider_than_the_window
from tests.live_stack import wait_for
from tests.orchestration.made_shop import (
    BEFORE,
    EXPERIMENT,
    HELD,
    JOB,
    LOST,
    NAMES,
    OF_OTHERS,
    REPORT,
    RUN,
    STORY,
    make_shop,
)
from tests.ports import find_free_port
from tests.serving.service_process import running_service

pytestmark = [pytest.mark.boots, pytest.mark.timeout(600)]

TOLD = ("model_training", "drift_detection", "model_deployment")
PAGES = (
    "/",
    "/time?days=28",
    "/time?days=365",
    "/models?sort=recall_at_10",
    f"/models/compare?id={HELD}&id={BEFORE[0]}",
    f"/models/{HELD}",
    "/before",
    "/outcomes?days=28",
    "/outcomes?days=365",
    "/experiments",
    f"/experiments/{EXPERIMENT}",
    "/experiments/tron-lan-hai",
    "/look",
    "/look/product?product_id=p1",
    "/look/product?product_id=absent",
    "/reports",
    "/rules",
    "/rules/preview?product_id=p1&placement=product",
    "/customers",
    "/alerts",
    f"/runs/{JOB}/{quote(RUN, safe='')}",
    *(f"/runs/{job}/{quote(STORY, safe='')}" for job in TOLD),
    "/no-such-page",
)

TOKEN = "let-me"
FOREIGN = english(Path(monitor_package.__file__).parent / "texts")


@dataclass(frozen=True)
class Monitor:
    """The address of a running monitor, its state root, and where it looks for the service."""

    url: str
    settings: Settings
    service_port: int


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitor]:
    home = tmp_path_factory.mktemp("monitor")
    settings, port, service_port = Settings(home / "home"), find_free_port(), find_free_port()
    make_shop(settings, datetime.now(UTC))
    (settings.home / "config" / "privacy.yaml").write_text("see_customers: [lan]\n")
    own = {
        "RECSYS_HOME": str(settings.home),
        "RECSYS_SERVICE_URL": f"http://127.0.0.1:{service_port}",
        "RECSYS_ADMIN_TOKEN": TOKEN,
        "AIRFLOW_HOME": str(home / "airflow"),
    }
    command = [sys.executable, "-m", "benchmarks.monitor.server", str(port)]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log)
    try:
        running = Monitor(f"http://127.0.0.1:{port}/recsys", settings, service_port)
        wait_for(lambda: answers(running) or server.poll() is not None, 240, "the monitor")
        assert server.poll() is None, (home / "server.log").read_text()[-2000:]
        yield running
    finally:
        server.terminate()
        server.wait(30)


def answers(monitor: Monitor) -> bool:
    try:
        return requests.get(f"{monitor.url}/", timeout=10).ok
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from browsers.chromium()


@dataclass
class Look:
    """A page as a browser has it, and what went wrong meanwhile."""

    page: Page
    faults: list[str]

    def go(self, place: Locator) -> None:
        """Click on what leads to another page, and wait until that is there."""
        with self.page.expect_navigation():
            place.click()


@pytest.fixture
def look(monitor: Monitor, browser: Browser) -> Iterator:
    contexts = []

    def at(path: str, language: str, theme: str, width: int) -> Look:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        cookie = {"name": "recsys_language", "value": language, "path": "/recsys/"}
        context.add_cookies([{**cookie, "domain": "127.0.0.1"}])
        # As Airflow's own pages keep it.
        context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
        page, faults = context.new_page(), list[str]()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda one: faults.extend(elsewhere(monitor, one.url)))
        page.goto(monitor.url + path)
        return Look(page, faults)

    yield at
    for context in contexts:
        context.close()


def elsewhere(monitor: Monitor, url: str) -> list[str]:
    ours = url.startswith((f"{monitor.url}/", "data:"))
    return [] if ours else [f"request to {url}"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_sound_in_both_languages_themes_and_widths(look, path: str) -> None:
    for language, theme, width in (
        *(("vi", "light", PHONE), ("vi", "dark", DESK)),
        *(("en", "light", DESK), ("en", "dark", PHONE)),
    ):
        seen = look(path, language, theme, width)
        where = f"{path} {language} {theme} {width}"
        assert seen.page.evaluate("document.documentElement.dataset.theme") == theme
        assert seen.page.evaluate("document.documentElement.lang") == language
        assert wider_than_the_window(seen.page) <= 0, where
        faults = [one for one in seen.faults if "404 (Not Found)" not in one]
        assert faults == [], where
        assert serious_faults(seen.page) == [], where
        if language == "vi":
            assert read_words(seen.page) & FOREIGN == set(), where
            assert [one for one in quoted(seen.page) if not of_others(one)] == [], where


def quoted(page: Page) -> list[str]:
    """What a page in Vietnamese says in English, but for what a step returned, as JSON."""
    return page.locator("[lang=en]:not(pre):not(.languages *)").all_inner_texts()


def of_others(said: str) -> bool:
    """Whether it ends with what is not of this program: of the made shop, of the system."""
    return said.endswith(OF_OTHERS) or said.startswith("[Errno ")


def test_the_language_is_remembered_and_the_page_stays(look, monitor: Monitor) -> None:
    seen = look("/alerts", "vi", "light", DESK)
    seen.go(seen.page.get_by_role("link", name="English"))
    assert seen.page.url == f"{monitor.url}/alerts"
    assert seen.page.locator("h1").inner_text() == "Alerts"
    seen.page.goto(f"{monitor.url}/")
    assert seen.page.locator("h1").inner_text() == "Today"


def test_nobody_is_led_to_another_site_by_the_choice_of_a_language(monitor: Monitor) -> None:
    for back in (
        "https://elsewhere.example/",
        "//elsewhere.example",
        "/airflow",
        "/recsys/../x",
        "/recsys/%2e%2e/x",
        "/recsysx/",
        "//[x",
        "",
    ):
        asked = {"back": back}
        answer = requests.get(
            f"{monitor.url}/language/en", params=asked, allow_redirects=False, timeout=30
        )
        assert answer.headers["Location"] == "/recsys/"


@pytest.mark.parametrize(
    ("path", "status", "vi", "en"),
    [
        ("/models/als_9", 404, "mang tên này: als_9", "under this name: als_9"),
        ("/models/compare?id=als_9", 404, "mang tên này: als_9", "under this name: als_9"),
        ("/experiments/nope", 404, "mang tên này: nope", "under this name: nope"),
        ("/time?days=x", 422, "có chỗ không đọc được", "holds something that cannot be read"),
        ("/time?days=-1", 404, "Không có trang này", "There is no such page"),
        ("/models?sort=x", 404, "Không có trang này", "There is no such page"),
        ("/nowhere", 404, "Không có trang này", "There is no such page"),
    ],
)
def test_what_is_not_there_is_said_on_a_page_in_the_visitors_language(
    monitor: Monitor, path: str, status: int, vi: str, en: str
) -> None:
    for language, sentence in (("vi", vi), ("en", en)):
        asked = {"Accept": "text/html", "Accept-Language": language}
        answer = requests.get(f"{monitor.url}{path}", headers=asked, timeout=30)
        assert (answer.status_code, answer.headers["Content-Type"][:9]) == (status, "text/html")
        assert f'<html lang="{language}"' in answer.text
        assert sentence in answer.text
    plain = requests.get(f"{monitor.url}{path}", timeout=30)
    assert (plain.status_code, bool(plain.json()["detail"])) == (status, True)


def test_what_is_known_and_refused_is_not_called_unknown(monitor: Monitor) -> None:
    asked = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
    release = f"{monitor.url}/models/{BEFORE[0]}/release"
    answer = requests.post(release, headers=asked, timeout=30, allow_redirects=False)
    assert answer.status_code == 422
    assert "is not held" in answer.text


def test_only_what_may_be_a_name_is_repeated(monitor: Monitor) -> None:
    asked = {"Accept": "text/html"}
    for path in ("/models/call 0900", "/models/compare?id=call%200900", "/experiments/call 0900"):
        answer = requests.get(f"{monitor.url}{path}", headers=asked, timeout=30)
        assert answer.status_code == 404
        assert "0900" not in answer.text.partition("</header>")[2]


def test_no_address_can_write_a_sentence_onto_the_page_of_a_product(monitor: Monitor) -> None:
    said = {"product_id": "p1", "noted": "call-0900-123"}
    page = requests.get(f"{monitor.url}/look/product", params=said, timeout=30).text
    assert "p1" in page
    content = page.partition("</header>")[2]  # before it are the links of the languages
    assert "call-0900-123" not in content
    asked = requests.get(f"{monitor.url}/look/product", timeout=30)  # of no product
    assert asked.status_code == 200


def test_the_theme_follows_airflow_while_the_page_is_open(look, monitor: Monitor) -> None:
    seen = look("/", "vi", "light", DESK)
    other = seen.page.context.new_page()
    other.goto(f"{monitor.url}/alerts")
    other.evaluate("localStorage.setItem('theme', 'dark')")
    expect(seen.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_keyboard_reaches_the_content_first(look) -> None:
    seen = look("/", "vi", "light", DESK)
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.className") == "skip"


def test_a_report_opens_in_its_own_style(look) -> None:
    seen = look(f"/reports/drift/{REPORT}", "vi", "light", DESK)
    assert seen.faults == []
    assert seen.page.locator("h1").inner_text() == "Tuần yên ổn"


def test_the_curves_are_drawn_in_the_colours_of_the_theme(look) -> None:
    seen = look("/time?days=28", "vi", "light", DESK)
    places = seen.page.locator(".chart")
    assert places.count() >= 8
    assert seen.page.locator(".chart canvas").count() == places.count()
    assert "Yêu cầu mỗi ngày" in (places.first.get_attribute("aria-label") or "")
    # While nobody points at a day, the legend has the values of the last one.
    assert re.search(r"Yêu cầu:?\s*[\d.]+", places.first.inner_text())
    before = places.first.locator("canvas").evaluate("one => one.toDataURL()")
    seen.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    drawn = "one => one.toDataURL()"
    wait_for(lambda: places.first.locator("canvas").evaluate(drawn) != before, 10, "a new drawing")
    assert seen.faults == []


def test_no_value_of_an_axis_is_cut_off(look) -> None:
    seen = look("/outcomes?days=365", "vi", "light", PHONE)
    # A large shop's values, and drawn again.
    seen.page.evaluate(
        """() => {
          for (const place of document.querySelectorAll(".chart")) {
            const chart = JSON.parse(place.dataset.chart);
            chart.unit = "count";
            for (const line of chart.lines) line.values = line.values.map((_, n) => 8e7 + n);
            place.dataset.chart = JSON.stringify(chart);
          }
          document.documentElement.dataset.theme = "dark";
        }"""
    )
    first = seen.page.locator(".chart").first
    expect(first).to_contain_text("80.000.")
    edge = (
        "one => [...one.getContext('2d').getImageData(0, 0, 1, one.height).data].filter(Boolean)"
        ".length"
    )
    painted = [one.evaluate(edge) for one in seen.page.locator(".chart canvas").all()]
    assert len(painted) >= 6
    assert set(painted) == {0}


@pytest.mark.parametrize(
    ("language", "form"), [("vi", r"\d\d/\d\d/20\d\d"), ("en", r"\d{1,2} [A-Z][a-z]{2,3} 20\d\d")]
)
def test_curves_write_days_as_the_page_does(look, language: str, form: str) -> None:
    seen = look("/time?days=28", language, "light", DESK)
    assert re.search(form, seen.page.locator(".chart").first.inner_text())


def test_the_page_of_a_failed_run_begins_with_why(look) -> None:
    seen = look(f"/runs/model_deployment/{quote(STORY, safe='')}", "vi", "light", PHONE)
    first = seen.page.locator("main section").first.inner_text()
    assert first.startswith("Hỏng ở bước: Đưa vào dịch vụ")
    assert "kiểm tra sau triển khai không đạt: recommendations_work: danh sách gợi ý trống" in first
    assert "đã được đưa trở lại" in seen.page.content()
    assert seen.page.locator(".badge.bad", has_text="không đạt").count() == 2
    folded = seen.page.locator("details")
    assert folded.count() > 0
    assert not any(one.get_attribute("open") for one in folded.all())


def test_the_page_of_a_training_compares_its_models(look) -> None:
    seen = look(f"/runs/model_training/{quote(STORY, safe='')}", "en", "light", DESK)
    rows = [row.inner_text() for row in seen.page.locator("tbody tr").all()]
    assert len(rows) == 3
    [chosen] = [row for row in rows if BEFORE[1] in row]
    assert "Chosen" in chosen
    assert "highest lower bound" in chosen
    [refused] = [row for row in rows if LOST in row]
    assert "Refused" in refused


def test_a_held_model_is_released_by_a_person_who_is_named(look, monitor: Monitor) -> None:
    seen = look(f"/models/{HELD}", "vi", "light", DESK)
    assert seen.page.get_by_role("button", name="Thả mô hình này").count() == 1
    seen.page.goto(f"{monitor.url}/")
    seen.go(seen.page.get_by_role("button", name="Thả mô hình này"))
    assert seen.page.url == f"{monitor.url}/models/{HELD}"
    assert seen.page.get_by_role("button", name="Thả mô hình này").count() == 0
    assert Registry(monitor.settings).get(HELD).status == "active"
    audit = (monitor.settings.logs / "monitor_audit.log").read_text("utf-8")
    assert f"release | by=lan, model_id={HELD}" in audit


def test_who_looks_at_a_customer_is_written_down_without_the_customers_id(
    look, monitor: Monitor
) -> None:
    seen = look("/look", "vi", "light", PHONE)
    seen.page.get_by_label("Mã khách").fill("2")
    seen.go(seen.page.locator("form[action$=customer] button"))
    assert "Danh sách lúc này của 2" in seen.page.content()
    assert NAMES[3] in seen.page.content()
    assert seen.page.url == f"{monitor.url}/look/customer"
    assert wider_than_the_window(seen.page) <= 0
    assert serious_faults(seen.page) == []
    assert read_words(seen.page) & FOREIGN == set()
    last = (monitor.settings.logs / "monitor_audit.log").read_text("utf-8").splitlines()[-1]
    assert "look at customer | by=lan, customer=" in last
    assert "customer=2" not in last


def test_a_customer_whom_nobody_knows_is_called_so(look) -> None:
    for user, unknown in (("2", False), ("nobody", True)):
        seen = look("/look", "vi", "light", PHONE)
        seen.page.get_by_label("Mã khách").fill(user)
        seen.go(seen.page.locator("form[action$=customer] button"))
        assert ("Dữ liệu đã xuất bản chưa biết khách nào" in seen.page.content()) == unknown


def test_a_list_shows_what_each_part_of_the_model_adds_to_a_score(look, monitor: Monitor) -> None:
    with running_service(monitor.settings, monitor.service_port, TOKEN):
        for language, theme, width in (("vi", "light", PHONE), ("en", "dark", DESK)):
            seen = look("/look", language, theme, width)
            seen.page.locator("#user").fill("2")
            seen.go(seen.page.locator("form[action$=customer] button"))
            listed = seen.page.locator("ol.list > li")
            assert listed.count() > 5
            assert seen.page.locator("ol.list .stacked").count() == listed.count()
            assert re.search(r"ALS \d[.,]\d{4}", listed.first.inner_text())
            assert seen.faults == []
            assert wider_than_the_window(seen.page) <= 0
            assert serious_faults(seen.page) == []
            assert language == "en" or read_words(seen.page) & FOREIGN == set()


def test_the_form_itself_refuses_a_day_that_is_over_and_no_reason(look) -> None:
    seen = look("/look/product?product_id=p8", "vi", "light", DESK)
    sound = "one => one.form.checkValidity()"
    until, reason = seen.page.get_by_label("Đến hết ngày"), seen.page.get_by_label("Vì sao")
    for day, why, held in (
        ("2020-01-01", "thu hồi", False),
        ("9999-12-31", "thu hồi", False),
        ("2999-12-31", "   ", False),
        ("2999-12-31", "thu hồi", True),
    ):
        until.fill(day)
        reason.fill(why)
        assert until.evaluate(sound) == held, (day, why)


def test_an_operator_hides_a_product_until_a_day(look, monitor: Monitor) -> None:
    seen = look("/look/product?product_id=p9", "vi", "light", DESK)
    seen.page.get_by_label("Đến hết ngày").fill("2999-12-31")
    seen.page.get_by_label("Vì sao").fill("thu hồi")
    seen.go(seen.page.get_by_role("button", name="Đặt quy tắc"))
    assert "Đã thêm quy tắc hide-" in seen.page.locator(".calm").inner_text()
    assert "Một quy tắc ẩn nó ở mọi nơi." in seen.page.content()
    rule = read_rules(monitor.settings).rules[-1]
    assert (rule.action, rule.products.ids, rule.author) == ("hide", ("p9",), "lan")
    audit = (monitor.settings.logs / "monitor_audit.log").read_text("utf-8")
    assert f"hide | by=lan, product=p9, rule={rule.name}" in audit
