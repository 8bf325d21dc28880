"""Which runs have nothing left to do because another one has done it, told from the real record."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recsys.orchestration.causes import DONE, Cause, done_by, overtaken_by
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def record(
    settings: Settings,
    job: str,
    began: datetime,
    *,
    ended: datetime | None = None,
    status: RunStatus = RunStatus.SUCCESS,
    run_type: str = "scheduled",
    summary: dict[str, Any] | None = None,
    conf: dict[str, Any] | None = None,
) -> str:
    """A run as the mirror writes it; its id."""
    run_id = f"{job}__{began:%H%M%S}"
    metadata = {"run_type": run_type, "summary": summary or {"work": {"rows": 1}}, "conf": conf}
    at = began + MINUTE if ended is None else ended
    finished = None if status is RunStatus.RUNNING else at
    run = RunRecord(run_id, job, status, began, finished, None, metadata)
    PipelineTracker(settings.pipeline_db).record_run(run)
    return run_id


def told(asset: str = "data_version", at: datetime = NOON, about: str = "v7") -> list[Cause]:
    return [Cause(asset, at, about)]


def test_a_run_that_began_after_the_news_has_taken_it_in(settings):
    other = record(settings, "model_training", NOON + MINUTE)
    assert done_by(settings, "model_training", told()) == other
    assert done_by(settings, "model_deployment", told()) is None


def test_a_run_that_began_before_the_news_has_if_it_says_so(settings):
    early = record(settings, "model_training", NOON - MINUTE, ended=NOON + MINUTE)
    assert done_by(settings, "model_training", told()) is None
    summary = {"select_best": {"data_version": "v7", "trained": [{"model_id": "als_1"}]}}
    record(settings, "model_training", NOON - MINUTE, ended=NOON + MINUTE, summary=summary)
    assert done_by(settings, "model_training", told()) == early
    # Selected, replaced, and selected once more: the deployment of then is not the one of now.
    assert done_by(settings, "model_training", told(at=NOON + 2 * MINUTE)) is None


@pytest.mark.parametrize(
    "other",
    [
        {"status": RunStatus.FAILED},
        {"status": RunStatus.RUNNING},
        {"run_type": "backfill"},
        {"conf": {"dry_run": True}},
        {"summary": {"plan": {DONE: "model_training__another", "note": "done"}}},
    ],
    ids=["failed", "running", "backfill", "asked for otherwise", "did nothing itself"],
)
def test_what_did_not_do_the_whole_work_does_not_count(settings, other):
    record(settings, "model_training", NOON + MINUTE, **other)
    assert done_by(settings, "model_training", told()) is None


def test_all_news_of_what_a_job_follows_must_be_taken_in(settings):
    record(settings, "model_training", NOON + MINUTE)
    both = [*told(), *told("embeddings", NOON + 2 * MINUTE, "set-2")]
    assert done_by(settings, "model_training", both) is None
    other = record(settings, "model_training", NOON + 3 * MINUTE)
    assert done_by(settings, "model_training", both) == other
    assert done_by(settings, "model_training", []) is None


def refreshed(as_of: datetime, later: int = 0) -> dict[str, Any]:
    """The summary of a refresh that left `later` rows for a later view."""
    read = {"as_of": as_of.isoformat(), "rows": {"later": later}}
    return {"ingest": read, "publish": {"version_id": "v7"}}


def drop(settings: Settings) -> None:
    folder = settings.staging / "files"
    folder.mkdir(parents=True)
    (folder / "monday.csv").write_text("rows")


def test_a_file_that_still_waits_is_work_whatever_ran(settings):
    record(settings, "data_refresh", NOON + MINUTE, summary=refreshed(NOON + MINUTE))
    assert done_by(settings, "data_refresh", told("raw_drop")) is not None
    drop(settings)
    assert done_by(settings, "data_refresh", told("raw_drop")) is None


def test_a_file_that_a_refresh_at_work_has_read_is_done_unless_rows_of_it_are_left(settings):
    other = record(settings, "data_refresh", NOON - MINUTE, ended=NOON + MINUTE)
    assert done_by(settings, "data_refresh", told("raw_drop")) is None  # it published nothing
    cases = {0: other, 3: None}
    for later, answer in cases.items():
        summary = refreshed(NOON - 2 * MINUTE, later)
        record(settings, "data_refresh", NOON - MINUTE, ended=NOON + MINUTE, summary=summary)
        assert done_by(settings, "data_refresh", told("raw_drop")) == answer


def test_a_refresh_that_published_and_failed_afterwards_has_taken_its_files_in(settings):
    failed = {"status": RunStatus.FAILED, "summary": refreshed(NOON + MINUTE)}
    other = record(settings, "data_refresh", NOON, **failed)
    assert done_by(settings, "data_refresh", told("raw_drop")) == other


def test_a_refresh_that_ended_before_the_file_was_there_says_nothing_of_it(settings):
    early = {"ended": NOON - MINUTE, "summary": refreshed(NOON - 2 * MINUTE)}
    record(settings, "data_refresh", NOON - 2 * MINUTE, **early)
    assert done_by(settings, "data_refresh", told("raw_drop")) is None


def test_the_clocks_run_is_overtaken_by_one_that_followed_something_new_since(settings):
    record(settings, "data_refresh", NOON + MINUTE, run_type="manual")
    record(settings, "data_refresh", NOON - MINUTE, run_type="asset_triggered")
    assert overtaken_by(settings, "data_refresh", NOON) is None
    at = {"run_type": "asset_triggered", "summary": refreshed(NOON + 2 * MINUTE)}
    other = record(settings, "data_refresh", NOON + 2 * MINUTE, **at)
    assert overtaken_by(settings, "data_refresh", NOON) == other
    assert overtaken_by(settings, "data_refresh", NOON + 5 * MINUTE) is None
