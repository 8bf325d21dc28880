"""What is remembered of the rules: those in service, and in ``logs/rules_audit.log`` every change.

One process of a machine writes (worker 0 of the service)."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Any, NamedTuple

from pydantic import ValidationError

from recsys.config import ConfigError, parse_json
from recsys.logs import file_logger
from recsys.merchandising.rules import Rule, RulesConfig, RuleSet, read_rules
from recsys.publishing import write_json
from recsys.schedule import load_zone
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_NOTE = "served_rules.json"
_LOG = "rules_audit.log"
_LINE = re.compile(r"(.{19}) \| INFO \| rules \| (\w+) (\{.*\})")
_LONGEST = 300  # characters of a value that changed


class Told(NamedTuple):
    """Warnings that somebody was told of, and when that was, in seconds since 1970."""

    warnings: frozenset[str] = frozenset()
    at: float = 0.0


@dataclass(frozen=True)
class Standing:
    """The last good rules, with the names of those that were seen to expire; `problem` is what
    somebody was told to be wrong with the file."""

    rules: RuleSet = field(default_factory=RuleSet)
    expired: frozenset[str] = frozenset()
    problem: str | None = None
    told: Told = field(default_factory=Told)


def rules_in_force(settings: Settings, before: RuleSet | None = None) -> tuple[RuleSet, str | None]:
    """What the file says. Of one that cannot count, or is gone, the rules `before` it, by default
    those that this machine had in service last, and what is the matter."""
    own = settings.config / RulesConfig.FILE
    try:
        rules, problem = read_rules(settings), None
    except ConfigError as error:
        rules, problem = RuleSet(), str(error)
    if problem is None and (rules.rules or own.exists()):
        return rules, None
    if before is None:
        before = read_standing(settings).rules
    if problem is None and before.rules:
        problem = f"{own}: the file is gone: write `{RulesConfig.NOTHING}` if that is meant"
    return (rules, None) if problem is None else (before, problem)


def read_standing(settings: Settings) -> Standing:
    """What this machine had in service last; nothing before the first rule, and without a sound
    note, which the process's log then says."""
    path = settings.artifacts / _NOTE
    try:
        content = parse_json(path.read_bytes())
        rules = RulesConfig.model_validate({"rules": content["rules"]}).rules
        return Standing(
            RuleSet(rules, str(content["sha256"])),
            frozenset(map(str, content["expired"])),
            content["problem"] and str(content["problem"]),
            Told(frozenset(map(str, content["told"])), float(content["told_at"])),
        )
    except FileNotFoundError:
        return Standing()
    except (OSError, ValidationError, ValueError, KeyError, TypeError) as error:
        logger.warning("The note of the last rules is damaged | error=%r", error)
        return Standing()


def write_standing(settings: Settings, standing: Standing) -> None:
    """Write down what a service comes up with whose file is bad. Raises `OSError`."""
    content = {
        "sha256": standing.rules.sha256,
        "rules": [_given(rule) for rule in standing.rules.rules],
        "expired": sorted(standing.expired),
        "problem": standing.problem,
        "told": sorted(standing.told.warnings),
        "told_at": standing.told.at,
    }
    write_json(settings.artifacts / _NOTE, content)


def record(settings: Settings, before: Standing, after: RuleSet, now: datetime) -> Standing:
    """Write what the change from `before` to `after` is into the log, and which rules expired by
    `now`; what stands then. An author can only be who the rule names."""
    log = file_logger("rules", settings.logs / _LOG, load_zone(settings))
    for what, rule, more in _changes(before, after, now):
        about = {"rule": rule.name, "action": rule.action, "by": rule.author}
        line = {**about, "because": rule.reason, **more, "sha256": after.sha256}
        log.info("%s %s", what, json.dumps(line, ensure_ascii=False))
    expired = frozenset(rule.name for rule in after.rules if rule.expired(now))
    return replace(before, rules=after, expired=expired)


def history(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """The last changes, the newest first: ``at`` (the shop's time, with its zone), ``what``, and
    what the line says."""
    path = settings.logs / _LOG
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        found = [match for line in file if (match := _LINE.fullmatch(line.rstrip("\n")))]
    zone = load_zone(settings)
    return [
        {"at": _with_zone(at, zone), "what": what, **parse_json(said)}
        for at, what, said in (match.groups() for match in found[: -limit - 1 : -1])
    ]


def _with_zone(text: str, zone: tzinfo) -> str:
    """A moment of a log line; as it is where somebody has edited it."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=zone).isoformat()
    except ValueError:
        return text


def _changes(
    before: Standing, after: RuleSet, now: datetime
) -> Iterator[tuple[str, Rule, Mapping[str, Any]]]:
    old = {rule.name: rule for rule in before.rules.rules}
    for rule in after.rules:
        known = old.pop(rule.name, None)
        if known is None:
            yield "added", rule, {"rule_says": _given(rule)}
        elif known != rule:
            yield "changed", rule, {"changes": _differences(known, rule)}
    for rule in old.values():
        yield "removed", rule, {"rule_said": _given(rule)}
    for rule in after.rules:
        same = rule.name in before.expired and rule in before.rules.rules
        if rule.expired(now) and not same:
            yield "expired", rule, {"end": str(rule.end)}


def _given(rule: Rule) -> dict[str, Any]:
    """What somebody wrote of the rule, for JSON."""
    content: dict[str, Any] = rule.model_dump(mode="json", exclude_unset=True)
    return content


def _differences(old: Rule, new: Rule) -> dict[str, str]:
    """``OLD -> NEW`` by key."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return {
        key: f"{_brief(before[key])} -> {_brief(after[key])}"
        for key in after
        if before[key] != after[key]
    }


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
