"""Tells the mirror what Airflow's processes see: in the scheduler and the API server the state
changes of runs, in the workers the errors of tasks.

A run's state change happens inside a transaction of the scheduler. So the hook only copies the
run's fields; the rest is the work of one background thread, with database sessions of its own.
What goes wrong there is a line in the log, and `recsys.orchestration.mirror` repairs it.
"""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow.listeners import hookimpl

from recsys.database import BUSY_TIMEOUT_SECONDS
from recsys.orchestration import mirror
from recsys.orchestration.callbacks import run_url
from recsys.orchestration.mirror import AirflowRun, error_line
from recsys.tracking import PipelineTracker

# A worker waits for a locked tracker no longer than this: the run matters more.
WORKER_TIMEOUT_SECONDS = 2.0

logger = logging.getLogger(__name__)

_executors: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


class RunMirrorListener:
    """The hooks that Airflow calls; none of them raises or waits."""

    @hookimpl
    def on_dag_run_running(self, dag_run: Any, msg: str) -> None:
        _in_background(_mirror_start, dag_run, msg)

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        _in_background(_mirror_end, dag_run, msg)

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        _in_background(_mirror_end, dag_run, msg)
        if msg == mirror.TIMED_OUT:
            _in_background(_tell_timeout, dag_run, msg)

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        try:
            job = task_instance.dag_id
            if mirror.is_job(job):
                errors = {"task_errors": {task_instance.task_id: error_line(error)}}
                run_id = mirror.tracker_id(job, task_instance.run_id)
                _tracker(WORKER_TIMEOUT_SECONDS).merge_metadata(run_id, errors)
        except Exception:
            logger.exception("The run mirror missed a task's error")


def drain() -> None:
    """Wait until everything this process has handed to the background is written."""
    _executor().submit(lambda: None).result()


def _in_background(write: Callable[[AirflowRun], None], dag_run: Any, msg: str) -> None:
    try:
        run = _copy(dag_run, msg)
        _executor().submit(_guarded, write, run)
    except Exception:
        logger.exception("The run mirror missed a state change")


def _executor() -> ThreadPoolExecutor:
    """This process's background thread; a forked child starts one of its own."""
    with _lock:
        if os.getpid() not in _executors:
            _executors.clear()
            _executors[os.getpid()] = ThreadPoolExecutor(1, thread_name_prefix="run-mirror")
        return _executors[os.getpid()]


def _guarded(write: Callable[[AirflowRun], None], run: AirflowRun) -> None:
    try:
        if mirror.is_job(run.job):
            write(run)
    except Exception:
        logger.exception("The run mirror could not write %s %s", run.job, run.run_id)


def _mirror_start(run: AirflowRun) -> None:
    mirror.log_start(run.job)
    # With several schedulers, another one may have ended the run and be faster in writing it.
    _tracker().record_start(mirror.to_record(run, {}))
    if run.problem:
        _refuse(run, run.problem)


def _refuse(run: AirflowRun, problem: str) -> None:
    """Fail a run that is not due yet: Airflow would start no task of it, and, with one run at a
    time, no other run of the job until that day."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import update

    from recsys.alerting.runs import RunEvent, tell_of_run

    now = datetime.now(UTC)
    statement = (
        update(DagRun)
        .filter_by(dag_id=run.job, run_id=run.run_id)
        .where(DagRun.state.in_(("queued", "running")))
        .values(state="failed", end_date=now)
    )
    # One statement: it waits for the transaction in which the scheduler started the run.
    with create_session(scoped=False) as session:
        session.execute(statement)
    _mirror_end(replace(run, state="failed", finished_at=now, reason=problem))
    tell_of_run(RunEvent("run_failed", run.job, run.run_id, run.run_type, error=problem))


def _tell_timeout(run: AirflowRun) -> None:
    """The alert: Airflow's callback does not know how often the run was cleared, so that it would
    hold back the second timeout of a run."""
    from recsys.alerting.runs import RunEvent, tell_of_run

    tell_of_run(
        RunEvent(
            "run_timed_out",
            job=run.job,
            run_id=run.run_id,
            run_type=run.run_type,
            attempt=run.attempt,
            reason=run.reason,
            link=run_url(run.job, run.run_id),
        )
    )


def _mirror_end(run: AirflowRun) -> None:
    run = _with_outcome(run)
    mirror.log_end(mirror.mirror(run, _tracker()))
    _leave_note(run)


def _copy(dag_run: Any, msg: str) -> AirflowRun:
    triggered_by = dag_run.triggering_user_name or dag_run.triggered_by
    return AirflowRun(
        job=dag_run.dag_id,
        run_id=dag_run.run_id,
        run_type=mirror.text_of(dag_run.run_type),
        state=mirror.text_of(dag_run.state),
        started_at=dag_run.start_date or dag_run.queued_at or dag_run.run_after,
        finished_at=dag_run.end_date,
        triggered_by=mirror.text_of(triggered_by),
        data_interval_start=dag_run.data_interval_start,
        data_interval_end=dag_run.data_interval_end,
        conf=dag_run.conf,
        reason=msg,
        marked_by_hand=mirror.MARKED_BY_HAND in msg,
        problem=mirror.future_of(dag_run),
        attempt=getattr(dag_run, "clear_number", None) or 0,
    )


def _tracker(timeout: float = BUSY_TIMEOUT_SECONDS) -> PipelineTracker:
    from recsys.orchestration.tracker_hook import PipelineTrackerHook

    return PipelineTrackerHook().get_conn(timeout)


def _with_outcome(run: AirflowRun) -> AirflowRun:
    """The run with what its tasks returned, and which failed, the first one first."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from recsys.orchestration.client import by_task

    this_run = {"dag_id": run.job, "run_id": run.run_id}
    returned = select(XComModel.task_id, XComModel.map_index, XComModel.value)
    returned = returned.filter_by(**this_run, key="return_value")
    failed = select(TaskInstance.task_id).filter_by(**this_run, state="failed")
    with create_session(scoped=False) as session:
        summary = by_task(session.execute(returned).all())
        tasks = tuple(dict.fromkeys(session.scalars(failed.order_by(TaskInstance.end_date))))
    return replace(run, summary=summary, failed_tasks=tasks)


def _leave_note(run: AirflowRun) -> None:
    """Show what a task returned as its ``note`` on the run's page; a person's note stays."""
    from airflow.models.dagrun import DagRun, DagRunNote
    from airflow.utils.session import create_session
    from sqlalchemy import select

    values = (run.summary or {}).values()
    notes = [value["note"] for value in values if isinstance(value, dict) and value.get("note")]
    if not notes:
        return
    this_run = select(DagRun).filter_by(dag_id=run.job, run_id=run.run_id)
    with create_session(scoped=False) as session:
        dag_run = session.scalar(this_run)
        if dag_run is not None and dag_run.dag_run_note is None:
            dag_run.dag_run_note = DagRunNote(content=str(notes[0])[:1000])
