"""What the monitor shows, gathered from the files and databases that the jobs write.

Every section stands alone: one that cannot be read says so and leaves the others as they are."""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, Generic, NamedTuple, TypeVar

from croniter import croniter

from recsys.alerting import AlertManager
from recsys.config import load_config
from recsys.data.simulated import Simulated, read_note
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceClient, ServiceError, read_address
from recsys.deployment.history import read_history
from recsys.errors import InputError
from recsys.experiments.definitions import Experiment
from recsys.experiments.state import Experiments
from recsys.health.reports import latest_report, report_is_overdue
from recsys.orchestration.monitor.customers import Requests, gather_requests
from recsys.orchestration.monitor.rules import Rules, gather_rules
from recsys.registry import CurrentBest, Entry, Registry
from recsys.schedule import JobSchedule, load_schedule
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunStatus, tracker_database

ALERTS: Final = 20
DEPLOYMENTS: Final = 5
PAGES: Final = 5
STATS_DAYS: Final = 7
DATABASE_SECONDS: Final = 5.0
SERVICE_SECONDS: Final = 2.0
"""The page does not wait longer for the service: that it hangs is the news."""

KINDS: Final = {
    "drift": "drift_report_*.html",
    "data_quality": "*.html",
    "outcomes": "outcomes_*.html",
    "experiments": "*.html",
}
"""Folder below ``reports/`` -> which of its files are pages. Their names sort by time, but for
those of experiments."""

logger = logging.getLogger(__name__)

Content = TypeVar("Content")


class Section(NamedTuple, Generic[Content]):
    """A part of the page: its content, or the sentence why there is none."""

    content: Content | None
    problem: str | None = None


class Health(NamedTuple):
    """The last full health report; `overdue` when the next one should have come."""

    status: str
    generated_at: datetime
    overdue: bool
    checks: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Any]
    broken_rules: tuple[str, ...]
    overdue_jobs: tuple[str, ...]


class ReportPage(NamedTuple):
    """A page: its kind, the name of its file, when it was written (UTC)."""

    kind: str
    path: Path
    written_at: datetime

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def title(self) -> str:
        return self.path.stem.removeprefix("drift_report_").removeprefix("outcomes_")


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
    """What is selected, and what the service says it serves (or why it says nothing)."""

    selection: CurrentBest | None
    entry: Entry | None
    serving: str | None
    serving_problem: str | None


class Outcomes(NamedTuple):
    """The last report of outcomes: its page, days with lists (ISO), totals, rates (each with
    ``value``, ``low``, ``high``), clicks per list of each day."""

    page: ReportPage
    days: tuple[str, ...]
    totals: Mapping[str, float]
    rates: Mapping[str, Mapping[str, float | None]]
    click_rates: tuple[float, ...]


class Overview(NamedTuple):
    """All sections of the page."""

    health: Section[Health]
    jobs: Section[list[JobRow]]
    models: Section[Models]
    deployments: Section[list[dict[str, Any]]]
    pages: Mapping[str, Section[list[ReportPage]]]
    drift_severity: Mapping[str, str | None]
    outcomes: Section[Outcomes]
    rules: Section[Rules]
    requests: Section[Requests]
    experiments: Section[list[Experiment]]
    alerts: Section[list[dict[str, Any]]]
    simulated: Section[Simulated]


def run_tracker(settings: Settings) -> PipelineTracker:
    """The tracker to read from: one for all requests, so that each thread opens one connection."""
    return PipelineTracker(tracker_database(settings), timeout=DATABASE_SECONDS)


def gather(
    settings: Settings, now: datetime, tracker: PipelineTracker, paused_jobs: Callable[[], set[str]]
) -> Overview:
    """Everything that the page shows at `now`; `paused_jobs` gives the DAGs paused in Airflow."""
    pages = {kind: _section(partial(list_pages, settings, kind)) for kind in KINDS}
    shown = (pages["drift"].content or [])[:PAGES]
    return Overview(
        health=_section(lambda: _health(settings, now)),
        jobs=_section(lambda: _jobs(settings, now, tracker, paused_jobs)),
        models=_section(lambda: _models(settings)),
        deployments=_section(lambda: read_history(settings)[: -DEPLOYMENTS - 1 : -1]),
        pages=pages,
        drift_severity={page.name: drift_severity(page) for page in shown},
        outcomes=_section(lambda: _outcomes(settings)),
        rules=rules_section(settings, now),
        requests=requests_section(settings, now),
        experiments=_section(lambda: Experiments(settings).running()),
        alerts=_section(lambda: AlertManager(settings).recent(ALERTS)),
        simulated=_section(lambda: read_note(settings)),
    )


