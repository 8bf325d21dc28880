"""Parse time of each DAG file beside that of an empty one, as Airflow's dag-processor parses.

    python benchmarks/orchestration/dag_parse.py [--rounds 15]

The dag-processor forks a process for every file, which loads the file, serialises its DAGs and
ends; Airflow reports the life of that process as the file's parse duration. This program does
the same: a parent with Airflow loaded forks a child a file, the empty file and ours in turn, and
measures from the fork to the child's end. Medians are printed.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
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
    except Exception as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    return int(result is None or bool(result.import_errors) or not result.serialized_dags)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AIRFLOW_HOME"] = folder
        os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
        os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(REPOSITORY / "dags")
        os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(REPOSITORY / "plugins")
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        import airflow.dag_processing.manager  # noqa: F401  what the parent has loaded

        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY)
        files = [empty, *sorted((REPOSITORY / "dags").glob("*.py"))]
        figures: dict[str, list[float]] = {path.name: [] for path in files}
        for _ in range(rounds):
            for path in files:
                figures[path.name].append(parse_seconds(path))
    reference = statistics.median(figures.pop("empty.py"))
    print(f"input: {len(figures)} DAG files, {rounds} rounds")
    print(f"reference (empty DAG file): {reference * 1000:.0f} ms")
    for name, seconds in figures.items():
        median = statistics.median(seconds)
        print(f"{name}: {median * 1000:.0f} ms, ratio {median / reference:.2f}")


if __name__ == "__main__":
    main()
