"""What rules ask for and will not get is said in a sentence that names rule and key."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.merchandising.catalogue import Catalogue, build_catalogue
from recsys.merchandising.placements import Placement
from recsys.merchandising.rule_warnings import RuleWarning, warnings_of
from recsys.merchandising.rules import RulesConfig
from tests.merchandising.test_rules import NOW, RULE

ITEMS = 40


def shop(**more: list[Any]) -> Catalogue:
    """Products 0 to 39: twenty of Cocoon, then ten each of two other brands, masks are even; those
    that four divides are sold out."""
    numbers = range(ITEMS)
    products = {
        "product_id": [f"p{number}" for number in numbers],
        "brand": ["Cocoon"] * 20 + ["Sạch"] * 10 + ["Đẹp"] * 10,
        "category": ["Mặt nạ" if number % 2 == 0 else "Son" for number in numbers],
        "price": [1000.0 * number for number in numbers],
        "available": [number % 4 > 0 for number in numbers],
    }
    return build_catalogue(products["product_id"], {**products, **more}, "v1")


PLACES = {"home": Placement(length=5), "mail": Placement(length=3, rules=False)}


def said(*rules: dict[str, Any], places: dict[str, Placement] = PLACES) -> list[RuleWarning]:
    named = [RULE | {"name": f"r{number}"} | rule for number, rule in enumerate(rules, 1)]
    content = RulesConfig.model_validate({"rules": named})
    found = warnings_of(content.rules, shop(), places, NOW, also_placements=("app",))
    for one in found:
        assert one.sentence.startswith(f"rule {one.rule}: ")
    return found


def only(*rules: dict[str, Any], places: dict[str, Placement] = PLACES) -> tuple[str, str, str]:
    [one] = said(*rules, places=places)
    return one.rule, one.kind, one.sentence.removeprefix(f"rule {one.rule}: ")


def pin(products: dict[str, Any], position: int = 1, **more: Any) -> dict[str, Any]:
    return {"action": "pin", "products": products, "position": position, **more}


def quota(products: dict[str, Any], at_least: int, **more: Any) -> dict[str, Any]:
    return {"action": "quota", "products": products, "at_least": at_least, **more}


def limit(products: dict[str, Any], at_most: int, **more: Any) -> dict[str, Any]:
    return {"action": "limit", "products": products, "at_most": at_most, **more}


COCOON, MASKS, LIPS = {"brands": ["Cocoon"]}, {"categories": ["mat na"]}, {"categories": ["Son"]}


def test_sound_rules_are_passed_over_in_silence() -> None:
    assert (
        said(
            pin({"ids": ["p1"]}, placements=["home"]),
            {"action": "boost", "products": COCOON, "placements": ["app", "mail"]},
            quota(MASKS, 2),
            limit(LIPS, 3),
            {"action": "hide", "products": {"ids": ["p2"]}},
        )
        == []
    )


def test_an_expired_rule_is_told_and_takes_no_further_part() -> None:
    past = {"end": NOW - timedelta(seconds=1), "products": {"brands": ["Nobody"]}}
    rule, kind, sentence = only(past)
    assert (rule, kind) == ("r1", "expired")
    assert sentence.startswith("end: it ended at 2027-01-20 11:59 +0000")


@pytest.mark.parametrize(
    ("rule", "kind", "sentence"),
    [
        (
            {"products": COCOON, "placements": ["home", "hmoe"]},
            "unknown_placement",
            "placements: there is no placement hmoe; there are app, home, mail",
        ),
        (
            {"products": {"brands": ["Cocoon", "Cocon"]}},
            "unknown_name",
            "products.brands: the shop has no product of Cocon; 'cocoon' is near to 'Cocon'",
        ),
        (
            {"products": {"ids": ["p1", *(f"x{number}" for number in range(7))]}},
            "unknown_name",
            "products.ids: the shop has no product of x0, x1, x2, x3, x4 and 2 more",
        ),
        (
            {"products": {"brands": ["cocoon"], "min_price": 90_000}},
            "matches_nothing",
            "products: no product of the shop is meant by it",
        ),
        (
            {"products": {"min_stock": 1}},
            "matches_nothing",
            "products: no product of the shop is meant by it; the shop's data do not say what is "
            "in stock",
        ),
        (
            pin({"ids": ["p0", "p4"]}),
            "matches_nothing",
            "products: none of the 2 products that it means may be shown now",
        ),
        (
            quota({"ids": ["p1", "p0"]}, 2),
            "contradiction",
            "at_least: it asks for 2 products, and there are 1",
        ),
        (
            pin(COCOON, 6, placements=["home"]),
            "contradiction",
            "position: lists of home have 5 places",
        ),
        (quota(LIPS, 6), "contradiction", "at_least: lists of home have 5 places"),
    ],
)
def test_what_a_rule_will_not_get(rule: dict[str, Any], kind: str, sentence: str) -> None:
    assert only(rule)[1:] == (kind, sentence)


@pytest.mark.parametrize(
    ("one", "other", "blamed", "sentence"),
    [
        (
            pin({"ids": ["p1"]}, 2),
            pin({"ids": ["p2"]}, 2, placements=["home"]),
            "r2",
            "position: the rule r1 pins to place 2 as well; that one comes first",
        ),
        (
            {"action": "hide", "products": {"ids": ["p1", "p2"]}},
            pin({"ids": ["p1"]}),
            "r2",
            "products: the rule r1 hides p1, which is never shown",
        ),
        (
            quota(MASKS, 3),
            limit(MASKS, 2),
            "r1",
            "at_least: it asks for 3, and the rule r2 leaves room for 2",
        ),
        (
            limit(COCOON, 1),
            pin({"ids": ["p1", "p2"]}),
            "r2",
            "products: it pins 2 products of which the rule r1 wants 1",
        ),
        (
            quota(MASKS, 3),
            quota(LIPS, 3),
            "r2",
            "at_least: lists of home have 5 places; the quotas of r1 come first",
        ),
        (
            {"action": "hide", "products": MASKS},
            {"action": "hide", "products": {"min_price": 5000, "categories": ["Son"]}},
            "r2",
            "placements: with it lists of home have at most 2 products, and 5 places",
        ),
        (
            limit(MASKS, 2),
            limit(LIPS, 2),
            "r2",
            "placements: with it lists of home have at most 4 products, and 5 places",
        ),
    ],
)
def test_two_rules_that_cannot_both_be_had(
    one: dict[str, Any], other: dict[str, Any], blamed: str, sentence: str
) -> None:
    assert f"rule {blamed}: {sentence}" in [warning.sentence for warning in said(one, other)]
    # Not where, or when, they never meet.
    apart = said(one | {"placements": ["app"]}, other | {"placements": ["home"]})
    assert sentence not in str(apart)
    times = said(one | {"end": NOW + timedelta(1)}, other | {"start": NOW + timedelta(1)})
    assert sentence not in str(times)


def test_a_placement_without_rules_has_those_that_hide() -> None:
    places = {"mail": Placement(length=3, rules=False)}
    assert said(quota(MASKS, 3), limit(MASKS, 1), places=places)[0].rule == "r1"  # elsewhere
    only_here = {"placements": ["mail"]}
    assert said(quota(MASKS, 3, **only_here), limit(MASKS, 1, **only_here), places=places) == []
    hide = {"action": "hide", "products": {"min_price": 2000}, **only_here}
    assert only(hide, places=places)[1] == "short_list"


def test_a_spread_can_be_too_narrow_for_a_quota() -> None:
    places = {"home": Placement.model_validate({"length": 5, "spread": {"brand": 2}})}
    assert only(quota(COCOON, 3), places=places)[2] == (
        "at_least: it asks for 3, and the spread of home has room for 2"
    )


def test_what_begins_later_is_told_now() -> None:
    later = {"start": NOW + timedelta(days=9), "placements": ["home"]}
    assert only({"action": "hide", "products": {"min_price": 2000}, **later})[1] == "short_list"


def test_a_pin_for_all_placements_beyond_every_list_is_told() -> None:
    rule, kind, sentence = only(pin(COCOON, 6))
    assert (rule, kind) == ("r1", "contradiction")
    assert sentence == "position: no placement's lists have so many places: the longest have 5"
    assert said(pin(COCOON, 5)) == said(pin(COCOON, 6), places={}) == []
    longer = PLACES | {"product": Placement(length=6)}
    assert said(pin(COCOON, 6), places=longer) == []
    without_rules = PLACES | {"app": Placement(length=20, rules=False)}
    assert only(pin(COCOON, 6), places=without_rules)[1] == "contradiction"


def test_a_limit_of_everything_is_told_wherever_it_stands() -> None:
    rules = [limit(COCOON, 1), limit({"min_price": 0}, 2)]
    told = "placements: with it lists of home have at most 2 products, and 5 places"
    assert only(*rules) == ("r2", "short_list", told)
    assert only(*rules[::-1]) == ("r1", "short_list", told)


products = st.sampled_from(
    [
        COCOON,
        MASKS,
        LIPS,
        {"min_price": 0},
        {"ids": ["p1", "p5", "none"]},
        {"max_price": 4000},
        {"min_stock": 2},
    ]
)
anything = st.one_of(
    st.builds(lambda p: {"action": "hide", "products": p}, products),
    st.builds(pin, products, st.integers(1, 9)),
    st.builds(quota, products, st.integers(1, 9)),
    st.builds(limit, products, st.integers(1, 9)),
)


@given(rules=st.lists(anything, max_size=6))
def test_each_matter_is_told_once_and_in_the_order_of_the_rules(
    rules: list[dict[str, Any]],
) -> None:
    found = said(*rules)
    assert len({one.identity for one in found}) == len(found)
    assert [one.rule for one in found] == sorted(one.rule for one in found)


@given(rules=st.lists(anything, max_size=6), order=st.randoms(use_true_random=False))
def test_whether_a_list_is_short_is_no_matter_of_the_order_of_the_rules(
    rules: list[dict[str, Any]], order: Random
) -> None:
    named = [{"name": f"n{number}", **rule} for number, rule in enumerate(rules)]
    mixed = order.sample(named, len(named))
    for places in (PLACES, {"home": Placement(length=20)}):
        one, other = said(*named, places=places), said(*mixed, places=places)
        short = [sum(w.kind == "short_list" for w in found) for found in (one, other)]
        assert short[0] == short[1]
