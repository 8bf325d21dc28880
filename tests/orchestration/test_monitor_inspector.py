"""One customer and one product, as the page of the monitor has them."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from recsys.errors import InputError
from recsys.merchandising.rules import read_rules
from recsys.models.hybrid import Hybrid
from recsys.orchestration.monitor import inspector
from recsys.orchestration.monitor.language import Language
from recsys.schedule import load_zone
from recsys.settings import Settings
from tests.merchandising.test_rules import RULE, write
from tests.orchestration.made_shop import NAMES, publish
from tests.orchestration.monitor_pages import render
from tests.ports import find_free_port
from tests.serving.service_process import running_service
from tests.serving.shops import ITEMS, add_model, histories

NOW = datetime.now(UTC)
EN = Language("en", UTC)


@pytest.fixture
def shop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Customer 2 has rated three products, and nobody p9."""
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{find_free_port()}")
    publish(settings)
    return settings


@pytest.fixture
def service(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    port = find_free_port()
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("RECSYS_ADMIN_TOKEN", "let-me")
    add_model(shop, "hybrid_1", model=Hybrid.create({}).fit(histories(), ITEMS))
    write(shop, RULE | {"products": {"ids": ["p4"]}})
    with running_service(shop, port, "let-me"):
        yield


def page(settings: Settings, language: str = "vi", **values: object) -> str:
    nothing = dict.fromkeys(("customer", "shown_product", "refused", "noted"))
    known = {"sees_customers": True, "look_days": inspector.DAYS}
    return render(settings, "look.html", language, **(nothing | known | values))


def test_a_customer_has_a_history_also_while_the_service_is_silent(shop: Settings) -> None:
    found = inspector.look_at_customer(shop, "2")
    assert [(one.product_id, one.rating) for one in found.history] == [
        *(("p3", 3), ("p2", 5), ("p1", 4))
    ]
    assert found.history[0].product_name == NAMES[3]
    assert found.shown is None
    assert "failed" in (found.refused or "")
    shown = page(shop, customer=found)
    assert "Không hỏi được dịch vụ." in shown
    assert inspector.look_at_customer(shop, "nobody").history == []


def test_every_product_of_a_list_has_its_reason_source_and_score(
    shop: Settings, service: None
) -> None:
    found = inspector.look_at_customer(shop, "2")
    assert found.shown is not None, found.refused
    listed = found.shown["after"]
    assert listed
    for one in listed:
        assert one["source"] in ("model", "popularity", "content")
        assert isinstance(one["score"], float)
        assert one["reason"]["text"]["vi"]
        assert sum(one["parts"].values()) == pytest.approx(one["score"], rel=1e-3)
    assert "p4" not in [one["product_id"] for one in listed]
    shown = page(shop, "en", customer=found)
    assert "source: model" in shown
    assert shown.count('class="stacked"') == len(listed)
    first = listed[0]["parts"]
    assert f"ALS {EN.number(first['als'], 4)}" in shown
    assert f"Neighbours {EN.number(first['item_knn'], 4)}" in shown


def test_what_came_of_a_customers_lists_is_added_up_over_four_weeks(shop: Settings) -> None:
    columns = {"experiment": "", "variant": "", "unit": ["2", "3"], "lists": [4, 9]}
    columns |= {"clicks": [2, 0], "carts": [1, 0], "purchases": [1, 0], "value": [9e4, 0.0]}
    for days in (1, 2, inspector.DAYS + 3):
        folder = shop.outcomes / f"day={NOW.astimezone(load_zone(shop)) - timedelta(days):%Y-%m-%d}"
        folder.mkdir(parents=True)
        pd.DataFrame(columns).to_parquet(folder / "units.parquet")
    found = inspector.look_at_customer(shop, "2")
    assert found.figures == {
        **{"lists": 8, "clicks": 4, "carts": 2, "purchases": 2, "value": 180_000}
    }
    assert "8 lists led to 4 clicks, 2 carts and 2 purchases (180,000 ₫)." in page(
        shop, "en", customer=found
    )


def test_a_product_says_why_it_is_not_recommended(shop: Settings) -> None:
    found = inspector.look_at_product(shop, "p9", NOW)
    assert (found.available, found.reviews, found.is_hidden) == (True, 0, False)
    assert "Chưa ai đánh giá hay mua nó" in page(shop, shown_product=found)
    write(shop, RULE | {"name": "recalled", "products": {"ids": ["p9"]}})
    found = inspector.look_at_product(shop, "p9", NOW)
    assert found.is_hidden
    assert "Một quy tắc ẩn nó ở mọi nơi." in page(shop, shown_product=found)
    write(shop, RULE | {"products": {"ids": ["p9"]}, "placements": ["home"]})
    assert not inspector.look_at_product(shop, "p9", NOW).is_hidden
    assert inspector.look_at_product(shop, "p1", NOW).reviews == 2
    with pytest.raises(InputError, match="nine: the shop has no product"):
        inspector.look_at_product(shop, "nine", NOW)


def test_a_product_has_its_neighbours(shop: Settings, service: None) -> None:
    found = inspector.look_at_product(shop, "p1", NOW)
    assert found.shown is not None, found.refused
    assert found.shown["after"][0]["reason"] is not None
    assert "p1" not in [one["product_id"] for one in found.shown["after"]]


def test_a_person_hides_and_pins_with_a_name_and_an_end(shop: Settings) -> None:
    asked = {"action": "hide", "until": f"{NOW + timedelta(days=3):%Y-%m-%d}", "reason": "thu hồi"}
    inspector.steer(shop, "p9", asked, "lan", NOW)
    later = NOW + timedelta(seconds=2)
    pin = asked | {"action": "pin", "position": "2"}
    inspector.steer(shop, "p1", pin, "lan", later)
    hidden, pinned = read_rules(shop).rules
    assert (hidden.author, hidden.reason, hidden.action) == ("lan", "thu hồi", "hide")
    assert (pinned.position, pinned.products.ids) == (2, ("p1",))
    assert hidden.end is not None
    assert hidden.state(NOW + timedelta(days=2)) == "active"
    assert hidden.state(NOW + timedelta(days=5)) == "expired"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"action": "boost"}, "action"),
        ({"until": "tomorrow"}, "until"),
        ({"until": "2020-01-01"}, "over"),
        ({"until": "9999-12-31"}, "up to 9998"),
        ({"reason": "  "}, "reason"),
        ({"action": "pin", "position": "first"}, "position"),
    ],
)
def test_a_form_that_says_too_little_is_refused(shop: Settings, changes: dict, why: str) -> None:
    asked = {"action": "hide", "until": "2999-01-01", "reason": "thu hồi"} | changes
    with pytest.raises(InputError, match=why):
        inspector.steer(shop, "p9", asked, "lan", NOW)
    assert read_rules(shop).rules == ()


