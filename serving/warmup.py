"""Recent requests, asked again of a new model before it counts as ready."""

import logging
import sqlite3
import time
from pathlib import Path

import numpy as np

from recsys.database import connect
from recsys.models.storage import ArtifactError
from serving.ranking import Wanted
from serving.recommending import history_of, recommend
from serving.snapshot import Snapshot

logger = logging.getLogger(__name__)

_TOPK = 10
_TIMEOUT_SECONDS = 2.0
_NOTHING = np.zeros(0, dtype=np.int32)


def recent_users(database: Path, count: int) -> list[str]:
    """The users of the newest `count` requests; none if the log cannot be read."""
    if not database.exists():
        return []
    try:
        connection = connect(database, timeout=_TIMEOUT_SECONDS)
        try:
            rows = connection.execute(
                "SELECT user_id FROM requests WHERE user_id IS NOT NULL ORDER BY id DESC LIMIT ?",
                (count,),
            ).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        logger.warning("Recent requests cannot be read | error=%s", str(error))
        return []
    return [str(row["user_id"]) for row in rows]


def replay(snapshot: Snapshot, users: list[str], seconds: float) -> int:
    """Ask `snapshot` for all `users`, for so many seconds at most; how many were asked for.

    Pages of mapped arrays and caches are warm afterwards. Raises `ArtifactError` if an answer
    is empty.
    """
    wanted = Wanted(_TOPK, False, snapshot.catalogue.available, _NOTHING)
    until, now = time.monotonic() + seconds, int(time.time())
    for number, user_id in enumerate(users):
        if time.monotonic() > until:
            return number
        history = history_of(snapshot, user_id, (), [], now)
        if not recommend(snapshot, history, wanted, now).ranked.items:
            raise ArtifactError(
                f"{snapshot.model_id}: a recent request, asked again, is answered with nothing"
            )
    return len(users)
