"""State roots as the jobs leave them, and what the exporter says of them."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from recsys.alerting import AlertManager
from recsys.data.sample import write_sample_shop
from recsys.exporter.state import StateFigures
from recsys.health import examine
from recsys.publishing import write_json
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval, load_schedule
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from tests.ports import find_free_port
from tests.serving.shops import add_model

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


def lived_in_shop(home: Path) -> Settings:
    """A shop in which every job has run; no service listens."""
    settings, end = Settings(home), datetime.now(UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSYS_HOME", str(home))
        patch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{find_free_port()}")
        write_sample_shop(settings, reviews=600, until=end.date())
        run_refresh(settings, DataInterval(end - timedelta(days=1), end))
        made = {"created_at": (end - timedelta(days=2)).isoformat()}
        add_model(settings, "als_1", metrics={"ndcg_at_10": 0.06}, manifest=made)
        AlertManager(settings).send_alert("stock_low", "3 left", channels=["log"])
        all_jobs_seen(settings, end - timedelta(days=30))
        found = {"silence": 0.2, "lost_share": 0.0, "proven_falls": {"click": 0.03}}
        for hours, status in ((2, RunStatus.FAILED), (1, RunStatus.SUCCESS)):
            began = end - timedelta(hours=hours)
            record_run(settings, "outcomes", status, began, summary={"alert": found})
        about = {"generated_at": end.isoformat()}
        drift = about | {"overall_severity": "medium"}
        write_report(settings.reports / "drift", "drift_report_20260309.json", drift)
        totals = {"lists": 900, "clicks": 80, "carts": 9, "purchases": 5, "value": 2e6, "bought": 5}
        outcomes = about | {"totals": totals}
        write_report(settings.reports / "outcomes", "outcomes_20260309.json", outcomes)
        examine(settings)
    return settings
