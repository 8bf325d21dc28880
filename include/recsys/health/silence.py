"""Jobs that should have succeeded by now and have not, without anybody having been told.

A failed run is told by Airflow's callbacks. What they cannot tell is a run that never came,
because the scheduler is dead or the DAG does not load, and a failure whose callback died with
its process. Both look the same from here: the job is overdue, and nothing was said about it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from croniter import croniter

from recsys.alerting import AlertManager, Severity
from recsys.alerting.message import Alert, facts_of
from recsys.config import load_config
from recsys.health.config import HealthConfig
from recsys.health.memory import Memory
from recsys.schedule import JobSchedule, Schedule, load_schedule
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunStatus

WATCHER: Final = "health_check"
"""The job that runs this check; the service watches over it (see `recsys.health.watch`)."""

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


def overdue_jobs(settings: Settings, manager: AlertManager, now: datetime) -> list[Overdue]:
    """The enabled jobs that have not succeeded since they were last due before `now`.

    A job counts from the moment it was first seen enabled with its present schedule, so a new
    installation owes nothing for the time before it existed.
    """
    schedule = load_schedule(settings)
    grace = timedelta(minutes=load_config(settings, HealthConfig).pipeline.silence_grace_minutes)
    watched = {
        job: timing for job, timing in schedule.jobs.items() if timing.enabled and job != WATCHER
    }
    first_seen = Memory(settings).first_seen(
        {job: timing.cron for job, timing in watched.items()}, now
    )
    tracker = PipelineTracker(settings.pipeline_db)
    found = []
    for job, timing in watched.items():
        since = _last_expected(timing, schedule, now - timing.deadline - grace)
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
