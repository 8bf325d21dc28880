"""The service's pages for people in a real browser: both themes, phone and desk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests import browser as browsers
from tests.browser import DESK, PHONE, serious_faults
from tests.ports import find_free_port
from tests.serving.service_process import service_in_thread
from tests.serving.shops import add_model, products

pytestmark = pytest.mark.boots

THEMES = ("light", "dark")
WIDTHS = (PHONE, DESK)
TOKEN = "a-token-for-tests"


@dataclass
class Look:
    """A page as a browser has it, and what went wrong meanwhile."""

    page: Page
    faults: list[str]


At = Callable[..., Look]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from browsers.chromium()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings, port = Settings(tmp_path_factory.mktemp("pages")), find_free_port()
    add_model(settings, "als_1", name_of=str)
    texts = ContentConfig(text_fields=("product_name", "brand"))
    embed_products(settings, texts, products(name_of=str), "v1")
    with service_in_thread(create_app(settings, ServiceEnvironment(admin_token=TOKEN)), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def look(url: str, browser: Browser) -> Iterator[At]:
    contexts = []

    def at(path: str, theme: str = "light", width: int = DESK) -> Look:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, locale="vi-VN"
        )
        contexts.append(context)
        page, faults = context.new_page(), list[str]()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda one: faults.extend(elsewhere(url, one.url)))
        page.goto(url + path)
        return Look(page, faults)

    yield at
    for context in contexts:
        context.close()


def elsewhere(url: str, asked: str) -> list[str]:
    return [] if asked.startswith((url, "data:")) else [f"asked {asked}"]


def overflow(page: Page) -> int:
    """Pixels that the page is wider than its window."""
    wide: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wide


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_route_of_the_docs_can_be_read(look: At, theme: str, width: int):
    seen = look("/docs", theme, width)
    routes = seen.page.locator("#operations > details")
    expect(routes.first).to_be_visible()
    seen.page.evaluate(
        "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
    )
    assert routes.count() > 15
    assert "The shop has no product of this id." in seen.page.inner_text("#operations")
    assert overflow(seen.page) <= 0
    assert serious_faults(seen.page) == []
    assert seen.faults == []


def test_the_docs_ask_the_service_what_an_example_says(look: At):
    seen = look("/docs")
    route = seen.page.locator("#operations > details", has_text="POST /recommend:")
    route.locator("summary").first.click()
    route.get_by_role("button", name="Why each product stands there").click()
    route.get_by_role("button", name="Ask", exact=True).click()
    expect(route.locator("pre[aria-live]")).to_contain_text('200\n{"user_id":1')
    expect(route.locator("pre[aria-live]")).to_contain_text('"reason":')
    assert seen.faults == []


def test_the_docs_put_parameters_and_the_token_into_the_request(look: At):
    seen = look("/docs")
    seen.page.get_by_label("Bearer token").fill(TOKEN)
    route = seen.page.locator("#operations > details", has_text="DELETE /users/{user_id}:")
    route.locator("summary").first.click()
    route.get_by_label("user_id").fill("5")
    route.get_by_role("button", name="Ask", exact=True).click()
    expect(route.locator("pre[aria-live]")).to_contain_text('202\n{"number":')
    assert seen.faults == []
