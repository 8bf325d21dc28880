"""The jobs and their timetable, from ``config/scheduler_config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterError, croniter
from pydantic import AfterValidator, Field, field_validator

from recsys.config import ConfigError, ConfigModel, merged, read_document
from recsys.logs import LogFormat
from recsys.settings import Settings


def _exists(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a time zone such as 'Asia/Ho_Chi_Minh'") from None
    return name


TimeZone = Annotated[str, AfterValidator(_exists)]
"""The name of a time zone that this machine knows."""


FOLLOWS: Final = "asset_triggered"
"""Airflow's word for a run that was started because something was new."""

RAW_DROP: Final = "raw_drop"
MADE_BY: Final[Mapping[str, str | None]] = {
    RAW_DROP: None,
    "data_version": "data_refresh",
    "embeddings": "bert_embeddings",
    "selected_model": "model_training",
    "served_model": "model_deployment",
    "outcomes": "outcomes",
}
"""What jobs may follow -> the job that makes it, None for what the shop drops."""

_STARTED_ANYWAY: Final = {("bert_embeddings", "data_version"): "data_refresh"}
"""Job, and what it may not follow -> who starts it then, and only if there is something to do."""


class JobSchedule(ConfigModel):
    """When a job runs and how long it may take: the timeout counts from the start of a run, the
    deadline (two thirds of the timeout by default) from the moment it was queued. It also runs
    after any of `after` (names of `MADE_BY`) is new. With `queue`, only Celery workers listening to
    it run its tasks."""

    enabled: bool = True
    cron: str
    after: tuple[str, ...] = ()
    timeout_minutes: float = Field(gt=0)
    deadline_minutes: float | None = Field(default=None, gt=0)
    queue: str | None = Field(default=None, min_length=1)

    @field_validator("after")
    @classmethod
    def _is_made(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - MADE_BY.keys()):
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(MADE_BY)}")
        return value

    @field_validator("cron")
    @classmethod
    def _comes(cls, value: str) -> str:
        try:
            fields = len(value.split())
            if fields == 5 or value.startswith("@"):
                croniter(value, datetime(2000, 1, 1, tzinfo=UTC)).get_next()
                return value
        except (CroniterError, ValueError):
            pass
        raise ValueError("expected a cron expression of five fields such as '0 2 * * *'")

    @property
    def timeout(self) -> timedelta:
        return timedelta(minutes=self.timeout_minutes)

    @property
    def deadline(self) -> timedelta:
        minutes = self.deadline_minutes
        return self.timeout * 2 / 3 if minutes is None else timedelta(minutes=minutes)


_DOCUMENTED: Final = {
    job: JobSchedule(cron=cron, timeout_minutes=timeout, deadline_minutes=deadline)
    for job, cron, timeout, deadline in (
        ("data_refresh", "0 2 * * *", 30, 20),
        ("bert_embeddings", "0 3 * * 2", 60, 40),
        ("drift_detection", "0 9 * * 1", 15, 10),
        ("model_training", "0 3 * * 0", 120, 90),
        ("model_deployment", "0 5 * * *", 15, 10),
        ("health_check", "0 * * * *", 5, 3),
        ("maintenance", "0 4 * * 6", 45, 30),
        ("outcomes", "20 * * * *", 15, 10),
        ("forget_customers", "30 1 * * *", 120, 60),
    )
}


class Approval(ConfigModel):
    """Whether a person is asked before a model is swapped in, and how long a run waits for that."""

    FILE = "deployment.yaml"

    require_approval: bool = False
    approval_hours: float = Field(default=12, gt=0)

    @property
    def time_to_answer(self) -> timedelta:
        return timedelta(hours=self.approval_hours if self.require_approval else 0)


_ASKS: Final = "model_deployment"
_OWN_JOB: Final = "known jobs are {}; one of your own needs cron and timeout_minutes"


class SchedulerConfig(ConfigModel):
    """The time zone that cron expressions are read in and logs are written in, the form of these,
    and all jobs by name. Jobs that no file lists run as they are documented."""

    FILE = "scheduler_config.json"

    timezone: TimeZone = "Asia/Ho_Chi_Minh"
    log_format: LogFormat = "text"
    jobs: dict[str, JobSchedule] = Field(default=_DOCUMENTED)


@dataclass(frozen=True)
class Schedule:
    """When everything runs: the `zone` that cron expressions are read in, the `jobs` that can run,
    and the `problems` of the others, job -> a sentence with file, key and what is wrong with it."""

    zone: ZoneInfo
    jobs: Mapping[str, JobSchedule]
    problems: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """All jobs, whether their entries can be used or not."""
        return [*self.jobs, *self.problems]

    def job(self, name: str) -> JobSchedule:
        """The entry of one job. Raises `ConfigError` if it is bad or there is none."""
        if name in self.jobs:
            return self.jobs[name]
        problem = f"{SchedulerConfig.FILE}: jobs.{name}: the job has no entry"
        raise ConfigError(self.problems.get(name, problem))


