"""What the health check remembers between runs: ``logs/service/health_state.json``."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from recsys.publishing import write_json
from recsys.settings import Settings


class Memory:
    """A small file that may get lost: jobs then count as new."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.logs / "service" / "health_state.json"

    def first_seen(self, jobs: Mapping[str, str], now: datetime) -> dict[str, datetime]:
        """When each job was first seen with its present cron expression: now, for new ones.

        A job that is not among `jobs` (switched off) is forgotten.
        """
        known = self._read()
        current: dict[str, dict[str, str]] = {}
        for job, cron in jobs.items():
            entry = known.get(job)
            if not isinstance(entry, dict) or entry.get("cron") != cron:
                entry = {"cron": cron, "first_seen": now.isoformat()}
            current[job] = entry
        if current != known:
            write_json(self._path, {"jobs": current})
        return {job: datetime.fromisoformat(entry["first_seen"]) for job, entry in current.items()}

    def _read(self) -> dict[str, Any]:
        try:
            jobs = json.loads(self._path.read_text(encoding="utf-8"))["jobs"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return jobs if isinstance(jobs, dict) else {}
