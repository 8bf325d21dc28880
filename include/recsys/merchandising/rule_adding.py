"""A rule that is added to the shop's file by a program, on behalf of a person."""

from collections.abc import Mapping
from typing import Any, Final

import yaml
from filelock import FileLock

from recsys.config import ConfigError, Document
from recsys.errors import InputError
from recsys.merchandising.rules import Rule, RulesConfig, read_rules
from recsys.publishing import write_text
from recsys.settings import Settings

_NONE: Final = "rules: []\n"
_WAIT_SECONDS: Final = 10


def add_rule(settings: Settings, content: Mapping[str, Any]) -> Rule:
    """Add a rule at the end of the state root's own ``rules.yaml``, which is written anew as a
    whole and keeps what stands in it, comments too. Raises `InputError` if the rule or the file
    is bad, or the file does not end with its rules, one below the other: then nothing is
    changed."""
    path = settings.config / RulesConfig.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=_WAIT_SECONDS):
        before = read_rules(settings).rules
        # The first rule of a file of the shop's own brings along what held before it.
        in_force = settings.config_file(RulesConfig.FILE)
        text = in_force.read_text(encoding="utf-8") if in_force.exists() else _NONE
        added = yaml.safe_dump([dict(content)], allow_unicode=True, sort_keys=False)
        wanted = _appended(text, added)
        if _rules_of(wanted) != [*_rules_of(text), dict(content)]:
            why = "a rule cannot be added at its end as it is written; add it by hand"
            raise InputError(f"{path}: {why}:\n{added}")
        try:
            document = Document(((path, yaml.safe_load(wanted)),))
            rules = document.validate(RulesConfig).rules
        except ConfigError as error:
            raise InputError(f"the rule cannot be added: {error}") from error
        if rules[:-1] != before:
            raise ConfigError(f"{path}: is not what was read; try again")
        write_text(path, wanted)
    return rules[-1]


def _appended(text: str, added: str) -> str:
    """`text` with the list item `added` after its last line, as far in as its items are."""
    body = text.rstrip()
    if body.endswith("rules: []"):
        return f"{body.removesuffix(' []')}\n{_indented(added, 2)}"
    items = [line for line in body.splitlines() if line.lstrip().startswith("- ")]
    depth = min((len(line) - len(line.lstrip()) for line in items), default=2)
    return f"{body}\n{_indented(added, depth)}"


def _indented(text: str, depth: int) -> str:
    return "".join(f"{' ' * depth}{line}\n" for line in text.splitlines())


def _rules_of(text: str) -> list[Any]:
    try:
        return list((yaml.safe_load(text) or {}).get("rules") or [])
    except (yaml.YAMLError, AttributeError, TypeError):
        return []
