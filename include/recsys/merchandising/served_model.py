"""The note of which model the service serves: ``artifacts/cf/served_model.json``."""

import json
import logging
from pathlib import Path

from recsys.publishing import write_json
from recsys.settings import Settings

logger = logging.getLogger(__name__)


def remember_served(settings: Settings, model_id: str) -> None:
    """Write down which model a service that starts later has to come up with."""
    write_json(_note(settings), {"model_id": model_id})


def last_served(settings: Settings) -> str | None:
    """The model that was served last, None when there was none or the note is damaged."""
    try:
        return str(json.loads(_note(settings).read_text(encoding="utf-8"))["model_id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The note of the last served model is damaged | error=%r", error)
        return None


def _note(settings: Settings) -> Path:
    return settings.artifacts / "served_model.json"
