"""What the pages say of the shop's rules: as the service has them, else as their file does."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from recsys.config import ConfigError, load_config
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient, ServiceError, read_address
from recsys.errors import InputError
from recsys.merchandising.placements import PlacementsConfig
from recsys.merchandising.rules import Rule, read_rules
from recsys.settings import Settings

STATES: Final = ("active", "waiting", "expired")


class Rules(NamedTuple):
    """The rules as `rows` of text, in the order of the file, by `states` how many, and `warnings`
    by rule: kind and sentence. `problem` is what is wrong with the file, `silent` why the service
    says nothing: then the rows are those of the file, and nobody knows the warnings."""

    rows: list[dict[str, Any]]
    states: Mapping[str, int]
    warnings: Mapping[str, list[tuple[str, str]]]
    problem: str | None
    silent: str | None


def gather_rules(settings: Settings, now: datetime, seconds: float) -> Rules | None:
    """None of a shop that has none, and of which nobody has to be asked. Raises `ConfigError` for
    a bad file where the service does not answer either."""
    fault: ConfigError | None = None
    found: tuple[Rule, ...] = ()
    try:
        found = read_rules(settings).rules
    except ConfigError as error:
        fault = error
    if not found and fault is None:
        return None
    try:
        client = ServiceClient(read_address(), load_config(settings, DeploymentConfig), seconds)
        return _told(client.rules())
    except ServiceError as error:
        if fault is not None:
            raise fault from None
        rows = [
            {**rule.model_dump(mode="json", exclude_defaults=True), "state": rule.state(now)}
            for rule in found
        ]
        return Rules(rows, _counted(rows), {}, None, str(error))


def ask_for_preview(
    settings: Settings, asked: Mapping[str, str], seconds: float
) -> tuple[dict[str, Any] | None, str | None]:
    """The answer of ``/rules/preview``, or the sentence why there is none."""
    try:
        client = ServiceClient(read_address(), load_config(settings, DeploymentConfig), seconds)
        return client.preview_rules({key: value for key, value in asked.items() if value}), None
    except (ServiceError, InputError) as error:
        return None, str(error)


def placements_of(settings: Settings) -> list[str]:
    """The placements that one can choose from."""
    return list(load_config(settings, PlacementsConfig).placements)


def _told(answer: Mapping[str, Any]) -> Rules:
    rows = [{key: value for key, value in row.items() if value} for row in answer["rules"]]
    warnings: dict[str, list[tuple[str, str]]] = {}
    for one in answer["warnings"]:
        sentence = str(one["sentence"]).removeprefix(f"rule {one['rule']}: ")
        warnings.setdefault(one["rule"], []).append((str(one["kind"]), sentence))
    return Rules(rows, _counted(rows), warnings, answer["problem"], None)


def _counted(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {state: sum(row["state"] == state for row in rows) for state in STATES}
