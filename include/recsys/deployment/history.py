"""``logs/deployment_history.json``: what was deployed when, and how it went."""

import json
import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from recsys.config import parse_json
from recsys.errors import InputError
from recsys.publishing import storable
from recsys.registry import Registry
from recsys.settings import HISTORY_KEY, Settings
from recsys.storage import Document, open_store

logger = logging.getLogger(__name__)

_KEPT = 1000  # about three years of daily deployments


def read_history(settings: Settings) -> list[dict[str, Any]]:
    """All deployments, oldest first. Raises `InputError` if the file is damaged."""
    return _document(settings, []).read()


def append_history(settings: Settings, entry: dict[str, Any]) -> str | None:
    """Add `entry`, and keep the newest thousand. A damaged file is set aside, as
    ``deployment_history.damaged_<time>.json``, whose name is returned, and a new one begun. Raises
    `OSError` if nothing can be written."""
    asides: list[str] = []

    def append(deployments: list[dict[str, Any]]) -> None:
        deployments[:] = [*deployments, entry][-_KEPT:]

    _document(settings, asides).change(append)
    return asides[-1] if asides else None


class Stint(NamedTuple):
    """A time in which one model served: `since` None where the history does not reach back so far,
    `until` None where it still does. `model_id` None: none did, or nobody knows."""

    model_id: str | None
    since: datetime | None
    until: datetime | None


def stints_of(deployments: Iterable[dict[str, Any]]) -> list[Stint]:
    """Which model served when, oldest first, by what `read_history` gives. A deployment that failed
    or was rolled back leaves the model that it wanted to replace; the minutes of its try are not
    counted."""
    stints: list[Stint] = []
    for entry in deployments:
        previous = entry.get("previous_model_id")
        serving = entry["model_id"] if entry.get("status") == "success" else previous
        if not stints:
            stints.append(Stint(previous, None, None))
        if serving is not None and serving != stints[-1].model_id:
            moment = datetime.fromisoformat(entry["timestamp"])
            stints[-1] = stints[-1]._replace(until=moment)
            stints.append(Stint(serving, moment, None))
    return stints


def live_at(deployments: Iterable[dict[str, Any]], moment: datetime) -> Stint | None:
    """The stint that `moment` lies in, None before the first deployment of a shop without one."""
    for stint in stints_of(deployments):
        if stint.until is None or moment < stint.until:
            return stint
    return None


def model_before(settings: Settings, serving: str | None) -> str:
    """The model to go back to from `serving`: the one that the last deployment of it replaced. One
    that was trained on another source (the sample, before the shop's own data came) knows nothing
    of these customers, and is passed over. Raises `InputError` if the history knows none."""
    registry, others = Registry(settings), []
    source = None if serving is None else registry.source_of(serving)
    known = {entry.model_id for entry in registry.list()}
    for entry in reversed(read_history(settings)):
        previous = entry.get("previous_model_id")
        replaced = entry.get("status") == "success" and entry["model_id"] == serving
        if replaced and previous in known:  # else somebody has deleted it
            if source in (None, theirs := registry.source_of(previous)) or theirs is None:
                return str(previous)
            others.append(f"{previous} was trained on source {theirs}, {serving} on {source}")
    problem = (
        f"{settings.deployment_history}: no deployment of {serving} that replaced another model is "
        "on record, so there is nothing to roll back to"
    )
    if others:
        problem = f"{others[0]}: a rollback does not change the source"
    raise InputError(f"{problem}; name the model with model_id")


def _document(settings: Settings, asides: list[str]) -> Document[list[dict[str, Any]]]:
    """The history; `asides` gets the names of damaged ones that were set aside."""

    def on_damage(name: str, problem: str) -> None:
        asides.append(name)
        logger.error("The deployment history is damaged | set_aside=%s, %s", name, problem)

    def parse(content: bytes | None) -> list[dict[str, Any]]:
        try:
            deployments = [] if content is None else list(parse_json(content)["deployments"])
            if not all(isinstance(entry["model_id"], str) for entry in deployments):
                raise TypeError("an entry has no model_id")
        except (ValueError, KeyError, TypeError) as error:
            path, expected = settings.deployment_history, "expected an object with deployments"
            raise InputError(
                f"{path}: is not a deployment history: {expected}, each of which has a model_id"
            ) from error
        return deployments

    def dump(deployments: list[dict[str, Any]]) -> bytes:
        content = {"deployments": deployments}
        text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
        return f"{storable(text)}\n".encode()

    return Document(open_store(settings), HISTORY_KEY, parse=parse, dump=dump, on_damage=on_damage)
