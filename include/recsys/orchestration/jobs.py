"""What all jobs have in common as DAGs: schedule, pool, limits, callbacks, tags."""

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import ParamSpec, TypeVar, cast

from airflow.sdk import (
    DAG,
    AssetAny,
    AssetOrTimeSchedule,
    Context,
    CronDataIntervalTimetable,
    Param,
    get_current_context,
)
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.context import InletEventsAccessors
from airflow.sdk.types import DagRunProtocol

from recsys.errors import InputError, RequestError
from recsys.orchestration import assets, callbacks
from recsys.orchestration.mirror import future_of, text_of
from recsys.schedule import FOLLOWS, JobSchedule, interval_of, load_schedule
from recsys.settings import load_settings

TAG = "recsys"
FIRST_DAY = datetime(2015, 1, 1, tzinfo=UTC)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Area(StrEnum):
    """Whose jobs they are: the owner and a tag in Airflow's UI."""

    DATA = "data"
    MODELS = "models"
    SERVICE = "service"
    UPKEEP = "upkeep"
    SHOP = "shop"  # the shop's own


def job_dag(
    job: str,
    runbook: str | None,
    params: Mapping[str, Param] | None = None,
    *,
    area: Area = Area.SHOP,
) -> DAG:
    """The DAG of `job`, to be filled with tasks. They run in the job's own single-slot pool. The
    title of the `runbook` (``### job: what it does``) is what lists say of it.

    Schedule, timeout, deadline and queue come from ``config/scheduler_config.json``; a job that is
    switched off there keeps its DAG, without a schedule. Raises `ConfigError` if the configuration
    is bad or lacks the job; Airflow shows it as an import error."""
    schedule = load_schedule(load_settings())
    timing = schedule.job(job)
    return DAG(
        dag_id=job,
        description=_title(runbook),
        doc_md=runbook,
        schedule=_timetable(timing, schedule.zone.key) if timing.enabled else None,
        start_date=FIRST_DAY,
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timing.timeout,
        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            # Seconds, as Airflow stored them before 3.3: with a timedelta nobody can clear a run,
            # see docs/decisions/091-deadlines-in-seconds.md.
            interval=cast("timedelta", timing.deadline.total_seconds()),
            callback=SyncCallback(callbacks.deadline_missed),
        ),
        on_failure_callback=callbacks.run_failed,
        default_args={
            "owner": area.value,
            "pool": job,
            "retries": 1,
            "retry_delay": timedelta(seconds=10),
            "on_failure_callback": callbacks.task_failed,
            **({"queue": timing.queue} if timing.queue else {}),
        },
        params=dict(params or {}),
        tags=[TAG, area.value],
    )


def _title(runbook: str | None) -> str | None:
    first = (runbook or "").strip().partition("\n")[0]
    return first.partition(": ")[2] or None


def _timetable(timing: JobSchedule, zone: str) -> CronDataIntervalTimetable | AssetOrTimeSchedule:
    clock = CronDataIntervalTimetable(timing.cron, timezone=zone)
    if not timing.after:
        return clock
    followed = AssetAny(*(assets.BY_NAME[name] for name in timing.after))
    return AssetOrTimeSchedule(timetable=clock, assets=followed)


def failure_of(dag_run: DagRunProtocol) -> str:
    """What all alerts about a failure of this run, since it was last cleared, are known by."""
    from recsys.alerting.runs import failure_key

    return failure_key(dag_run.dag_id, dag_run.run_id, dag_run.clear_number or 0)


def no_retry_on_bad_input(step: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Fail a task at once on `InputError`: a second try would read the same input. The request for
    the run is input as well. Meanwhile no script has the job's `PipelineLock`. A run that follows
    something new is skipped if another one has done its work."""

    @functools.wraps(step)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        # Brings redis where that is installed, and triples the time to parse a DAG file.
        from recsys.locks import shared_with_tasks

        try:
            context = get_current_context()
            run, dag = context["dag_run"], context["dag"]
            refuse_bad_request(run, dag.params)
            skip_what_is_done(context)
            with shared_with_tasks(load_settings(), run.dag_id):
                return step(*args, **kwargs)
        except InputError as error:
            raise AirflowFailException(str(error)) from error

    return guarded


def skip_what_is_done(context: Context) -> None:
    """Skip the first task of a run, and so the run, of a job that follows something new, if
    another run has done its work: the summary says which. What somebody asked for is always done.
    """
    run, settings = context["dag_run"], load_settings()
    after, kind = load_schedule(settings).job(run.dag_id).after, text_of(run.run_type)
    if not after or context["task"].upstream_task_ids or kind not in (FOLLOWS, "scheduled"):
        return
    from recsys.orchestration.causes import DONE, Cause, done_by, overtaken_by

    if kind == FOLLOWS:
        causes = []
        for name in after:
            asset = assets.BY_NAME[name]
            newest = InletEventsAccessors([asset])[asset].ascending(False).limit(1)
            ids = ((one.timestamp, str((one.extra or {}).get("id"))) for one in newest)
            causes += [Cause(name, *told) for told in ids]
        other = done_by(settings, run.dag_id, causes)
    else:
        other = overtaken_by(settings, run.dag_id, interval_of(context).end)
    if other:
        note = f"{other} has done this already"
        context["ti"].xcom_push(key="return_value", value={DONE: other, "note": note})
        raise AirflowSkipException(note)


def refuse_bad_request(dag_run: DagRunProtocol, params: Iterable[str]) -> None:
    """Raise `RequestError` for a run that was asked for with what no job can do. Airflow takes
    every key of `conf`: with a slip such as ``dryrun`` for ``dry_run``, a run would do what nobody
    wanted. An interval that is not over has no data yet."""
    known = sorted(params)
    for key in dag_run.conf or {}:
        if key not in known:
            has = ", ".join(known) or "none"
            raise RequestError(f"conf: {key!r} is no parameter of {dag_run.dag_id}; it has {has}")
    if problem := future_of(dag_run):
        raise RequestError(problem)
