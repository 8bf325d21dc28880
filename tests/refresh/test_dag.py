"""The shape of the data_refresh DAG, and when it asks for embeddings."""

import importlib.util
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from recsys.content import ContentConfig
from recsys.content.job import embed_products
from recsys.data.versions import current_version
from recsys.settings import REPOSITORY, Settings
from tests.data.shop import PRODUCTS, refresh, row, write_shop


@pytest.fixture(scope="module")
def module() -> Any:
    path = REPOSITORY / "dags" / "data_refresh.py"
    spec = importlib.util.spec_from_file_location("data_refresh_dag", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dag(module: Any) -> Any:
    return module.published.operator.dag


def test_embeddings_are_asked_for_by_name_once_a_version(dag: Any) -> None:
    trigger = dag.get_task("trigger_embeddings")
    assert trigger.trigger_dag_id == "bert_embeddings"
    assert "version_id" in trigger.trigger_run_id
    assert trigger.upstream_task_ids == {"find_new_texts"}
    assert dag.get_task("find_new_texts").upstream_task_ids == {"publish"}


def test_the_report_waits_for_no_embeddings(dag: Any) -> None:
    assert dag.get_task("report_quality").upstream_task_ids == {"publish"}
    assert {task.task_id for task in dag.leaves} == {"report_quality", "trigger_embeddings"}


@pytest.fixture
def texts_found(
    dag: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Any], str], int]:
    """What `find_new_texts` finds in the state root of the test, without Airflow around it."""
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    step = dag.get_task("find_new_texts").python_callable.__wrapped__

    def find(summary: dict[str, Any], run_type: str) -> int:
        return int(step(summary, dag_run=SimpleNamespace(run_type=run_type)))

    return find


def test_only_a_published_run_with_new_texts_asks_for_them(
    settings: Settings, texts_found: Callable[[dict[str, Any], str], int]
) -> None:
    rows = [row(f"u{number}", number % 9) for number in range(12)]
    write_shop(settings, rows)
    refresh(settings)
    embed_products(settings, ContentConfig(), current_version(settings).products(), "v")
    assert texts_found(refresh(settings), "scheduled") == 0
    write_shop(settings, rows, [*PRODUCTS, "launched,Nước hoa mới,Cocoon,Nước hoa,1,Mô tả"])
    summary = refresh(settings)
    assert texts_found(summary, "scheduled") == 1
    assert texts_found(summary, "manual") == 1
    assert texts_found(summary, "backfill") == 0
    assert texts_found({"published": False, "dry_run": True}, "manual") == 0
    off = {"enabled": False, "cron": "0 3 * * 2", "timeout_minutes": 60}
    jobs = {"jobs": {"bert_embeddings": off}}
    (settings.home / "config").mkdir(exist_ok=True)
    (settings.home / "config" / "scheduler_config.json").write_text(json.dumps(jobs))
    assert texts_found(summary, "scheduled") == 0, "the job is switched off"
