"""Whether a run of a job that follows something new still has something to do.

The clock and something new may start the same job in the same moment, and a run that is at work
when something new comes may take it in. Airflow then starts one more; it shall not do work twice.
Where that cannot be told for certain, the run does its work: it finds nothing new."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from recsys.schedule import FOLLOWS, RAW_DROP
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunStatus, tracker_database

DONE: Final = "done_by"
"""In the summary of a run that had nothing to do: the run that has done its work."""

_RUNS = 20

Run = Mapping[str, Any]


@dataclass(frozen=True)
class Cause:
    """The newest of what a job follows: which `asset`, when it was told of, and its ``id``, which
    of files that were dropped nobody knows."""

    asset: str
    at: datetime
    id: str


def done_by(settings: Settings, job: str, causes: Sequence[Cause]) -> str | None:
    """Which run of `job` has taken in all `causes`; None if there may be something to do."""
    runs = _ended_runs(settings, job)
    answers = [_answer(settings, cause, runs) for cause in causes]
    return None if None in answers else next(iter(answers), None)


def overtaken_by(settings: Settings, job: str, due: datetime) -> str | None:
    """Which run that followed something new began after the moment `due`, at which the clock asked
    for a run of `job`, and was first; None if the clock's is needed."""
    for run in _ended_runs(settings, job):
        follows = run["metadata"].get("run_type") == FOLLOWS
        if follows and run["status"] == RunStatus.SUCCESS and _moment(run["started_at"]) >= due:
            return str(run["run_id"])
    return None


def _ended_runs(settings: Settings, job: str) -> list[Run]:
    """The latest ones that did all that the job does, newest first."""
    tracker = PipelineTracker(tracker_database(settings))
    return [run for run in tracker.get_recent_runs(job, limit=_RUNS) if _does_all(run)]


def _answer(settings: Settings, cause: Cause, runs: Sequence[Run]) -> str | None:
    if cause.asset == RAW_DROP:
        return _refreshed(settings, cause, runs)
    for run in runs:
        if run["status"] != RunStatus.SUCCESS:
            continue
        began_later = _moment(run["started_at"]) >= cause.at
        if began_later or (_ended_after(run, cause.at) and cause.id in _texts(_summary(run))):
            return str(run["run_id"])
    return None


def _refreshed(settings: Settings, cause: Cause, runs: Sequence[Run]) -> str | None:
    """By a refresh that has archived every file, and left no row of them for a later view."""
    from recsys.data.staging import waiting_files

    if waiting_files(settings):
        return None
    for run in runs:
        read, published = (_summary(run).get(step) or {} for step in ("ingest", "publish"))
        if "as_of" in read and "version_id" in published and _ended_after(run, cause.at):
            is_whole = _moment(read["as_of"]) >= cause.at or not read["rows"]["later"]
            return str(run["run_id"]) if is_whole else None
    return None


def _does_all(run: Run) -> bool:
    """Whether it has ended and did what the job does: not for a past day, not what somebody asked
    for with options, and not nothing."""
    about = run["metadata"]
    is_usual = about.get("run_type") != "backfill" and not about.get("conf")
    did = [step for step in _summary(run).values() if isinstance(step, Mapping)]
    return run["finished_at"] is not None and is_usual and not any(DONE in step for step in did)


def _summary(run: Run) -> Mapping[str, Any]:
    return run["metadata"].get("summary") or {}


def _ended_after(run: Run, moment: datetime) -> bool:
    return run["finished_at"] is not None and _moment(run["finished_at"]) >= moment


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
