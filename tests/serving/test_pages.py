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
from tests.serving.shops import ITEMS, add_model, products, say_made_up

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
    say_made_up(settings)
    texts = ContentConfig(text_fields=("product_name", "brand"))
    embed_products(settings, texts, products(name_of=str), "v1")
    with service_in_thread(create_app(settings, ServiceEnvironment(admin_token=TOKEN)), port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def look(url: str, browser: Browser) -> Iterator[At]:
    contexts = []

    def at(
        path: str, theme: str = "light", width: int = DESK, language: str = "vi", of: str = url
    ) -> Look:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, locale="vi-VN"
        )
        contexts.append(context)
        context.add_init_script(f"localStorage.setItem('recsys_language', '{language}')")
        page, faults = context.new_page(), list[str]()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda one: faults.extend(elsewhere(of, one.url)))
        page.goto(of + path)
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


def ask(page: Page, kind: str, text: str) -> None:
    page.locator(f"label:has(input[value={kind}])").click()
    page.locator("#value").fill(text)
    page.locator("button[type=submit]").click()


@pytest.mark.parametrize("language", ["vi", "en"])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_demo_shows_customers_products_and_searches(
    look: At, theme: str, width: int, language: str
):
    seen = look("/demo", theme, width, language)
    for kind, text, parts in (("user", "1", 2), ("product", "7", 2), ("search", "son môi", 1)):
        ask(seen.page, kind, text)
        expect(seen.page.locator("#answer .part")).to_have_count(parts)
        expect(seen.page.locator("#answer li").first).to_be_visible()
        assert overflow(seen.page) <= 0
        assert serious_faults(seen.page) == []
    assert seen.faults == []


def test_the_demo_takes_a_customer_of_any_id(look: At):
    seen = look("/demo", "light", 390, "en")
    for text in ("..", "a/b?c#d", "KH<b>0</b>", "x" * 128):
        ask(seen.page, "user", text)
        expect(seen.page.locator("#answer .past")).to_contain_text("Nothing is known")
        assert overflow(seen.page) <= 0
    assert seen.faults == []


SAID = {
    "vi": {
        "history": [
            "Gợi ý riêng cho khách 1",
            "Khách đã làm gì",
            "Vì bạn đã đánh giá",
            "đã đánh giá ·",
        ],
        "popular": ["Hàng đang được ưa chuộng, không chọn riêng cho khách này", "Chưa biết gì"],
        "beside": ["Thường được mua cùng “Son môi số 7”", "Giống “Son môi số 7”"],
        "nonsense": "Không tìm thấy gì cho “xyzzy plugh”.",
        "absent": "Cửa hàng không có sản phẩm nào mang mã này.",
    },
    "en": {
        "history": [
            "Chosen for customer 1",
            "What the customer did",
            "Because you reviewed",
            "reviewed ·",
        ],
        "popular": ["Popular at the moment, not chosen for this customer", "Nothing is known"],
        "beside": ["Often bought together with “Son môi số 7”", "Like “Son môi số 7”"],
        "nonsense": "Nothing found for “xyzzy plugh”.",
        "absent": "The shop has no product of this id.",
    },
}


@pytest.mark.parametrize("language", ["vi", "en"])
def test_the_demo_calls_things_what_they_are(look: At, language: str):
    seen, said = look("/demo", language=language), SAID[language]
    answer = seen.page.locator("#answer")
    for kind, text, sentences in (
        ("user", "1", said["history"]),
        ("user", "nobody", said["popular"]),
        ("product", "7", said["beside"]),
    ):
        ask(seen.page, kind, text)
        for sentence in sentences:
            expect(answer).to_contain_text(sentence)
    ask(seen.page, "search", "xyzzy plugh")
    expect(answer).to_have_text(said["nonsense"])
    assert seen.faults == []
    ask(seen.page, "product", "no-such-product")
    expect(answer).to_have_text(said["absent"])
    assert all("404" in fault for fault in seen.faults)  # as the browser notes any such answer


DOT = (
    b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'>"
    b"<rect width='9' height='9'/></svg>"
)


def test_the_demo_shows_pictures_where_the_catalogue_has_them(
    look: At, browser: Browser, tmp_path_factory: pytest.TempPathFactory
):
    settings, port = Settings(tmp_path_factory.mktemp("pictures")), find_free_port()
    shown = products(name_of=str)
    shown["picture"] = [f"https://cdn.shop.test/{n}.svg" if n % 2 else "" for n in range(ITEMS)]
    add_model(settings, "als_1", name_of=str, shop_products=shown)
    say_made_up(settings)
    with service_in_thread(create_app(settings, ServiceEnvironment()), port):
        seen = look("/docs", of=f"http://127.0.0.1:{port}")
        # The shop's pictures are elsewhere: this one answers for there.
        seen.page.route(
            "https://cdn.shop.test/*",
            lambda route: route.fulfill(body=DOT, content_type="image/svg+xml"),
        )
        seen.page.goto(f"http://127.0.0.1:{port}/demo")
        ask(seen.page, "product", "7")
        expect(seen.page.locator("#answer img").first).to_be_visible()
        frames = seen.page.locator("#answer .picture")
        expect(frames).to_have_count(12)  # the customer's list that the page opened with is gone
        for frame in frames.all():
            has = int(frame.get_attribute("data-product") or 0) % 2
            frame.scroll_into_view_if_needed()
            expect(frame.locator("img")).to_have_count(has)
            assert has or frame.inner_text() == "chưa có ảnh"
    assert {fault[:26] for fault in seen.faults} == {"asked https://cdn.shop.tes"}


def test_the_demo_remembers_the_language(look: At):
    seen = look("/demo")
    seen.page.get_by_role("button", name="English").click()
    expect(seen.page.locator("h1")).to_have_text("Product recommendations")
    expect(seen.page.locator("#answer")).to_contain_text("Chosen for customer")
    assert seen.page.evaluate("localStorage.getItem('recsys_language')") == "en"
    assert seen.page.evaluate("document.documentElement.lang") == "en"


def test_what_a_real_customer_did_is_shown_to_the_bearer_of_the_admin_token_only(
    look: At, tmp_path_factory: pytest.TempPathFactory
):
    settings, port = Settings(tmp_path_factory.mktemp("real")), find_free_port()
    add_model(settings, "als_1", name_of=str)
    with service_in_thread(create_app(settings, ServiceEnvironment(admin_token=TOKEN)), port):
        seen = look("/demo", language="en", of=f"http://127.0.0.1:{port}")
        answer = seen.page.locator("#answer")
        expect(answer).to_contain_text("these customers are real")
        offered = seen.page.request.get(f"http://127.0.0.1:{port}/demo/examples").json()["user"]
        assert [one["known"] for one in offered] == [False]  # nobody's id is given away
        ask(seen.page, "user", "0")
        expect(answer).to_contain_text("Chosen for customer 0")
        assert "Because you" not in answer.inner_text()
        seen.page.get_by_text("See customers' histories").click()
        seen.page.get_by_label("Admin token").fill(TOKEN)
        ask(seen.page, "user", "1")
        expect(answer).to_contain_text("reviewed ·")
        expect(answer).to_contain_text("Because you reviewed")