def load_zone(settings: Settings) -> ZoneInfo:
    """The time zone alone, whatever is wrong with a job. Raises `ConfigError` for a bad one."""
    return ZoneInfo(_alone(settings, "timezone").timezone)


def load_log_format(settings: Settings) -> LogFormat:
    """The form of the logs alone, likewise."""
    return _alone(settings, "log_format").log_format


def _alone(settings: Settings, wanted: str) -> SchedulerConfig:
    document = read_document(settings, SchedulerConfig.FILE)
    content = {key: value for key, value in document.content.items() if key == wanted}
    return document.validate(SchedulerConfig, content)


def load_schedule(settings: Settings) -> Schedule:
    """Read ``scheduler_config.json``. A bad entry of one job stops no other job. Raises
    `ConfigError` that names the key if the file, or what all jobs share, is bad."""
    document = read_document(settings, SchedulerConfig.FILE)
    default = {name: job.model_dump(exclude_unset=True) for name, job in _DOCUMENTED.items()}
    content = reduce(_over, (layer for _, layer in reversed(document.layers)), {"jobs": default})
    shared = content | {"jobs": {}} if isinstance(content["jobs"], Mapping) else content
    zone = ZoneInfo(document.validate(SchedulerConfig, shared).timezone)
    jobs: dict[str, JobSchedule] = {}
    problems: dict[str, str] = {}
    for name, entry in content["jobs"].items():
        try:
            jobs[name] = document.validate(JobSchedule, entry, at=("jobs", name))
        except ConfigError as error:
            problems[name] = str(error)
            if name not in _DOCUMENTED:
                problems[name] += "\n" + _OWN_JOB.format(", ".join(_DOCUMENTED))
    for name, problem in _bad_followers(jobs).items():
        del jobs[name]
        problems[name] = f"{SchedulerConfig.FILE}: jobs.{name}.after: {problem}"
    if _ASKS in jobs:
        jobs[_ASKS] = _with_time_to_answer(jobs[_ASKS], settings)
    return Schedule(zone, jobs, problems)


def _with_time_to_answer(job: JobSchedule, settings: Settings) -> JobSchedule:
    """`job` with the hours that it waits for a person besides its own time."""
    try:
        document = read_document(settings, Approval.FILE)
        content = document.content
        known = {key: content[key] for key in Approval.model_fields if key in content}
        more = document.validate(Approval, known).time_to_answer
    except ConfigError:
        return job  # the job itself tells what is wrong
    minute = timedelta(minutes=1)
    longer = {
        "timeout_minutes": (job.timeout + more) / minute,
        "deadline_minutes": (job.deadline + more) / minute,
    }
    return job.model_copy(update=longer)


def _bad_followers(jobs: Mapping[str, JobSchedule]) -> dict[str, str]:
    """Jobs that would start themselves, or that somebody starts already -> a sentence."""
    bad = {}
    for name, job in jobs.items():
        for asset in job.after:
            if starter := _STARTED_ANYWAY.get((name, asset)):
                bad[name] = f"{starter} starts {name} itself when {asset} asks for it"
        followed, ahead = set[str](), [name]
        while ahead:
            after = jobs[ahead.pop()].after
            makers = {maker for asset in after if (maker := MADE_BY[asset]) in jobs and maker}
            ahead += makers - followed
            followed |= makers
        if name in followed:
            bad[name] = f"{name} would start itself, by way of what it follows"
    return bad


def _over(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One layer over another; a job with another timeout has another deadline as well."""
    result, jobs = merged(below, over), over.get("jobs")
    if isinstance(jobs, Mapping):
        for name, entry in jobs.items():
            if isinstance(entry, Mapping) and "timeout_minutes" in entry:
                deadline = {"deadline_minutes": entry.get("deadline_minutes")}
                result["jobs"][name] = result["jobs"][name] | deadline
    return result


@dataclass(frozen=True)
class DataInterval:
    """The half-open span of time ``[start, end)`` that a run is responsible for; both aware."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a data interval needs time zones on both bounds")
        if self.end < self.start:
            raise ValueError(f"a data interval ends before it starts: {self.start} - {self.end}")


def interval_of(context: Mapping[str, Any]) -> DataInterval:
    """The data interval of an Airflow task context; of a run by hand without a date, which has
    none, the day that ends when the run was asked for. One that follows something new takes what is
    there when it begins: more may have come since it was asked for."""
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is not None and end is not None:
        return DataInterval(start, end)
    run = context["dag_run"]
    moment = "start_date" if getattr(run, "run_type", None) == FOLLOWS else "run_after"
    asked = getattr(run, moment, None) or datetime.now(UTC)
    return DataInterval(asked - timedelta(days=1), asked)
