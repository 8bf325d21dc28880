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
from recsys.health.verdict import Finding, verdict
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
    """A job whose success is missing.

    Attributes
    ----------
    since
        The moment it was scheduled for.
    due
        When it should have succeeded: that, plus its deadline.
    last_run
        The newest run since, None if there was none.
    told
        Somebody was told since: a run failed, or missed its deadline, loudly.
    """

    job: str
    since: datetime
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
        Finding(
            Severity.CRITICAL,
            f"{name}: {one['failed']} of {one['success'] + one['failed']} runs of the last"
            f" {config.window_days} days failed",
        )
        for name, one in stats["stats_by_pipeline"].items()
        if one["success_rate"] is not None and one["success_rate"] < config.min_success_rate
    ]
    problems += [
        Finding(Severity.CRITICAL, f"{job} does not run: {sentence}")
        for job, sentence in load_schedule(settings).problems.items()
    ]
    problems += [Finding(Severity.CRITICAL, one) for one in settings_problems(settings)]
    return verdict(problems, closed_runs=closed, **stats)


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
    first_seen = Memory(settings).first_seen(
        {job: timing.cron for job, timing in watched.items()}, now
    )
    tracker = PipelineTracker(tracker_database(settings))
    found = []
    for job, timing in watched.items():
        since = _last_expected(timing, schedule, now - timing.deadline - _GRACE)
        if since >= first_seen[job]:
            overdue = _missing(tracker, manager, job, since, since + timing.deadline)
            if overdue is not None:
                found.append(overdue)
    return found


def report_silence(settings: Settings, manager: AlertManager, now: datetime) -> dict[str, Any]:
    """Alert once for each silent job, resolve those that succeeded again.

    Returns job -> ``due``, ``last_success``, ``last_status``, ``alerted`` of the overdue ones.
    """
    overdue = {one.job: one for one in overdue_jobs(settings, manager, now)}
    for job in load_schedule(settings).jobs:
        one = overdue.get(job)
        if one is None:
            manager.resolve(
                f"{job}_silent",
                "succeeded again",
                text=manager.texts.say("silent_cleared", job=job),
            )
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


class Memory:
    """Jobs by name in ``logs/service/health_state.json``, which may get lost: they then count as
    new."""

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
    last_run = runs[0] if runs else None
    return Overdue(
        job=job,
        since=since,
        due=due,
        last_success=datetime.fromisoformat(successes[0]["finished_at"]) if successes else None,
        last_run=last_run,
        told=manager.was_told_of_runs(job, since),
    )


def _alert(one: Overdue, manager: AlertManager) -> Alert:
    due = manager.local_time(one.due)
    last = manager.local_time(one.last_success) if one.last_success else None
    return Alert(
        f"{one.job}_silent",
        f"no success since it was due at {due}",
        Severity.CRITICAL,
        text=manager.texts.say("silent_text", job=one.job, due=due),
        headline=manager.texts.say("silent", job=one.job),
        facts=facts_of(
            {
                "job": one.job,
                "due": due,
                "last_success": last or manager.texts.say("never"),
                "state": one.last_run["status"] if one.last_run else None,
                "error": one.last_run["error_message"] if one.last_run else None,
            }
        ),
        until_resolved=True,
    )
