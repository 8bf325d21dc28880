"""State roots as the jobs leave them, and what the exporter says of them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from recsys.exporter.state import StateFigures
from recsys.publishing import write_json
from recsys.schedule import load_schedule
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus

Figures = dict[tuple[str, ...], float]


def parsed(text: str) -> Figures:
    """Name and values of the labels, in the order of their names -> value."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figures_of(settings: Settings, now: datetime | None = None) -> Figures:
    """What the exporter shows at a moment."""
    clock: Callable[[], datetime] = lambda: now or datetime.now(UTC)  # noqa: E731
    registry = CollectorRegistry()
    registry.register(StateFigures(settings, clock))
    return parsed(generate_latest(registry).decode())


def record_run(
    settings: Settings,
    job: str,
    status: RunStatus,
    started: datetime,
    minutes: float = 1,
    summary: dict[str, Any] | None = None,
) -> None:
    """A run as the listener mirrors it."""
    running = status is RunStatus.RUNNING
    PipelineTracker(settings.pipeline_db).record_run(
        RunRecord(
            run_id=f"{job}__{started.isoformat()}",
            pipeline_name=job,
            status=status,
            started_at=started,
            finished_at=None if running else started + timedelta(minutes=minutes),
            error_message="broken" if status is RunStatus.FAILED else None,
            metadata={"airflow_run_id": started.isoformat(), "summary": summary},
        )
    )


def all_jobs_seen(settings: Settings, since: datetime) -> None:
    """What the hourly health check notes of the schedule."""
    jobs = {
        name: {"cron": job.cron, "first_seen": since.isoformat()}
        for name, job in load_schedule(settings).jobs.items()
    }
    write_json(settings.logs / "service" / "health_state.json", {"jobs": jobs})


def write_report(folder: Path, name: str, content: dict[str, Any]) -> None:
    """A report of a job as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
