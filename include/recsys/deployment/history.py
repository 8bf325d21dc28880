"""``logs/deployment_history.json``: what was deployed when, and how it went."""

import json
import logging
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from recsys.errors import InputError
from recsys.settings import HISTORY_KEY, Settings
from recsys.storage import Store, open_store

logger = logging.getLogger(__name__)

# Entries that stay: about three years of daily deployments.
_KEPT = 1000


def read_history(settings: Settings) -> list[dict[str, Any]]:
    """All deployments, oldest first; empty when there were none.

    Raises `InputError` if the file is damaged.
    """
    return _parse(settings, open_store(settings).read(HISTORY_KEY))


def append_history(settings: Settings, entry: dict[str, Any]) -> str | None:
    """Add `entry`, and keep the newest thousand.

    A damaged file is set aside (``deployment_history.damaged_<time>.json``), and a new one begun:
    a record of what happens now matters more than one that nobody can read. Returns the name of
    the damaged one, None if there was none. Raises `OSError` if nothing can be written.
    """
    store = open_store(settings)
    aside: str | None = None

    def append(content: bytes | None) -> bytes:
        nonlocal aside
        try:
            deployments = _parse(settings, content)
        except InputError as error:
            aside = _set_aside(store, content or b"")
            logger.error("The deployment history is damaged | set_aside=%s, %s", aside, error)
            deployments = []
        new = {"deployments": [*deployments, entry][-_KEPT:]}
        text = json.dumps(new, ensure_ascii=False, indent=2, allow_nan=False)
        return f"{text}\n".encode()

    store.change(HISTORY_KEY, append)
    return aside


def model_before(settings: Settings, serving: str | None) -> str:
    """The model to go back to from `serving`: the one that the last deployment of it replaced.

    Raises `InputError` if the history knows none.
    """
    for entry in reversed(read_history(settings)):
        previous = entry.get("previous_model_id")
        if entry.get("status") == "success" and entry["model_id"] == serving and previous:
            return str(previous)
    raise InputError(
        f"{settings.deployment_history}: no deployment of {serving} that replaced another model "
        "is on record, so there is nothing to roll back to; name the model with model_id"
    )


def _parse(settings: Settings, content: bytes | None) -> list[dict[str, Any]]:
    if content is None:
        return []
    try:
        deployments = json.loads(content)["deployments"]
        if not all(isinstance(entry["model_id"], str) for entry in deployments):
            raise TypeError("an entry has no model_id")
    except (ValueError, KeyError, TypeError) as error:
        path = settings.deployment_history
        raise InputError(f"{path}: is not a deployment history: {error!r}") from error
    return list(deployments)


def _set_aside(store: Store, content: bytes) -> str:
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S_%f")
    path = PurePosixPath(HISTORY_KEY)
    aside = path.with_name(f"{path.stem}.damaged_{stamp}{path.suffix}")
    store.change(str(aside), lambda _: content)
    return aside.name
