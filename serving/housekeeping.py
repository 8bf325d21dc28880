"""What happens beside the requests: a newer catalogue, old events, the watch on the watcher."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from recsys.data.staging import hand_in_segments
from recsys.settings import Settings
from recsys.storage import open_store
from serving.service import Service

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 300.0
_HAND_IN_SECONDS = 60.0
_PRUNE_SECONDS = 3600.0


class Housekeeping:
    """A thread with a few recurring duties; a duty that fails is logged and tried again."""

    def __init__(self, service: Service) -> None:
        config = service.config
        duties: list[tuple[float, Callable[[], object]]] = [
            (config.catalogue_check_seconds, service.engine.follow_catalogue)
        ]
        if service.slot == 0:
            # One process watches for all.
            since = datetime.now(UTC)
            if open_store(service.settings).shared:
                duties.append((_HAND_IN_SECONDS, lambda: hand_in_segments(service.settings)))
            duties += [
                (_WATCH_SECONDS, lambda: watch_health_reports(service.settings, since)),
                (_PRUNE_SECONDS, service.live.prune),
            ]
        self._duties = duties
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        due = [time.monotonic() + every for every, _ in self._duties]
        while not self._stop.wait(max(0.0, min(due) - time.monotonic())):
            for number, (every, duty) in enumerate(self._duties):
                if due[number] > time.monotonic():
                    continue
                try:
                    duty()
                except Exception:
                    logger.exception("A recurring duty failed")
                due[number] = time.monotonic() + every


def watch_health_reports(settings: Settings, since: datetime) -> bool:
    """Alert when the hourly health check has stopped reporting: it cannot say so itself."""
    from recsys.health.watch import watch_reports

    return watch_reports(settings, datetime.now(UTC), since)
