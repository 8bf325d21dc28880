"""The shape of the drift_detection DAG; what it does is run by the end-to-end tests."""

import importlib.util
from typing import Any

import pytest

from recsys.settings import REPOSITORY


@pytest.fixture(scope="module")
def dag() -> Any:
    path = REPOSITORY / "dags" / "drift_detection.py"
    spec = importlib.util.spec_from_file_location("drift_detection_dag", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.found.operator.dag


def test_training_is_triggered_by_name_with_the_report_as_its_reason(dag: Any) -> None:
    trigger = dag.get_task("trigger_training")
    assert trigger.trigger_dag_id == "model_training"
    assert "report_date" in trigger.trigger_run_id
    assert trigger.conf["reason"].operator.task_id == "decide_on_training"
    assert trigger.upstream_task_ids == {"decide_on_training", "training_is_due"}


def test_no_short_circuit_can_skip_the_summary(dag: Any) -> None:
    assert not dag.get_task("summarise").upstream_task_ids & {"is_current", "training_is_due"}
    assert dag.get_task("summarise").trigger_rule == "none_failed"
    assert [task.task_id for task in dag.leaves] == ["summarise"]


def test_the_length_of_the_reference_is_a_parameter(dag: Any) -> None:
    assert dag.params.get_param("reference_days").schema["minimum"] == 28
