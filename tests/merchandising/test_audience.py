"""Whom to tell about a product: those whom it suits best, in an order that can be trusted."""

import csv

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.ids import IdRules
from recsys.merchandising.audience import audience, write_audience
from recsys.models.histories import take_users
from recsys.models.item_knn import ItemKnn
from recsys.models.kinds import CODE_OF
from recsys.privacy import ask_to_forget
from recsys.settings import Settings
from tests.serving.shops import ITEMS, USERS, add_model, histories, products

NOW = 1_700_000_000 + 7 * 86_400


@pytest.fixture
def shop(settings: Settings) -> Settings:
    sold = products(unavailable=(3,), families={4: "f5"})
    add_model(settings, "knn", model=ItemKnn().fit(histories(), ITEMS), shop_products=sold)
    return settings


def test_those_of_the_products_taste_come_first_and_nobody_who_had_it(shop: Settings):
    found = audience(shop, "p5", USERS, NOW)
    done = histories()
    had = {
        str(user)
        for user in range(USERS)
        if {4, 5} & set(take_users(done, np.array([user])).items.tolist())
    }
    users = [one["user_id"] for one in found["customers"]]
    assert found["product_name"] == "Son môi số 5"
    assert found["asked"] == USERS
    assert not had & set(users)
    assert set(users) == {str(user) for user in range(USERS)} - had
    even = [int(user) % 2 == 0 for user in users]
    assert all(even[: sum(even)])
    places = [one["place"] for one in found["customers"]]
    assert places == sorted(places)
    assert audience(shop, "p5", 3, NOW)["customers"] == found["customers"][:3]


def test_the_place_is_that_in_the_list_of_all_products(shop: Settings):
    model = ItemKnn().fit(histories(), ITEMS)
    for one in audience(shop, "p9", 5, NOW)["customers"]:
        mine = take_users(histories(), np.array([int(one["user_id"])]))
        scores = model.score(mine, NOW)[0]
        scores[[*mine.items.tolist(), 3]] = -np.inf
        if {4, 5} & set(mine.items.tolist()):
            scores[[4, 5]] = -np.inf
        assert one["place"] == 1 + (scores > scores[9]).sum()


def test_who_dismissed_it_is_not_told(settings: Settings):
    done = histories()
    done.kinds.flags.writeable or object.__setattr__(done, "kinds", np.array(done.kinds))
    mine = np.flatnonzero(done.items[:6] >= 0)[0]
    done.kinds[mine] = CODE_OF["dismiss"]
    add_model(settings, "knn", model=ItemKnn().fit(done, ITEMS), done=done)
    found = audience(settings, f"p{done.items[mine]}", USERS, NOW)
    assert "0" not in {one["user_id"] for one in found["customers"]}


@pytest.mark.parametrize(
    ("product", "said"), [("p99", "the shop has no product of this id"), ("p3", "not for sale")]
)
def test_a_product_that_nobody_can_buy_is_told_of(shop: Settings, product: str, said: str):
    with pytest.raises(InputError, match=f"{product}: .*{said}"):
        audience(shop, product, 5, NOW)


def test_a_file_for_the_mailing_tool(shop: Settings):
    found = audience(shop, "p30", 4, NOW)["customers"]
    write_audience(found, shop.home / "who.csv")
    with (shop.home / "who.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["user_id"], int(row["place"])) for row in rows] == [
        (one["user_id"], one["place"]) for one in found
    ]


def test_what_a_rule_hides_everywhere_is_nobodys(shop: Settings):
    (shop.home / "config").mkdir()
    hidden = "{name: gone, action: hide, products: {ids: [p7]}, author: a, reason: b}"
    (shop.home / "config" / "rules.yaml").write_text(f"rules: [{hidden}]\n")
    with pytest.raises(InputError, match="p7: a rule of the shop hides the product everywhere"):
        audience(shop, "p7", 5, NOW)
    assert audience(shop, "p8", 5, NOW)["customers"]


def test_who_is_forgotten_is_not_told(shop: Settings):
    first, *others = audience(shop, "p5", USERS, NOW)["customers"]
    ask_to_forget(shop, [first["user_id"]], "lan", IdRules())
    found = audience(shop, "p5", USERS, NOW)
    assert found["customers"] == others
    assert found["asked"] == USERS - 1
