"""How many runs a second several processes can record, beside plain INSERTs.

    python -m benchmarks.tracking.throughput [--processes 8] [--runs 500]

Each process starts and completes runs through one `PipelineTracker` on one database. The
reference does what these calls must at least do, in the same processes and the same schema: one
INSERT in a transaction of its own per event, nothing read, nothing checked.
"""

import argparse
import multiprocessing
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from recsys.database import connect
from recsys.tracking import PipelineTracker


def record_runs(path: Path, runs: int) -> None:
    tracker = PipelineTracker(path)
    for index in range(runs):
        tracker.complete_run(tracker.start_run("load"), {"index": index})


def insert_rows(path: Path, runs: int) -> None:
    with closing(connect(path)) as connection:
        for _ in range(2 * runs):
            connection.execute(
                "INSERT INTO pipeline_runs (run_id, pipeline_name, status, started_at)"
                " VALUES (?, 'load', 'success', '2025-01-15T02:00:00.000000+00:00')",
                (uuid.uuid4().hex,),
            )


def events_per_second(
    work: Callable[[Path, int], None], path: Path, processes: int, runs: int
) -> float:
    """Two events (start, end) a run; the processes' start-up is not counted."""
    PipelineTracker(path).get_stats()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    workers = [
        context.Process(target=_after, args=(barrier, work, path, runs)) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    begun = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - begun
    failed = [worker.exitcode for worker in workers if worker.exitcode != 0]
    if failed:
        raise SystemExit(f"{len(failed)} processes failed")
    return 2 * processes * runs / seconds


def _after(barrier, work: Callable[[Path, int], None], path: Path, runs: int) -> None:
    barrier.wait()
    work(path, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--runs", type=int, default=500)
    options = parser.parse_args()
    expected = options.processes * options.runs
    print(f"input: {options.processes} processes x {options.runs} start_run + complete_run")
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "tracker.db"
        rate = events_per_second(record_runs, ours, options.processes, options.runs)
        plain = Path(folder) / "plain.db"
        reference = events_per_second(insert_rows, plain, options.processes, options.runs)
        with closing(sqlite3.connect(ours)) as connection:
            rows, complete, distinct = connection.execute(
                "SELECT COUNT(*), SUM(status = 'success'), COUNT(DISTINCT run_id)"
                " FROM pipeline_runs"
            ).fetchone()
    print(f"rows: {rows}, completed: {complete}, distinct ids: {distinct}, expected: {expected}")
    print(f"tracker: {rate:,.0f} events/s")
    print(f"reference (plain INSERTs): {reference:,.0f} events/s")
    print(f"ratio: {rate / reference:.2f}")
    if not rows == complete == distinct == expected:
        raise SystemExit("runs were lost or duplicated")


if __name__ == "__main__":
    main()