def rules_section(settings: Settings, now: datetime) -> Section[Rules]:
    """The shop's rules; without content where there are none."""
    return _section(lambda: gather_rules(settings, now, SERVICE_SECONDS))


def requests_section(settings: Settings, now: datetime) -> Section[Requests]:
    """What customers asked for."""
    return _section(lambda: gather_requests(settings, now))


def _section(read: Callable[[], Content | None]) -> Section[Content]:
    try:
        return Section(read())
    except InputError as error:
        return Section(None, str(error))
    except Exception as error:
        logger.exception("A part of the monitor page cannot be shown")
        return Section(None, f"{type(error).__name__}: {error}")


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
    settings: Settings, now: datetime, tracker: PipelineTracker, paused_jobs: Callable[[], set[str]]
) -> list[JobRow]:
    schedule, paused = load_schedule(settings), paused_jobs()
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


def summary_of(run: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the tasks of a run returned, by task id; empty while there is nothing."""
    summary = (run or {}).get("metadata", {}).get("summary")
    return summary if isinstance(summary, dict) else {}


def _models(settings: Settings) -> Models:
    registry = Registry(settings)
    selection = registry.selection()
    entry = registry.get(selection.model_id) if selection else None
    config = load_config(settings, DeploymentConfig)
    try:
        serving = ServiceClient(read_address(), config, SERVICE_SECONDS).serving_model()
    except ServiceError as error:
        return Models(selection, entry, None, str(error))
    return Models(selection, entry, serving, None)


def list_pages(settings: Settings, kind: str) -> list[ReportPage]:
    """The pages of `kind`, newest first; none for an unknown kind or a missing folder."""
    paths = (settings.reports / kind).glob(KINDS[kind]) if kind in KINDS else ()
    pages = [
        ReportPage(kind, path, datetime.fromtimestamp(path.stat().st_mtime, UTC))
        for path in sorted(paths, reverse=True)
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    ]
    if kind == "experiments":
        pages.sort(key=lambda page: page.written_at, reverse=True)
    return pages


def find_page(settings: Settings, kind: str, name: str) -> ReportPage | None:
    """The page of that name if the folder lists it. The name is compared, never opened."""
    return next((page for page in list_pages(settings, kind) if page.name == name), None)


def drift_severity(page: ReportPage) -> str | None:
    """The overall severity in the JSON beside a drift page; None if that cannot be read."""
    try:
        report = json.loads(page.path.with_suffix(".json").read_text(encoding="utf-8"))
        return str(report["overall_severity"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _outcomes(settings: Settings) -> Outcomes | None:
    page = next(iter(list_pages(settings, "outcomes")), None)
    if page is None:
        return None
    path = page.path.with_suffix(".json")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        days = report["days"]
        return Outcomes(
            page=page,
            days=tuple(str(one["day"]) for one in days),
            totals={key: float(value) for key, value in report["totals"].items()},
            rates={key: dict(rate) for key, rate in report["rates"].items()},
            click_rates=tuple(float(one["click_rate"]["value"] or 0) for one in days),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is no report of outcomes: {error!r}") from error


def pages_of_run(settings: Settings, summary: Mapping[str, Any] | None) -> list[ReportPage]:
    """The pages that the results of a run's tasks name, each once."""
    results = (one for one in (summary or {}).values() if isinstance(one, Mapping))
    texts = (value for one in results for value in one.values() if isinstance(value, str))
    named = (parts for text in dict.fromkeys(texts) if len(parts := PurePosixPath(text).parts) == 3)
    found = (find_page(settings, kind, name) for top, kind, name in named if top == "reports")
    return [page for page in found if page is not None]
