"""A rule that a program adds to the shop's file for a person."""

import threading
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.merchandising.rule_adding import add_rule
from recsys.merchandising.rules import read_rules
from recsys.settings import Settings

NEW = {
    "name": "hide-1",
    "action": "hide",
    "products": {"ids": ["0123"]},
    "end": "2999-01-01T00:00:00+07:00",
    "author": "lan",
    "reason": "thu hồi: lô 7",
}
BY_HAND = """\
# The shop's own words.
rules:
    - name: tet-sets   # until Tết
      action: hide
      products: {brands: [Cocoon]}
      author: lan
      reason: Tết

    # next year's
    - name: few-masks
      action: limit
      products:
        categories:
          - Mặt nạ
      at_most: 2
      author: lan
      reason: lists were full of masks
"""


def file_of(settings: Settings) -> Path:
    path = settings.home / "config" / "rules.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("before", [None, "rules: []\n", "# none yet\nrules: []"])
def test_the_first_rule_of_a_shop(settings: Settings, before: str | None) -> None:
    if before is not None:
        file_of(settings).write_text(before, "utf-8")
    added = add_rule(settings, NEW)
    assert read_rules(settings).rules == (added,)
    assert (added.products.ids, added.reason) == (("0123",), "thu hồi: lô 7")


def test_a_shop_with_settings_out_of_gits_way_gets_it_there(settings: Settings) -> None:
    known = file_of(settings)
    known.write_text(BY_HAND, "utf-8")
    (known.parent / "local").mkdir()
    before = read_rules(settings).rules
    added = [add_rule(settings, {**NEW, "name": name}) for name in ("hide-1", "hide-2")]
    assert read_rules(settings).rules == (*before, *added)
    assert known.read_text("utf-8") == BY_HAND
    assert (known.parent / "local" / "rules.yaml").read_text("utf-8").startswith(BY_HAND.rstrip())


def test_what_stands_in_the_file_stays_as_it_was_written(settings: Settings) -> None:
    path = file_of(settings)
    path.write_text(BY_HAND, "utf-8")
    before = read_rules(settings).rules
    for number in range(3):
        add_rule(settings, NEW | {"name": f"hide-{number}"})
    assert path.read_text("utf-8").startswith(BY_HAND.rstrip())
    rules = read_rules(settings).rules
    assert rules[:2] == before
    assert [rule.name for rule in rules[2:]] == ["hide-0", "hide-1", "hide-2"]


@pytest.mark.parametrize(
    ("text", "content", "why"),
    [
        (BY_HAND, NEW | {"action": "burn"}, "action"),
        (BY_HAND, NEW | {"name": "tet-sets"}, "twice"),
        (BY_HAND, NEW | {"reason": " "}, "some text"),
        (
            "rules: [{name: a, action: hide, products: {ids: [x]}, author: l, reason: r}]",
            NEW,
            "hand",
        ),
        (BY_HAND.replace("limit", "lmit"), NEW, "action"),
    ],
)
def test_what_cannot_be_added_changes_nothing(
    settings: Settings, text: str, content: dict, why: str
) -> None:
    path = file_of(settings)
    path.write_text(text, "utf-8")
    with pytest.raises(InputError, match=why):
        add_rule(settings, content)
    assert path.read_text("utf-8") == text


def test_two_who_add_at_once_lose_nothing(settings: Settings) -> None:
    def add(number: int) -> None:
        add_rule(settings, NEW | {"name": f"hide-{number}"})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {rule.name for rule in read_rules(settings).rules}
    assert names == {f"hide-{number}" for number in range(8)}


def test_what_is_wrong_with_a_rule_is_a_sentence(settings: Settings) -> None:
    file_of(settings).write_text(BY_HAND, "utf-8")
    with pytest.raises(InputError, match=r"added: .*reason of 'hide-1': expected") as told:
        add_rule(settings, NEW | {"reason": ""})
    assert "pydantic" not in str(told.value)
    assert len(read_rules(settings).rules) == 2
