"""Do the jobs succeed, and does any stay silent?

Airflow's callbacks tell of a failed run, but not of one that never came (a dead scheduler, a DAG
that does not load), nor of a failure whose callback died with its process."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from croniter import croniter

from recsys.alerting import Alert, AlertManager, Severity
from recsys.alerting.message import facts_of
from recsys.config import ConfigError, ConfigModel, load_config
from recsys.errors import InputError
from recsys.health.config import HealthConfig
from recsys.health.verdict import Finding, verdict
from recsys.privacy import overdue, read_requests
from recsys.publishing import write_json
from recsys.schedule import JobSchedule, Schedule, load_schedule
from recsys.settings import Settings, load_settings
from recsys.tracking import PipelineTracker, RunStatus, tracker_database

WATCHER: Final = "health_check"
"""The job that runs this check; the service watches over it (see `recsys.health.reports`)."""

_GRACE: Final = timedelta(minutes=15)
"""After its deadline: the record of a run is compared with Airflow's own once an hour only."""

_RUNS_TO_READ: Final = 200
_SHOWN_REQUESTS: Final = 5

Missing = tuple[Mapping[str, Any], datetime | None]


def check_pipeline_health(settings: Settings | None = None) -> dict[str, Any]:
    """Unhealthy if the success rate of any pipeline in the window is too low, an entry of
    ``scheduler_config.json`` or any setting of a job cannot be used, or what customers asked for is
    overdue, or cannot be read. Runs that were abandoned (see
    ``pipeline.max_running_hours``) are closed first.

    Returns ``healthy``, ``closed_runs``, ``period_days``, ``stats_by_pipeline`` (as
    `PipelineTracker.get_stats`); when unhealthy ``error`` and ``severity``."""
    settings = settings or load_settings()
    config = load_config(settings, HealthConfig).pipeline
    tracker = PipelineTracker(tracker_database(settings))
    closed = tracker.cleanup_stale_runs(config.max_running_hours)
    stats = tracker.get_stats(config.window_days)
    problems = [
        f"{name}: {one['failed']} of {one['success'] + one['failed']} runs of the last"
        f" {config.window_days} days failed"
        for name, one in stats["stats_by_pipeline"].items()
        if one["success_rate"] is not None and one["success_rate"] < config.min_success_rate
    ]
    unusable = load_schedule(settings).problems
    problems += [f"{job} does not run: {sentence}" for job, sentence in unusable.items()]
    problems += settings_problems(settings)
    problems += _problems_of_requests(settings, datetime.now(UTC))
    return verdict([Finding(one) for one in problems], closed_runs=closed, **stats)


def _problems_of_requests(settings: Settings, now: datetime) -> list[str]:
    """What is wrong with the register of customers' requests, and what should be done by now."""
    try:
        requests, problem = read_requests(settings)
    except (InputError, OSError) as error:
        return [str(error)]
    problems = [] if problem is None else [problem]
    if late := overdue(requests, now):
        since = f"{min(one.due_at for one in late):%Y-%m-%d %H:%M} UTC"
        numbers = ", ".join(str(one.number) for one in late[:_SHOWN_REQUESTS])
        rest = len(late) - _SHOWN_REQUESTS
        if rest > 0:
            numbers = f"{numbers} and {rest} more"
        problems.append(
            f"customers' requests are overdue, the oldest since {since}: {numbers}; "
            "`recsys customer requests` shows them"
        )
    return problems


def settings_problems(settings: Settings, *more: type[ConfigModel]) -> list[str]:
    """A sentence for each file of settings that cannot be used; `more` are of upper floors."""
    from recsys.comments.scoring import CommentConfig
    from recsys.content import ContentConfig
    from recsys.data.config import DataConfig
    from recsys.deployment import DeploymentConfig
    from recsys.drift.config import DriftConfig, HolidayCalendar
    from recsys.outcomes.config import OutcomesConfig
    from recsys.spark.session import SparkConfig
    from recsys.storage import StorageConfig
    from recsys.training.config import TrainingConfig

    models: tuple[type[ConfigModel], ...] = (
        *(DataConfig, CommentConfig, ContentConfig, StorageConfig, TrainingConfig, SparkConfig),
        *(DeploymentConfig, DriftConfig, HolidayCalendar, OutcomesConfig, HealthConfig),
        *more,
    )
    problems = []
    for model in models:
        try:
            load_config(settings, model)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def report_silence(settings: Settings, manager: AlertManager, now: datetime) -> dict[str, Any]:
    """Alert once for each enabled job that has not succeeded since it was last due before `now`,
    resolve those that succeeded again. A job counts from the moment it was first seen enabled with
    its present schedule: a new installation owes nothing. Nobody is alerted who was told since: a
    run failed, or missed its deadline, loudly.

    Returns job -> ``due``, ``last_success``, ``last_status``, ``alerted`` of the overdue ones."""
    schedule = load_schedule(settings)
    watched = {
        job: timing for job, timing in schedule.jobs.items() if timing.enabled and job != WATCHER
    }
    first_seen = _first_seen(settings, watched, now)
    tracker = PipelineTracker(tracker_database(settings))
    overdue: dict[str, Any] = {}
    for job in schedule.jobs:
        since = _last_expected(watched[job], schedule, now) if job in watched else None
        if since and since >= first_seen[job] and (missing := _missing(tracker, job, since)):
            told, due = manager.was_told_of_runs(job, since), since + watched[job].deadline
            overdue[job] = _tell(manager, job, due, missing, told=told)
        else:
            name, message = f"{job}_silent", "succeeded again"
            manager.resolve(name, message, text="silent_cleared", blanks={"job": job})
    return overdue


