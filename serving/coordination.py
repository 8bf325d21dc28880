"""How a model comes into service: in one process here, in all workers in `serving.workers`."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

from recsys.errors import InputError
from recsys.settings import Settings
from serving.engine import Engine, find_entry
from serving.served_model import last_served, remember_served

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

    async def reload(self, model_id: str | None, share: float | None = None) -> Reloaded:
        """Serve `model_id`, or the registry's current best; with `share`, to that share of the
        users only, beside the model in service. Raises `ReloadError`."""

    async def end_canary(self) -> None:
        """Serve the model in service to everybody again."""


class LocalCoordinator:
    """The coordinator of a service that is one process."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._reloading = asyncio.Lock()

    async def reload(self, model_id: str | None, share: float | None = None) -> Reloaded:
        async with self._reloading:
            started = time.monotonic()
            previous = self._engine.model_id
            try:
                wanted = find_entry(self._settings, model_id).model_id
                await asyncio.to_thread(self._engine.prepare, wanted)
                if share is None:
                    remember_served(self._settings, wanted)
            except (InputError, OSError) as error:
                raise ReloadError(str(error)) from error
            except Exception as error:
                logger.exception("Loading failed | model_id=%s", model_id)
                raise ReloadError(f"loading failed with {type(error).__name__}") from error
            if share is None:
                self._engine.commit(wanted)
            else:
                self._engine.commit_canary(wanted, share)
            return Reloaded(wanted, previous, 1, time.monotonic() - started)

    async def end_canary(self) -> None:
        async with self._reloading:
            self._engine.end_canary()


def start_with_any(settings: Settings, engine: Engine) -> None:
    """Serve the model that was served last, else the registry's current best, else none."""
    wanted = [last_served(settings)]
    try:
        wanted.append(find_entry(settings, None).model_id)
    except (InputError, OSError) as error:
        logger.info("The registry offers no model | reason=%s", error)
    for model_id in dict.fromkeys(model_id for model_id in wanted if model_id):
        try:
            engine.prepare(model_id)
        except Exception:
            # Any model is better than none: try the next one, whatever is wrong with this.
            logger.exception("Cannot start with this model | model_id=%s", model_id)
        else:
            engine.commit(model_id)
            return
