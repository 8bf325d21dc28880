"""Run in a process of its own: loads a DAG folder as Airflow does and describes it as JSON."""

import json
import sys
from typing import Any

from airflow.dag_processing.dagbag import DagBag


def describe(folder: str) -> dict[str, Any]:
    bag = DagBag(folder, bundle_path=None, bundle_name="dags-folder")
    return {
        "import_errors": dict(bag.import_errors),
        "dags": {dag_id: _dag(dag) for dag_id, dag in bag.dags.items()},
        "heavy": sorted(set(sys.modules) & set(sys.argv[2:])),
    }


def _dag(dag: Any) -> dict[str, Any]:
    clock = getattr(dag.timetable, "timetable", dag.timetable)
    followed = getattr(dag.timetable, "asset_condition", None)
    return {
        "file": dag.fileloc,
        "doc": dag.doc_md,
        "tags": sorted(dag.tags),
        "description": dag.description,
        "owner": dag.owner,
        "cron": getattr(clock, "expression", None),
        "timezone": str(getattr(clock, "timezone", None)),
        "timetable": type(dag.timetable).__name__,
        "follows": sorted(asset.name for asset in getattr(followed, "objects", ())),
        "timeout_seconds": dag.dagrun_timeout.total_seconds(),
        "deadline_seconds": [alert.interval for alert in _alerts(dag)],
        "max_active_runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "has_failure_callback": bool(dag.has_on_failure_callback or dag.on_failure_callback),
        "params": {name: _field(dag.params.get_param(name)) for name in sorted(dag.params)},
        "tasks": {
            task.task_id: {
                "pool": task.pool,
                "queue": task.queue,
                "inlets": [asset.name for asset in task.inlets],
                "outlets": [asset.name for asset in task.outlets],
                "retries": task.retries,
                "has_failure_callback": bool(task.on_failure_callback),
            }
            for task in dag.tasks
        },
    }


def _field(param: Any) -> dict[str, Any]:
    return {**param.schema, "description": param.description}


def _alerts(dag: Any) -> list[Any]:
    return list(dag.deadline if isinstance(dag.deadline, list) else [dag.deadline])


if __name__ == "__main__":
    print("\n" + json.dumps(describe(sys.argv[1])))