def owed_since(settings: Settings, schedule: Schedule, now: datetime) -> dict[str, datetime]:
    """The moment that each enabled job was last due before `now`, with its deadline and a grace: it
    should have succeeded since. As in `report_silence`, which has to have seen the job before."""
    path = settings.logs / "service" / "health_state.json"
    known = _known_jobs(path)
    owed = {}
    for job, timing in schedule.jobs.items():
        entry = known.get(job)
        if timing.enabled and isinstance(entry, dict) and entry.get("cron") == timing.cron:
            since = _last_expected(timing, schedule, now)
            if since >= datetime.fromisoformat(entry["first_seen"]):
                owed[job] = since
    return owed


def _known_jobs(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _missing(tracker: PipelineTracker, job: str, since: datetime) -> Missing | None:
    """The last run since then ({} without any) and the last success, None if a run succeeded."""
    runs = [
        run
        for run in tracker.get_recent_runs(job, limit=_RUNS_TO_READ)
        if datetime.fromisoformat(run["started_at"]) >= since
    ]
    if any(run["status"] == RunStatus.SUCCESS for run in runs):
        return None
    successes = tracker.get_recent_runs(job, limit=1, status=RunStatus.SUCCESS)
    last = datetime.fromisoformat(successes[0]["finished_at"]) if successes else None
    return runs[0] if runs else {}, last


def _first_seen(
    settings: Settings, jobs: Mapping[str, JobSchedule], now: datetime
) -> dict[str, datetime]:
    """When each job was first seen with its present cron expression: now, for new ones. Kept in
    ``logs/service/health_state.json``, which may get lost: all jobs then count as new. A job that
    is not among `jobs` (switched off) is forgotten."""
    path = settings.logs / "service" / "health_state.json"
    known = _known_jobs(path)
    current: dict[str, dict[str, str]] = {}
    for job, timing in jobs.items():
        entry = known.get(job)
        if not isinstance(entry, dict) or entry.get("cron") != timing.cron:
            entry = {"cron": timing.cron, "first_seen": now.isoformat()}
        current[job] = entry
    if current != known:
        write_json(path, {"jobs": current})
    return {job: datetime.fromisoformat(entry["first_seen"]) for job, entry in current.items()}


def _last_expected(timing: JobSchedule, schedule: Schedule, now: datetime) -> datetime:
    """The last moment that the job was scheduled for and should have succeeded since."""
    local = (now - timing.deadline - _GRACE).astimezone(schedule.zone) + timedelta(microseconds=1)
    moment: datetime = croniter(timing.cron, local).get_prev(datetime)
    return moment.astimezone(UTC)


def _tell(
    manager: AlertManager, job: str, due: datetime, missing: Missing, *, told: bool
) -> dict[str, Any]:
    """Alert for a silent job, unless somebody was told; what the report says of it."""
    last_run, last = missing
    if not told:
        shown = manager.local_time(due)
        facts = {
            "job": job,
            "due": shown,
            "last_success": manager.local_time(last) if last else manager.texts.say("never"),
            "state": last_run.get("status"),
            "error": last_run.get("error_message"),
        }
        alert = Alert(
            f"{job}_silent",
            f"no success since it was due at {shown}",
            Severity.CRITICAL,
            text="silent_text",
            headline="silent",
            facts=facts_of(facts),
            until_resolved=True,
        )
        manager.deliver(alert)
    return {
        "due": due.isoformat(),
        "last_success": last.isoformat() if last else None,
        "last_status": last_run.get("status"),
        "alerted": not told,
    }
