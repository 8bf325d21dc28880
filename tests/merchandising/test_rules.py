"""What rules.yaml may say, what is wrong with the rest, and which products and moments it means."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import ConfigError
from recsys.merchandising.catalogue import Catalogue, build_catalogue
from recsys.merchandising.rules import Products, Rule, RulesConfig, active, matching, read_rules
from recsys.settings import REPOSITORY, Settings

NOW = datetime(2027, 1, 20, 12, tzinfo=UTC)
IDS = ["p1", "p2", "p3", "p4"]
RULE = {
    "name": "tet-sets",
    "action": "hide",
    "products": {"brands": ["Cocoon"]},
    "author": "lan",
    "reason": "Tết",
}


class Plain(yaml.SafeDumper):
    """Writes out what stands there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def catalogue(**more: list[Any]) -> Catalogue:
    return build_catalogue(
        IDS,
        {
            "product_id": IDS,
            "product_name": ["Son", "Dầu gội", "Mặt nạ", "Kem"],
            "brand": ["Cocoon", "Sạch", "Cocoon", ""],
            "category": ["Trang điểm", "Tóc", "Mặt nạ", "Mặt nạ"],
            "price": [100_000.0, 50_000.0, None, 300_000.0],
            "available": [True, True, True, False],
            **more,
        },
        "v1",
    )


def write(settings: Settings, *rules: dict[str, Any], text: str | None = None) -> None:
    path = settings.home / "config" / "rules.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or yaml.dump({"rules": list(rules)}, Dumper=Plain), "utf-8")


def problem(settings: Settings, *rules: dict[str, Any], text: str | None = None) -> str:
    write(settings, *rules, text=text)
    with pytest.raises(ConfigError) as caught:
        read_rules(settings)
    path = str(settings.home / "config" / "rules.yaml")
    assert path in str(caught.value)
    return str(caught.value).replace(path, "FILE")


def found(**products: Any) -> list[str]:
    mask = matching(Products(**products), catalogue(), NOW)
    assert mask.shape == (len(IDS),)
    return [IDS[column] for column in np.flatnonzero(mask)]


def test_a_shop_without_rules_has_none(settings: Settings) -> None:
    read = read_rules(settings)
    assert read.rules == ()
    assert len(read.sha256) == 64  # of the shipped file


def test_the_rules_that_the_shipped_file_shows_can_be_given(settings: Settings) -> None:
    shipped = (REPOSITORY / "config" / "rules.yaml").read_text("utf-8")
    _, _, example = shipped.partition("# rules:\n")
    body = re.sub(r"^# ?", "", example.partition("\nrules: []")[0], flags=re.MULTILINE)
    write(settings, text="rules:\n" + body)
    rules = read_rules(settings).rules
    assert [rule.action for rule in rules] == ["hide", "pin", "boost", "bury", "limit", "quota"]


def test_ids_and_names_of_digits_are_text(settings: Settings) -> None:
    write(settings, RULE | {"products": {"ids": [422220087], "brands": [3]}})
    [rule] = read_rules(settings).rules
    assert (rule.products.ids, rule.products.brands) == (("422220087",), ("3",))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0123", 83),
        ("00", 0),
        ("0x10", 16),
        ("12:30", 750),
        ("1_000", 1000),
        ("0b11", 3),
        ("+5", 5),
    ],
)
@pytest.mark.parametrize("key", ["ids", "brands", "categories", "tags"])
def test_what_yaml_reads_as_another_number_is_refused_without_quotes(
    settings: Settings, key: str, written: str, read: int
) -> None:
    start = "rules: [{name: a, action: hide, author: lan, reason: x, products: {KEY: [p1, ID]}}]"
    text = start.replace("KEY", key)
    said = f'write it in quotes, "{written}": without them YAML reads another value (got {read})'
    where = f"FILE: rules.0.products.{key}.1 of 'a'"
    assert problem(settings, text=text.replace("ID", written)) == f"{where}: {said}"
    write(settings, text=text.replace("ID", f'"{written}"'))
    assert getattr(read_rules(settings).rules[0].products, key) == ("p1", written)


