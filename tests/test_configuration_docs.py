"""``docs/configuration.md`` names every key with its default, and none that is gone."""

import json
import re
from typing import Any, get_args, get_origin

import pytest
import yaml
from pydantic_core import to_jsonable_python

from recsys.config import RETIRED, ConfigModel
from recsys.settings import REPOSITORY
from tests.documented import pages, spans
from tests.test_config import MODELS

PAGE = "docs/configuration.md"
MOST_KEYS = 150


def leaves(model: type[ConfigModel], prefix: str = "") -> dict[str, str]:
    """Every key of a model, with its default as the page shows it."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        key, kind = prefix + name, field.annotation
        inner = [one for one in get_args(kind) if is_section(one)]
        if is_section(kind):
            found |= leaves(kind, f"{key}.")
        elif inner:
            found |= leaves(inner[0], f"{key}.<name>." if get_origin(kind) is dict else f"{key}[].")
        else:
            default = field.get_default(call_default_factory=True, validated_data={})
            found[key] = "" if field.is_required() else shown(default)
    return found


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, ConfigModel)


def shown(value: Any) -> str:
    text = json.dumps(to_jsonable_python(value), ensure_ascii=False)
    return f"`{text.strip(chr(34))}`"


def documented(file: str) -> dict[str, str]:
    """The rows of the file's table: key -> default."""
    _, _, rest = pages()[PAGE].partition(f"\n## `{file}`\n")
    section = rest.partition("\n## ")[0]
    rows = re.findall(r"^\| `(\S+)` \| (.*?) \| (.+) \|$", section, re.MULTILINE)
    return {key: default.strip() for key, default, _ in rows}


@pytest.mark.parametrize("model", MODELS)
def test_every_key_stands_in_the_docs_with_its_default_and_no_other(
    model: type[ConfigModel],
) -> None:
    assert documented(model.FILE) == leaves(model)


def test_no_page_names_a_key_that_is_gone() -> None:
    known = {key for model in MODELS for key in leaves(model)}
    gone = {key for keys in RETIRED.values() for key in keys.split() if "." in key} - known
    named = {(page, span) for page, text in pages().items() for span in spans(text)}
    assert {(page, span) for page, span in named if span in gone} == set()


def keys_of(content: Any, prefix: str = "") -> set[str]:
    """The keys that hold a value; a mapping with free names is one of them when it is empty."""
    if not (isinstance(content, dict) and content):
        return {prefix.rstrip(".")}
    return set().union(*(keys_of(value, f"{prefix}{key}.") for key, value in content.items()))


def test_there_are_no_more_keys_than_a_person_can_know() -> None:
    """And none that a shipped file does not show, but those of entries that one makes oneself."""
    shown_keys = 0
    for model in MODELS:
        path = REPOSITORY / "config" / model.FILE
        if path.suffix == ".yaml":
            found = keys_of(yaml.safe_load(path.read_text(encoding="utf-8")))
            shown_keys += len(found)
            own = {key for key in leaves(model) if "<" not in key and "[" not in key}
            assert own <= found, path
    assert shown_keys <= MOST_KEYS
