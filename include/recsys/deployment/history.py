"""``logs/deployment_history.json``: what was deployed when, and how it went."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from recsys.errors import InputError
from recsys.publishing import write_json
from recsys.settings import Settings

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 30


def read_history(settings: Settings) -> list[dict[str, Any]]:
    """All deployments, oldest first; empty when there were none.

    Raises `InputError` if the file is damaged.
    """
    path = settings.deployment_history
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        deployments = content["deployments"]
        if not all(isinstance(entry["model_id"], str) for entry in deployments):
            raise TypeError("an entry has no model_id")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not a deployment history: {error!r}") from error
    return list(deployments)


def append_history(settings: Settings, entry: dict[str, Any], keep: int) -> None:
    """Add `entry`, and keep the newest `keep`.

    A damaged file is set aside (``deployment_history.damaged_<time>.json``), and a new one begun:
    a record of what happens now matters more than one that nobody can read.
    """
    path = settings.deployment_history
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
        try:
            deployments = read_history(settings)
        except InputError as error:
            aside = _set_aside(path)
            logger.error("The deployment history is damaged | set_aside=%s, %s", aside, error)
            deployments = []
        write_json(path, {"deployments": [*deployments, entry][-keep:]})


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


def _set_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S_%f")
    aside = path.with_name(f"{path.stem}.damaged_{stamp}{path.suffix}")
    path.replace(aside)
    return aside
