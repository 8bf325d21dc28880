"""Each example of docs/rules.md can be given as it stands."""

import re

import pytest

from recsys.merchandising.rules import Action, read_rules
from recsys.settings import Settings
from tests.documented import pages

EXAMPLES = re.findall(r"```yaml\n(.*?)```", pages()["docs/rules.md"], re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_page_can_be_given(settings: Settings, example: str) -> None:
    path = settings.home / "config" / "rules.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(example, "utf-8")
    assert read_rules(settings).rules


def test_the_page_has_an_example_of_every_action() -> None:
    shown = {action for example in EXAMPLES for action in re.findall(r"action: (\w+)", example)}
    assert shown == set(Action.__args__)