def test_what_a_rule_does_already_is_not_asked_for_twice(shop: Settings) -> None:
    hide = {"action": "hide", "until": "2998-01-01", "reason": "thu hồi"}
    pin = hide | {"action": "pin", "position": "3"}
    seconds = itertools.count()

    def steer(product: str, asked: dict[str, str]) -> None:
        inspector.steer(shop, product, asked, "lan", NOW + timedelta(seconds=next(seconds)))

    steer("p4", hide)
    steer("p4", pin)
    for again in (hide, hide | {"until": "2997-01-01"}, pin):
        with pytest.raises(InputError, match=r"does so already until 2998-01-02 00:00"):
            steer("p4", again)
    # Another product, a later end, another place.
    for product, asked in (("p5", hide), ("p4", hide | {"until": "2999-01-01"})):
        steer(product, asked)
    steer("p4", pin | {"position": "1"})
    assert len(read_rules(shop).rules) == 5


def test_what_the_shop_does_not_have_is_not_hidden(shop: Settings) -> None:
    asked = {"action": "hide", "until": "2999-01-01", "reason": "thu hồi"}
    with pytest.raises(InputError, match="nope: the shop has no product of this id"):
        inspector.steer(shop, "nope", asked, "lan", NOW)
    assert read_rules(shop).rules == ()


def test_single_customers_are_for_whom_the_shop_names(settings: Settings) -> None:
    assert inspector.may_see_customers(settings, "admin")
    assert not inspector.may_see_customers(settings, "lan")
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "privacy.yaml").write_text("see_customers: [lan]\n")
    assert inspector.may_see_customers(settings, "lan")
    assert not inspector.may_see_customers(settings, "admin")
