"""One holder of a pipeline, whoever asks: scripts, and Airflow's runs of the job."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from recsys.errors import InputError
from recsys.locks import PipelineLock, shared_with_tasks
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus

JOB = "data_refresh"
ROUNDS, PROCESSES = 25, 8


def record(
    settings: Settings, started: datetime, status=RunStatus.RUNNING, database=None, **metadata
) -> None:
    ended = None if status is RunStatus.RUNNING else datetime.now(UTC)
    run = RunRecord(f"{JOB}__1", JOB, status, started, ended, None, metadata)
    PipelineTracker(database or settings.pipeline_db).record_run(run)


def is_free(settings: Settings) -> bool:
    with PipelineLock(JOB, settings) as lock:
        return lock.acquired


def test_a_lock_is_held_until_the_end_of_its_block(settings):
    with PipelineLock(JOB, settings) as lock:
        assert lock.acquired
        assert not is_free(settings)
        with PipelineLock("model_training", settings) as other:
            assert other.acquired
    assert not lock.acquired
    assert is_free(settings)


def test_an_error_in_the_block_releases_it(settings):
    with pytest.raises(ZeroDivisionError), PipelineLock(JOB, settings):
        1 / 0  # noqa: B018
    assert is_free(settings)


def test_it_is_that_of_the_state_root_unless_another_one_is_given(settings, monkeypatch):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    with PipelineLock(JOB):
        assert not is_free(settings)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 200])
def test_a_name_is_no_path(settings, name):
    with pytest.raises(InputError, match="expected a pipeline's name"):
        PipelineLock(name, settings)


def test_a_holder_that_was_killed_holds_nothing(settings):
    program = (
        "import sys, time\n"
        "from recsys.locks import PipelineLock\n"
        f"with PipelineLock({JOB!r}) as lock:\n"
        "    print(lock.acquired, flush=True); time.sleep(60)\n"
    )
    env = {**os.environ, "RECSYS_HOME": str(settings.home), "PYTHONPATH": "include"}
    holder = subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE)
    assert holder.stdout.readline().strip() == b"True"
    assert not is_free(settings)
    holder.kill()
    holder.wait()
    assert is_free(settings)


def enter(home, barrier, acquired, inside, twice):
    for _ in range(ROUNDS):
        barrier.wait()
        with PipelineLock(JOB, Settings(home)) as lock:
            if lock.acquired:
                with acquired.get_lock():
                    acquired.value += 1
                with inside.get_lock():
                    inside.value += 1
                    twice.value |= inside.value > 1
                time.sleep(0.002)
                with inside.get_lock():
                    inside.value -= 1


@pytest.mark.parametrize("stale", [False, True], ids=["free", "stale"])
def test_of_many_processes_never_two_hold_it(settings, stale):
    context = multiprocessing.get_context("fork")
    values = [context.Value("i", 0) for _ in range(3)]
    aged = settings.logs / "locks" / f"{JOB}.lock"

    def age() -> None:
        if stale and aged.exists():
            os.utime(aged, (0, 0))

    # Before each round the lock of the round before is made to look a day old, as if its holder
    # had hung; nobody holds it.
    barrier = context.Barrier(PROCESSES, action=age)
    arguments = (settings.home, barrier, *values)
    processes = [context.Process(target=enter, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    acquired, _, twice = (value.value for value in values)
    assert not twice
    assert acquired >= ROUNDS


def test_after_a_day_another_one_takes_over_and_the_late_release_frees_nothing(settings):
    with PipelineLock(JOB, settings) as hung:
        os.utime(settings.logs / "locks" / f"{JOB}.lock", (0, 0))
        with PipelineLock(JOB, settings) as heir:
            assert heir.acquired
            hung.__exit__(None, None, None)
            assert not is_free(settings)


def test_a_run_of_the_job_in_airflow_is_seen(settings):
    record(settings, datetime.now(UTC), airflow_run_id="manual__1")
    assert not is_free(settings)
    record(settings, datetime.now(UTC), RunStatus.SUCCESS, airflow_run_id="manual__1")
    assert is_free(settings)


def test_a_run_is_seen_where_the_record_of_runs_is_kept(settings, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere.db"
    monkeypatch.setenv("AIRFLOW_CONN_RECSYS_TRACKER", json.dumps({"host": str(elsewhere)}))
    record(settings, datetime.now(UTC), database=elsewhere, airflow_run_id="manual__1")
    assert not is_free(settings)


def test_a_lost_run_and_the_scripts_own_record_keep_nobody_out(settings):
    record(settings, datetime.now(UTC) - timedelta(hours=25), airflow_run_id="manual__1")
    PipelineTracker(settings.pipeline_db).start_run(JOB)
    assert is_free(settings)


def test_tasks_of_a_run_work_side_by_side_and_keep_scripts_out(settings):
    with shared_with_tasks(settings, JOB), shared_with_tasks(settings, JOB):
        assert not is_free(settings)
    assert is_free(settings)


def test_a_task_waits_until_a_script_is_done(settings):
    begun = threading.Event()

    def task() -> None:
        with shared_with_tasks(settings, JOB):
            begun.set()

    with PipelineLock(JOB, settings) as lock:
        assert lock.acquired
        thread = threading.Thread(target=task)
        thread.start()
        assert not begun.wait(1)
    assert begun.wait(10)
    thread.join()


def test_where_there_can_be_no_lock_a_script_fails_and_a_task_goes_on(settings):
    settings.logs.mkdir(parents=True)
    (settings.logs / "locks").write_text("no folder")
    with pytest.raises(OSError, match="locks"), PipelineLock(JOB, settings):
        pass
    with shared_with_tasks(settings, JOB):
        pass
