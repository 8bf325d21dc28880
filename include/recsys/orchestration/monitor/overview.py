"""How things stand now, gathered from the files and databases that the jobs write."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from croniter import croniter

from recsys.config import load_config
from recsys.data.simulated import Simulated, read_note
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient, ServiceError, read_address
from recsys.deployment.history import read_history
from recsys.errors import InputError
from recsys.health.reports import latest_report, report_is_overdue
from recsys.orchestration.monitor.customers import Requests, gather_requests
from recsys.orchestration.monitor.reports import ReportPage, pages_of_run
from recsys.orchestration.monitor.rules import Rules, gather_rules
from recsys.orchestration.monitor.scheduler import Scheduler
from recsys.orchestration.monitor.sections import Section, section
from recsys.registry import CurrentBest, Entry, Registry
from recsys.schedule import JobSchedule, load_schedule
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunStatus, tracker_database

DEPLOYMENTS: Final = 5
STATS_DAYS: Final = 7
DATABASE_SECONDS: Final = 5.0
SERVICE_SECONDS: Final = 2.0
"""The page does not wait longer for the service: that it hangs is the news."""


class Health(NamedTuple):
    """The last full health report; `overdue` when the next one should have come."""

    status: str
    generated_at: datetime
    overdue: bool
    checks: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Any]
    broken_rules: tuple[str, ...]
    overdue_jobs: tuple[str, ...]


class JobRow(NamedTuple):
    """A job: its last run (a row of the tracker), its statistics, when it runs next (UTC; None if
    it is switched off or paused). Where its entry in the schedule cannot be used, `timing` is None
    and `problem` a sentence."""

    name: str
    timing: JobSchedule | None
    problem: str | None
    last_run: Mapping[str, Any] | None
    pages: tuple[ReportPage, ...]
    stats: Mapping[str, Any] | None
    paused: bool
    next_run: datetime | None

    @property
    def failed(self) -> bool:
        return self.last_run is not None and self.last_run["status"] == RunStatus.FAILED


class Models(NamedTuple):
    """What is selected, what the service says it serves (or why it says nothing), and the status of
    every model by its id."""

    selection: CurrentBest | None
    entry: Entry | None
    serving: str | None
    serving_problem: str | None
    statuses: Mapping[str, str]


class Overview(NamedTuple):
    """How everything stands; `now` is when that was looked up."""

    now: datetime
    scheduler: Section[Scheduler]
    health: Section[Health]
    jobs: Section[list[JobRow]]
    models: Section[Models]
    deployments: Section[list[dict[str, Any]]]
    rules: Section[Rules]
    requests: Section[Requests]
    simulated: Section[Simulated]


def run_tracker(settings: Settings) -> PipelineTracker:
    """The tracker to read from: one for all requests, so that each thread opens one connection."""
    return PipelineTracker(tracker_database(settings), timeout=DATABASE_SECONDS)


def gather(
    settings: Settings, now: datetime, tracker: PipelineTracker, ask: Callable[[], Scheduler]
) -> Overview:
    """How things stand at `now`; `ask` asks Airflow."""
    with ThreadPoolExecutor(2) as beside:  # both wait for the service, while files are read
        models = beside.submit(section, lambda: _models(settings))
        rules = beside.submit(rules_section, settings, now)
        scheduler = section(ask)
        paused = scheduler.content.paused if scheduler.content else set[str]()
        return Overview(
            now=now,
            scheduler=scheduler,
            health=section(lambda: _health(settings, now)),
            jobs=section(lambda: _jobs(settings, now, tracker, paused)),
            deployments=section(lambda: read_history(settings)[: -DEPLOYMENTS - 1 : -1]),
            requests=requests_section(settings, now),
            simulated=section(lambda: read_note(settings)),
            models=models.result(),
            rules=rules.result(),
        )


def rules_section(settings: Settings, now: datetime) -> Section[Rules]:
    """The shop's rules; without content where there are none."""
    return section(lambda: gather_rules(settings, now, SERVICE_SECONDS))


def requests_section(settings: Settings, now: datetime) -> Section[Requests]:
    """What customers asked for."""
    return section(lambda: gather_requests(settings, now))


def summary_of(run: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the tasks of a run returned, by task id; empty while there is nothing."""
    summary = (run or {}).get("metadata", {}).get("summary")
    return summary if isinstance(summary, dict) else {}


def _health(settings: Settings, now: datetime) -> Health | None:
    path = latest_report(settings)
    if path is None:
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return Health(
            status=str(report["status"]),
            generated_at=datetime.fromisoformat(report["generated_at"]).astimezone(UTC),
            overdue=report_is_overdue(settings, now),
            checks={name: dict(check) for name, check in report["checks"].items()},
            metrics=dict(report.get("metrics") or {}),
            broken_rules=tuple(alert["alert_name"] for alert in report.get("alerts") or ()),
            overdue_jobs=tuple(report.get("overdue_jobs") or ()),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is not a health report: {error!r}") from error


def _jobs(
    settings: Settings, now: datetime, tracker: PipelineTracker, paused: set[str]
) -> list[JobRow]:
    schedule = load_schedule(settings)
    known = tracker.db_path.exists()
    stats = tracker.get_stats(STATS_DAYS)["stats_by_pipeline"] if known else {}

    def row(name: str) -> JobRow:
        timing, next_run = schedule.jobs.get(name), None
        last_run = next(iter(tracker.get_recent_runs(name, limit=1)), None) if known else None
        if timing is not None and timing.enabled and name not in paused:
            local = croniter(timing.cron, now.astimezone(schedule.zone)).get_next(datetime)
            next_run = local.astimezone(UTC)
        return JobRow(
            name=name,
            timing=timing,
            problem=schedule.problems.get(name),
            last_run=last_run,
            pages=tuple(pages_of_run(settings, summary_of(last_run))),
            stats=stats.get(name),
            paused=name in paused,
            next_run=next_run,
        )

    return [row(name) for name in schedule.names]


def _models(settings: Settings) -> Models:
    registry = Registry(settings)
    selection = registry.selection()
    entry = registry.get(selection.model_id) if selection else None
    statuses = {one.model_id: one.status for one in registry.list()}
    config = load_config(settings, DeploymentConfig)
    try:
        serving = ServiceClient(read_address(), config, SERVICE_SECONDS).serving_model()
    except ServiceError as error:
        return Models(selection, entry, None, str(error), statuses)
    return Models(selection, entry, serving, None, statuses)
