"""Interactions on their way to the disk: acknowledged when they are there, in groups."""

import asyncio
import logging
from typing import Any

from recsys.data.staging import append_events
from recsys.settings import Settings
from serving.live import LiveEvents

logger = logging.getLogger(__name__)

Event = dict[str, Any]
"""``event_id, user_id, product_id, rating, timestamp`` (aware), ``comment``."""


class Inbox:
    """Stores events durably. One write to the disk serves all requests that wait for it."""

    def __init__(self, settings: Settings, live: LiveEvents) -> None:
        self._settings = settings
        self._live = live
        self._waiting: list[tuple[list[Event], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def store(self, events: list[Event]) -> None:
        """Returns when the events survive a power cut. Raises `OSError` if they may not."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, stored))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        await stored

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            events = [event for some, _ in group for event in some]
            failure: Exception | None = None
            try:
                await asyncio.to_thread(self._write, events)
            except Exception as error:
                # Whoever waits gets it: nothing of the group is acknowledged.
                logger.exception("Interactions could not be stored | events=%d", len(events))
                failure = error
            for _, stored in group:
                if stored.done():
                    continue
                if failure is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(failure)

    def _write(self, events: list[Event]) -> None:
        append_events(self._settings, events)
        self._live.add(
            (
                event["event_id"],
                event["user_id"],
                event["product_id"],
                event["rating"],
                int(event["timestamp"].timestamp()),
            )
            for event in events
        )