@given(st.integers(0, 10**15))
def test_plain_digits_are_the_ids_that_stand_there(number: int) -> None:
    with TemporaryDirectory() as home:
        write(Settings(Path(home)), RULE | {"products": {"ids": [number]}})
        assert read_rules(Settings(Path(home))).rules[0].products.ids == (str(number),)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nmae": 1}, "FILE: rules.0.nmae of 'tet-sets': there is no such key: expected one of"),
        ({"action": "push"}, "FILE: rules.0.action of 'tet-sets': expected one of 'hide', 'pin'"),
        ({"action": "pin"}, "FILE: rules.0 of 'tet-sets': position: expected a value: the action"),
        ({"position": 2}, "rules.0 of 'tet-sets': position: is of no use to the action hide"),
        (
            {"action": "boost", "strength": 11},
            "rules.0.strength of 'tet-sets': expected at most",
        ),
        ({"action": "limit", "at_most": 0}, "rules.0.at_most of 'tet-sets': expected at least 1"),
        ({"action": "limit", "at_most": True}, "rules.0.at_most of 'tet-sets': expected a number"),
        ({"products": {}}, "rules.0.products of 'tet-sets': expected at least one of ids, brands"),
        ({"products": {"brands": []}}, "rules.0.products of 'tet-sets': expected at least one"),
        ({"products": {"brand": ["x"]}}, "rules.0.products.brand of 'tet-sets': there is no such"),
        ({"products": {"brands": [""]}}, "rules.0.products.brands.0 of 'tet-sets': expected some"),
        (
            {"products": {"min_price": 5, "max_price": 4}},
            "rules.0.products of 'tet-sets': min_price 5 is above max_price 4",
        ),
        (
            {"placements": ["the home"]},
            "rules.0.placements.0 of 'tet-sets': expected text that",
        ),
        ({"start": "2027-01-01T00:00"}, "rules.0.start of 'tet-sets': expected a time with"),
        ({"start": NOW.replace(tzinfo=None)}, "rules.0.start of 'tet-sets': expected a time with"),
        ({"end": NOW.date()}, "rules.0.end of 'tet-sets': expected a time with its zone"),
        ({"end": 20270101}, "rules.0.end of 'tet-sets': expected a time with its zone"),
        ({"start": NOW, "end": NOW}, "rules.0 of 'tet-sets': end: expected a time after start"),
        ({"author": " "}, "rules.0.author of 'tet-sets': expected some text"),
        ({"reason": None}, "rules.0.reason of 'tet-sets': expected text"),
        ({"placements": "home"}, "rules.0.placements of 'tet-sets': expected a list"),
        ({"products": {"brands": "Cocoon"}}, "products.brands of 'tet-sets': expected a list"),
        ({"products": ["p1"]}, "rules.0.products of 'tet-sets': expected keys with values"),
        ({"action": "limit", "at_most": "two"}, "at_most of 'tet-sets': expected a whole number"),
        ({"name": "Tết"}, "rules.0.name: expected text that fits"),
    ],
)
def test_a_mistake_is_told_with_file_rule_and_key(
    settings: Settings, change: dict[str, Any], sentence: str
) -> None:
    assert sentence in problem(settings, RULE | change)


def test_every_mistake_of_a_file_is_told(settings: Settings) -> None:
    said = problem(settings, RULE | {"action": "push"}, RULE | {"name": "other", "author": ""})
    assert len(said.splitlines()) == 2
    assert "of 'other'" in said


def test_a_name_stands_once(settings: Settings) -> None:
    assert "the name tet-sets stands there twice" in problem(settings, RULE, RULE)


def test_a_file_that_is_no_yaml_or_has_too_many_rules_is_told(settings: Settings) -> None:
    assert "FILE: line 2" in problem(settings, text="rules:\n  - {name: [}\n")
    many = [RULE | {"name": f"r{number}"} for number in range(201)]
    assert "FILE: rules: expected at most 200 entries" in problem(settings, *many)


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        ({"ids": [" p2 ", "p9"]}, ["p2"]),
        ({"brands": ["COCOON"]}, ["p1", "p3"]),
        ({"categories": ["mat na"]}, ["p3", "p4"]),
        ({"brands": ["cocoon"], "categories": ["Mặt nạ"]}, ["p3"]),
        ({"brands": ["cocoon", "sach"]}, ["p1", "p2", "p3"]),
        ({"min_price": 0}, ["p1", "p2", "p4"]),
        ({"max_price": 100_000}, ["p1", "p2"]),
        ({"min_price": 100_000, "max_price": 300_000}, ["p1", "p4"]),
        ({"brands": ["Nobody"]}, []),
    ],
)
def test_all_that_is_given_has_to_hold_and_unknown_is_within_nothing(
    products: dict[str, Any], expected: list[str]
) -> None:
    assert found(**products) == expected


def test_a_shop_that_does_not_say_stock_tags_or_age_has_no_such_products() -> None:
    assert found(min_stock=0) == found(tags=["tet"]) == found(max_age_days=9) == []


@pytest.mark.parametrize(
    ("products", "expected"),
    [
        ({"min_stock": 0}, ["p1", "p2"]),
        ({"max_stock": 3}, ["p2"]),
        ({"tags": ["tet 2027"]}, ["p1", "p3"]),
        ({"max_age_days": 14}, ["p2", "p4"]),
        ({"min_age_days": 14}, ["p1"]),
    ],
)
def test_stock_tags_and_age_as_the_shop_says_them(
    products: dict[str, Any], expected: list[str]
) -> None:
    day = 86_400
    since = [NOW.timestamp() - 30 * day, NOW.timestamp(), None, NOW.timestamp() + day]
    shop = catalogue(stock=[9, 3, None, None], tags=["moi\ntet 2027", "", "tet 2027", "tet"])
    ages = np.array(since, dtype=np.float64)
    mask = matching(Products(**products), shop, NOW, ages)
    assert [IDS[column] for column in np.flatnonzero(mask)] == expected
    again = matching(Products(**products), catalogue(since=since), NOW)
    assert again.tolist() == (mask.tolist() if "age" in str(products) else [False] * 4)


moments = st.none() | st.integers(-3, 3).map(lambda days: NOW + timedelta(days=days))


@given(start=moments, end=moments, placements=st.sets(st.sampled_from(["home", "mail"])))
def test_a_rule_counts_from_its_start_until_its_end_where_it_is_meant(
    start: datetime | None, end: datetime | None, placements: set[str]
) -> None:
    if start is not None and end is not None and start >= end:
        return
    rule = Rule.model_validate(RULE | {"start": start, "end": end, "placements": placements})
    for placement in ("home", "mail", ""):
        here = not placements or placement in placements
        now = (start is None or start <= NOW) and (end is None or end > NOW)
        assert active([rule], NOW, placement) == ((rule,) if here and now else ())
    assert RulesConfig(rules=(rule,)).rules == (rule,)
