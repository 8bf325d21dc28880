"""The shape of the outcomes DAG: whom it alarms."""

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from recsys.settings import REPOSITORY


@pytest.fixture(scope="module")
def dag() -> Any:
    path = REPOSITORY / "dags" / "outcomes.py"
    spec = importlib.util.spec_from_file_location("outcomes_dag", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reported.operator.dag


def test_the_report_comes_before_the_alert_that_names_it(dag: Any) -> None:
    assert dag.get_task("alert").upstream_task_ids == {"is_current", "report"}
    assert dag.get_task("report").upstream_task_ids == {"compute"}


@pytest.mark.parametrize(
    ("run_type", "days", "alarms"),
    [
        ("scheduled", {"from": None, "to": None}, True),
        ("manual", {}, True),
        ("manual", {"from": "2026-03-10", "to": None}, False),
        ("manual", {"from": None, "to": "2026-03-10"}, False),
        ("backfill", {}, False),
    ],
)
def test_neither_a_backfill_nor_past_days_alarm_anybody(
    dag: Any, run_type: str, days: dict[str, Any], alarms: bool
) -> None:
    is_current = dag.get_task("is_current").python_callable
    assert is_current(days, SimpleNamespace(run_type=run_type)) == alarms
