"""Tells the mirror what Airflow's processes see: in the scheduler and the API server the state
changes of runs, in the workers the errors of tasks.

A run's state change happens inside a transaction of the scheduler. So the hook only copies the
run's fields; the rest is the work of one background thread. What goes wrong there is a line in the
log, and `recsys.orchestration.mirror` repairs it."""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from airflow.listeners import hookimpl

from recsys.database import BUSY_TIMEOUT_SECONDS
from recsys.orchestration import mirror
from recsys.orchestration.callbacks import run_url
from recsys.orchestration.mirror import error_line
from recsys.orchestration.notes import note_of
from recsys.tracking import PipelineTracker

# A worker waits for a locked tracker no longer than this: the run matters more.
WORKER_TIMEOUT_SECONDS = 2.0
FIELDS = (
    *("dag_id", "run_type", "start_date", "queued_at", "run_after", "end_date", "conf"),
    *("triggering_user_name", "triggered_by", "data_interval_start", "data_interval_end"),
    "clear_number",
)
Run = dict[str, Any]

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
        _in_background(_tell_success, dag_run, msg)

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


def _in_background(write: Callable[[Run], None], dag_run: Any, msg: str) -> None:
    try:
        run = {name: getattr(dag_run, name, None) for name in FIELDS}
        run |= {"dag_run_id": dag_run.run_id, "state": mirror.text_of(dag_run.state)}
        run |= {"reason": msg, "marked_by_hand": mirror.MARKED_BY_HAND in msg}
        run["problem"] = mirror.future_of(dag_run)
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


def _guarded(write: Callable[[Run], None], run: Run) -> None:
    try:
        if mirror.is_job(run["dag_id"]):
            write(run)
    except Exception:
        logger.exception("The run mirror could not write %s %s", run["dag_id"], run["dag_run_id"])


def _mirror_start(run: Run) -> None:
    mirror.log_start(run["dag_id"])
    # With several schedulers, another one may have ended the run and be faster in writing it.
    _tracker().record_start(mirror.to_record(run, {}))
    if run["problem"]:
        _refuse(run)


def _refuse(run: Run) -> None:
    """Fail a run that is not due yet: Airflow would start no task of it, and, with one run at a
    time, no other run of the job until that day."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import update

    now, problem = datetime.now(UTC), run["problem"]
    open_run = update(DagRun).filter_by(**_key(run)).where(DagRun.state.in_(("queued", "running")))
    # One statement: it waits for the transaction in which the scheduler started the run.
    with create_session(scoped=False) as session:
        session.execute(open_run.values(state="failed", end_date=now))
    _mirror_end({**run, "state": "failed", "end_date": now, "reason": problem})
    _tell("bad_request", run, error=problem)


def _tell_timeout(run: Run) -> None:
    """The alert; Airflow's callback knows how often the run was cleared from our record only."""
    _tell("run_timed_out", run, reason=run["reason"])


def _tell_success(run: Run) -> None:
    from recsys.alerting.runs import tell_of_success

    if (run["conf"] or {}).get("dry_run") or run["marked_by_hand"]:
        return  # which shows of no job that it works
    tell_of_success(run["dag_id"], run["dag_run_id"])


def _tell(what: Any, run: Run, **details: Any) -> None:
    from recsys.alerting.runs import RunEvent, tell_of_run

    which = run["dag_id"], run["dag_run_id"]
    details |= {"attempt": run["clear_number"] or 0, "link": run_url(*which)}
    tell_of_run(RunEvent(what, *which, mirror.text_of(run["run_type"]), **details))


def _mirror_end(run: Run) -> None:
    run = {**run, **_outcome(run)}
    record = mirror.mirror(run, _tracker())
    mirror.log_end(record)
    _leave_note(run, note_of(run["dag_id"], run["summary"], record.error_message))


def _tracker(timeout: float = BUSY_TIMEOUT_SECONDS) -> PipelineTracker:
    from recsys.orchestration.tracker_hook import PipelineTrackerHook

    return PipelineTrackerHook().get_conn(timeout)


def _key(run: Run) -> dict[str, str]:
    """By which Airflow's tables know the run."""
    return {"dag_id": run["dag_id"], "run_id": run["dag_run_id"]}


def _outcome(run: Run) -> Run:
    """What the tasks of the run returned, and which failed, the first one first."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from recsys.orchestration.client import by_task

    returned = select(XComModel.task_id, XComModel.map_index, XComModel.value)
    returned = returned.filter_by(**_key(run), key="return_value")
    failed = select(TaskInstance.task_id).filter_by(**_key(run), state="failed")
    with create_session(scoped=False) as session:
        summary = by_task(session.execute(returned).all())
        tasks = tuple(dict.fromkeys(session.scalars(failed.order_by(TaskInstance.end_date))))
    return {"summary": summary, "failed_tasks": tasks}


def _leave_note(run: Run, note: str | None) -> None:
    """Show what became of the run on its page; a person's note stays, ours of an earlier try does
    not."""
    from airflow.models.dagrun import DagRun, DagRunNote
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if note is None:
        return
    with create_session(scoped=False) as session:
        dag_run = session.scalar(select(DagRun).filter_by(**_key(run)))
        if dag_run is None:
            return
        if dag_run.dag_run_note is None:
            dag_run.dag_run_note = DagRunNote(content=note)
        elif dag_run.dag_run_note.user_id is None:
            dag_run.dag_run_note.content = note
