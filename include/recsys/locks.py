"""The lock between a job's runs in Airflow and scripts of the shop that do the same work."""

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final, Self

import portalocker
from portalocker import LockFlags

from recsys.errors import InputError
from recsys.settings import Settings, load_settings
from recsys.tracking import PipelineTracker, RunStatus, tracker_database

STALE_AFTER: Final = timedelta(hours=24)
POLL_SECONDS: Final = 0.5
_NAME: Final = re.compile(r"\w[\w.-]{0,99}")

logger = logging.getLogger(__name__)


class PipelineLock:
    """Keeps others of this machine out of a pipeline, in ``logs/locks/<name>.lock``.

    It does not wait: `acquired` says whether this process has the lock. One process has it at a
    time; it is free as soon as its holder ends, however it ends, and after 24 hours others may take
    it all the same. Named like a job, it is not acquired while Airflow runs the job, and the job's
    tasks wait until it is released: do not start the job from inside.

    >>> with PipelineLock("data_refresh") as lock:
    ...     if lock.acquired:
    ...         print("nobody else refreshes now")
    nobody else refreshes now
    """

    def __init__(self, name: str, settings: Settings | None = None) -> None:
        self._name = name
        self._settings = settings or load_settings()
        self._path = _path(self._settings, name)
        self._file: IO[bytes] | None = None

    @property
    def acquired(self) -> bool:
        return self._file is not None

    def __enter__(self) -> Self:
        self._file = _lock(self._path, LockFlags.EXCLUSIVE)
        if self._file is not None and _airflow_runs(self._settings, self._name):
            self.__exit__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def shared_with_tasks(settings: Settings, job: str) -> Iterator[None]:
    """Keep scripts out of `job` for the block, together with its other tasks. Waits while a script
    has the lock. Where there can be no lock, as on a full disk, the run matters more."""
    path = _path(settings, job)
    try:
        if (file := _lock(path, LockFlags.SHARED)) is None:
            logger.warning("Waiting for the script that holds %s", path)
        while file is None:
            time.sleep(POLL_SECONDS)
            file = _lock(path, LockFlags.SHARED)
    except (OSError, portalocker.LockException):
        logger.exception("%s: no lock can be had, scripts are not kept out", path)
        file = None
    with file or contextlib.nullcontext():
        yield


def _path(settings: Settings, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r}: expected a pipeline's name of letters, digits, '_', '-', '.'")
    return settings.logs / "locks" / f"{name}.lock"


def _lock(path: Path, kind: LockFlags) -> IO[bytes] | None:
    """The file, locked until it is closed; None while somebody else has it. Its time is that of the
    last lock; one process at a time, under the guard, gives up stale ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".guard").open("ab") as guard:
        portalocker.lock(guard, LockFlags.EXCLUSIVE)
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > STALE_AFTER.total_seconds():
                path.unlink()
        file = path.open("ab")
        try:
            portalocker.lock(file, kind | LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked:
            file.close()
            return None
        os.utime(path)
        return file


def _airflow_runs(settings: Settings, job: str) -> bool:
    """Whether a run of the job is recorded as running; an old one was lost."""
    database = tracker_database(settings)
    if not database.exists():
        return False
    running = PipelineTracker(database).get_recent_runs(job, limit=1000, status=RunStatus.RUNNING)
    since = datetime.now(UTC) - STALE_AFTER
    return any(
        "airflow_run_id" in run["metadata"] and datetime.fromisoformat(run["started_at"]) > since
        for run in running
    )
