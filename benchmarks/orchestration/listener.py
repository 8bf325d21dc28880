"""What the run mirror adds to a state change of a run in the scheduler's process.

    python -m benchmarks.orchestration.listener [--changes 300]

Calls the listener's hooks as the scheduler does, with a run like Airflow's, and prints the time
until the hook returns, which is what the scheduler waits for, and until the change is written.
The reference is one plain INSERT into the same table, in the same run.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace


def milliseconds(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[int(0.99 * (len(ordered) - 1))]
    return f"median {statistics.median(ordered) * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms"


def run_like_airflows(number: int, state: str) -> SimpleNamespace:
    now = datetime.now(UTC)
    return SimpleNamespace(
        dag_id="data_refresh",
        run_id=f"manual__{number}",
        run_type="manual",
        state=state,
        start_date=now,
        end_date=now if state == "success" else None,
        queued_at=now,
        run_after=now,
        triggering_user_name="admin",
        triggered_by="rest_api",
        data_interval_start=None,
        data_interval_end=None,
        logical_date=None,
        conf={},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=300)
    changes = parser.parse_args().changes
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["RECSYS_HOME"] = folder
        os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{folder}/airflow.db"
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        from airflow.utils.db import initdb

        from recsys.database import connect
        from recsys.orchestration.listener import RunMirrorListener, drain
        from recsys.tracking import PipelineTracker

        initdb()
        listener = RunMirrorListener()
        listener.on_dag_run_running(run_like_airflows(-1, "running"), "started")
        drain()
        returned, written = [], []
        for number in range(changes):
            run = run_like_airflows(number // 2, "success" if number % 2 else "running")
            hook = listener.on_dag_run_success if number % 2 else listener.on_dag_run_running
            begun = time.perf_counter()
            hook(run, "success" if number % 2 else "started")
            returned.append(time.perf_counter() - begun)
            drain()
            written.append(time.perf_counter() - begun)
        stats = PipelineTracker(Path(folder) / "logs" / "pipeline_metrics.db").get_stats()
        mirrored = stats["stats_by_pipeline"]["data_refresh"]["success"]
        inserted = []
        with closing(connect(Path(folder) / "plain.db")) as connection:
            connection.execute("CREATE TABLE runs (run_id TEXT PRIMARY KEY, status TEXT)")
            for number in range(changes):
                begun = time.perf_counter()
                connection.execute("INSERT INTO runs VALUES (?, 'running')", (str(number),))
                inserted.append(time.perf_counter() - begun)
    print(f"input: {changes} state changes, {mirrored} runs mirrored as successes")
    print(f"until the hook returns: {milliseconds(returned)} (bound: 10 ms)")
    print(f"until it is written:    {milliseconds(written)}")
    print(f"reference (one INSERT): {milliseconds(inserted)}")
    ratio = statistics.median(returned) / statistics.median(inserted)
    print(f"ratio (hook returns / INSERT): {ratio:.2f}")


if __name__ == "__main__":
    main()
