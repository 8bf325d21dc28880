"""Parse time of each DAG file beside that of an empty one, in two ways.

    python -m benchmarks.orchestration.dag_parse [--rounds 9]

`python FILE` is the way that Airflow's documentation recommends: a fresh interpreter runs the
file. `dag-processor` does what Airflow's dag-processor does: a parent with Airflow loaded forks a
child a file, which loads the file and serialises its DAGs; from the fork to the child's end.

References are an empty DAG file, and a DAG without tasks worth the name that has what every job
must have (an interval schedule, a deadline, a parameter), because loading and serialising these
is Airflow's own work. Medians are printed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EMPTY = """\
from datetime import datetime
from airflow.sdk import DAG, task

with DAG("empty", schedule=None, start_date=datetime(2025, 1, 1)):

    @task
    def nothing() -> None:
        pass

    nothing()
"""
FURNISHED = """\
from datetime import datetime, timedelta
from airflow.sdk import DAG, Param, task
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.timetables.interval import CronDataIntervalTimetable

with DAG(
    "furnished",
    schedule=CronDataIntervalTimetable("0 2 * * *", timezone="Asia/Ho_Chi_Minh"),
    start_date=datetime(2025, 1, 1),
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=20),
        callback=SyncCallback("builtins.print"),
    ),
    params={"force": Param(False, type="boolean")},
):

    @task
    def nothing() -> None:
        pass

    nothing()
"""


def run_seconds(path: Path) -> float:
    """Seconds that a fresh interpreter takes to run `path`."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, str(path)], check=True, capture_output=True)
    return time.perf_counter() - begun


def parse_seconds(path: Path) -> float:
    """Fork a child that parses `path` as the dag-processor's does; seconds until it ended."""
    begun = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os._exit(_parse(path))
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"{path} could not be parsed")
    return time.perf_counter() - begun


def _parse(path: Path) -> int:
    try:
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "client"
        import structlog
        from airflow.dag_processing.processor import DagFileParseRequest, _parse_file
        from airflow.sdk.execution_time import comms, task_runner  # noqa: F401

        request = DagFileParseRequest(
            file=str(path), bundle_path=path.parent, bundle_name="dags-folder"
        )
        result = _parse_file(request, structlog.get_logger())
    except Exception as error:  # noqa: BLE001
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    return int(result is None or bool(result.import_errors) or not result.serialized_dags)


def compare(method: str, measure: Callable[[Path], float], files: list[Path], rounds: int) -> None:
    """Print the median of every file and its ratio to the first two, the references."""
    figures = {path: [measure(path) for _ in range(rounds)] for path in files}
    medians = {path: statistics.median(seconds) for path, seconds in figures.items()}
    empty, furnished = (medians[path] for path in files[:2])
    print(f"{method}: empty {empty * 1000:.0f} ms, furnished {furnished * 1000:.0f} ms")
    for path in files[2:]:
        print(
            f"  {path.name}: {medians[path] * 1000:.0f} ms, "
            f"{medians[path] / empty:.2f} x empty, {medians[path] / furnished:.2f} x furnished"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(REPOSITORY / "dags")
        os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(REPOSITORY / "plugins")
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        import airflow.dag_processing.manager  # noqa: F401  what the parent has loaded

        references = [Path(folder) / "empty.py", Path(folder) / "furnished.py"]
        for path, text in zip(references, (EMPTY, FURNISHED), strict=True):
            path.write_text(text)
        files = [*references, *sorted((REPOSITORY / "dags").glob("*.py"))]
        print(f"input: {len(files) - 2} DAG files, {rounds} rounds")
        compare("python FILE", run_seconds, files, rounds)
        compare("dag-processor", parse_seconds, files, rounds)


if __name__ == "__main__":
    main()
