"""Do the jobs succeed, and does any stay silent?

A failed run is told by Airflow's callbacks. What they cannot tell is a run that never came,
because the scheduler is dead or the DAG does not load, and a failure whose callback died with
its process. Both look the same from here: the job is overdue, and nothing was said about it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from croniter import croniter

from recsys.alerting import Alert, AlertManager, Severity
from recsys.alerting.message import facts_of
from recsys.config import ConfigError, ConfigModel, load_config
from recsys.health.config import HealthConfig
from recsys.health.verdict import critical, verdict
from recsys.publishing import write_json
from recsys.schedule import JobSchedule, Schedule, load_schedule
from recsys.settings import Settings, load_settings
from recsys.tracking import PipelineTracker, RunStatus, tracker_database

WATCHER: Final = "health_check"
"""The job that runs this check; the service watches over it (see `recsys.health.reports`)."""

_GRACE: Final = timedelta(minutes=15)
"""After its deadline: the record of a run is compared with Airflow's own once an hour only."""

_RUNS_TO_READ: Final = 200


@dataclass(frozen=True)
class Overdue:
    """A job whose success is missing since it was `due`: the moment it was scheduled for, plus its
    deadline. `last_run` is the newest since that moment. `told`: somebody was told since, of a run
    that failed or missed its deadline, loudly."""

    job: str
    due: datetime
    last_success: datetime | None
    last_run: dict[str, Any] | None
    told: bool


def check_pipeline_health(settings: Settings | None = None) -> dict[str, Any]:
    """Unhealthy if the success rate of any pipeline in the window is below one half.

    So does an entry of ``scheduler_config.json``, or any setting of a job, that cannot be used.

    Runs that were abandoned (see ``pipeline.max_running_hours``) are closed first, so that a
    pipeline is not taken for running for ever.

    Returns ``healthy``, ``closed_runs``, ``period_days``, ``stats_by_pipeline`` (as
    `PipelineTracker.get_stats`); when unhealthy ``error`` and ``severity``.
    """
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
    return verdict([critical(text) for text in problems], closed_runs=closed, **stats)


def settings_problems(settings: Settings, *more: type[ConfigModel]) -> list[str]:
    """A sentence for each file of settings that cannot be used; `more` are of upper floors."""
    from recsys.comments.scoring import CommentConfig
    from recsys.content import ContentConfig
    from recsys.data.config import DataConfig
    from recsys.deployment import DeploymentConfig
    from recsys.drift.config import DriftConfig, HolidayCalendar
    from recsys.spark.session import SparkConfig
    from recsys.storage import StorageConfig
    from recsys.training.config import TrainingConfig

    models: tuple[type[ConfigModel], ...] = (
        *(DataConfig, CommentConfig, ContentConfig, StorageConfig, TrainingConfig, SparkConfig),
        *(DeploymentConfig, DriftConfig, HolidayCalendar, HealthConfig),
        *more,
    )
    problems = []
    for model in models:
        try:
            load_config(settings, model)
        except ConfigError as error:
            problems.append(str(error))
    return problems


def overdue_jobs(settings: Settings, manager: AlertManager, now: datetime) -> list[Overdue]:
    """The enabled jobs that have not succeeded since they were last due before `now`.

    A job counts from the moment it was first seen enabled with its present schedule, so a new
    installation owes nothing for the time before it existed.
    """
    schedule = load_schedule(settings)
    watched = {
        job: timing for job, timing in schedule.jobs.items() if timing.enabled and job != WATCHER
    }
    first_seen = _first_seen(settings, {job: one.cron for job, one in watched.items()}, now)
    tracker = PipelineTracker(tracker_database(settings))
    found = []
    for job, timing in watched.items():
        since = _last_expected(timing, schedule, now - timing.deadline - _GRACE)
        if since >= first_seen[job]:
            found.append(_missing(tracker, manager, job, since, since + timing.deadline))
    return [overdue for overdue in found if overdue is not None]


def report_silence(settings: Settings, manager: AlertManager, now: datetime) -> dict[str, Any]:
    """Alert once for each silent job, resolve those that succeeded again.

    Returns job -> ``due``, ``last_success``, ``last_status``, ``alerted`` of the overdue ones.
    """
    overdue = {one.job: one for one in overdue_jobs(settings, manager, now)}
    for job in load_schedule(settings).jobs:
        one = overdue.get(job)
        if one is None:
            text = manager.texts.say("silent_cleared", job=job)
            manager.resolve(f"{job}_silent", "succeeded again", text=text)
        elif not one.told:
            manager.deliver(_alert(one, manager))
    return {
        job: {
            "due": one.due.isoformat(),
            "last_success": one.last_success.isoformat() if one.last_success else None,
            "last_status": one.last_run["status"] if one.last_run else None,
            "alerted": not one.told,
        }
        for job, one in overdue.items()
    }


def _first_seen(settings: Settings, jobs: Mapping[str, str], now: datetime) -> dict[str, datetime]:
    """When each job was first seen with its present cron expression: now, for new ones.

    A job that is not among `jobs` (switched off) is forgotten. So are all when the file gets lost.
    """
    path = settings.logs / "service" / "health_state.json"
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8"))["jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    current: dict[str, dict[str, str]] = {}
    for job, cron in jobs.items():
        entry = known.get(job)
        if not isinstance(entry, dict) or entry.get("cron") != cron:
            entry = {"cron": cron, "first_seen": now.isoformat()}
        current[job] = entry
    if current != known:
        write_json(path, {"jobs": current})
    return {job: datetime.fromisoformat(entry["first_seen"]) for job, entry in current.items()}


def _last_expected(timing: JobSchedule, schedule: Schedule, limit: datetime) -> datetime:
    """The last moment up to `limit` that the job was scheduled for."""
    local = limit.astimezone(schedule.zone) + timedelta(microseconds=1)
    moment: datetime = croniter(timing.cron, local).get_prev(datetime)
    return moment.astimezone(UTC)


def _missing(
    tracker: PipelineTracker, manager: AlertManager, job: str, since: datetime, due: datetime
) -> Overdue | None:
    runs = [
        run
        for run in tracker.get_recent_runs(job, limit=_RUNS_TO_READ)
        if datetime.fromisoformat(run["started_at"]) >= since
    ]
    if any(run["status"] == RunStatus.SUCCESS for run in runs):
        return None
    successes = tracker.get_recent_runs(job, limit=1, status=RunStatus.SUCCESS)
    last_success = datetime.fromisoformat(successes[0]["finished_at"]) if successes else None
    told = manager.was_told_of_runs(job, since)
    return Overdue(job, due, last_success, runs[0] if runs else None, told)


def _alert(one: Overdue, manager: AlertManager) -> Alert:
    due = manager.local_time(one.due)
    last = manager.local_time(one.last_success) if one.last_success else manager.texts.say("never")
    run = one.last_run or {}
    facts: dict[str, Any] = {"job": one.job, "due": due, "last_success": last}
    facts |= {"state": run.get("status"), "error": run.get("error_message")}
    return Alert(
        f"{one.job}_silent",
        f"no success since it was due at {due}",
        Severity.CRITICAL,
        text=manager.texts.say("silent_text", job=one.job, due=due),
        headline=manager.texts.say("silent", job=one.job),
        facts=facts_of(facts),
        until_resolved=True,
    )
