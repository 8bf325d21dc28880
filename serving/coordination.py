"""How a model comes into service: in one process, or in all workers at once."""

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from recsys.errors import InputError
from recsys.publishing import write_json
from recsys.settings import Settings
from serving.engine import Engine, find_entry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reloaded:
    """All `workers` serve `model_id` now."""

    model_id: str
    previous_model_id: str | None
    workers: int
    seconds: float


class ReloadError(Exception):
    """The model did not come into service; every worker serves what it served before."""


class Coordinator(Protocol):
    """Brings a model into service everywhere, or nowhere."""

    async def reload(self, model_id: str | None) -> Reloaded:
        """Serve `model_id`, or the registry's current best. Raises `ReloadError`."""


class LocalCoordinator:
    """The coordinator of a service that is one process."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._reloading = asyncio.Lock()

    async def reload(self, model_id: str | None) -> Reloaded:
        async with self._reloading:
            started = time.monotonic()
            previous = self._engine.snapshot.model_id if self._engine.snapshot else None
            try:
                wanted = find_entry(self._settings, model_id).model_id
                await asyncio.to_thread(self._engine.prepare, wanted)
            except (InputError, OSError) as error:
                raise ReloadError(str(error)) from error
            remember_served(self._settings, wanted)
            self._engine.commit(wanted)
            return Reloaded(wanted, previous, 1, time.monotonic() - started)


def remember_served(settings: Settings, model_id: str) -> None:
    """Write down which model a service that starts later has to come up with."""
    write_json(_memory(settings), {"model_id": model_id})


def last_served(settings: Settings) -> str | None:
    """The model that was served last, None when there was none or the note is damaged."""
    try:
        content = json.loads(_memory(settings).read_text(encoding="utf-8"))
        return str(content["model_id"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The note of the last served model is damaged | error=%r", error)
        return None


def models_to_start_with(settings: Settings) -> list[str]:
    """What to try at start, in order: the model served last, then the registry's current best."""
    wanted = [last_served(settings)]
    try:
        wanted.append(find_entry(settings, None).model_id)
    except (InputError, OSError) as error:
        logger.info("The registry offers no model | reason=%s", error)
    return list(dict.fromkeys(model_id for model_id in wanted if model_id))


def _memory(settings: Settings) -> Path:
    return settings.artifacts / "served_model.json"
