"""The example of docs/adding-a-job.md, run as it stands on the page."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.data.sample import write_sample_shop
from recsys.refresh import run_refresh
from recsys.settings import REPOSITORY
from tests.data.shop import interval
from tests.live_stack import make_home, wait_for, wait_for_end

pytestmark = [pytest.mark.boots, pytest.mark.timeout(600)]

PAGE = (REPOSITORY / "docs" / "adding-a-job.md").read_text(encoding="utf-8")
BLOCKS = [code for _, code in re.findall(r"```(python|json)\n(.*?)```", PAGE, re.DOTALL)]


def test_the_example_job_runs_through_airflow_and_is_mirrored(
    stopped_afterwards: Path, tmp_path: Path
) -> None:
    work, dag, schedule, pool = BLOCKS
    live = make_home(stopped_afterwards)
    write_sample_shop(live.settings, reviews=3000)
    run_refresh(live.settings, interval())
    config = live.settings.home / "config"
    config.mkdir()
    (config / "scheduler_config.json").write_text(json.dumps({"jobs": json.loads(schedule)}))
    (config / "pools.json").write_text(pool)
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "stock_report.py").write_text(dag)
    # The page puts the module into include/recsys; here another folder joins that package.
    (tmp_path / "recsys").mkdir()
    (tmp_path / "recsys" / "stock.py").write_text(work)
    (tmp_path / "sitecustomize.py").write_text(
        f"import recsys\nrecsys.__path__.append({str(tmp_path / 'recsys')!r})\n"
    )
    variables = {"AIRFLOW__CORE__DAGS_FOLDER": str(dags), "PYTHONPATH": str(tmp_path)}
    live = replace(live, env={**live.env, **variables})
    started = live.recsys("scheduler", "start")
    assert started.returncode == 0, started.stderr

    client = live.client
    wait_for(lambda: set(client.dags()) == {"stock_report"}, 60, "the DAG")
    client.unpause("stock_report")
    assert wait_for_end(client, "stock_report", client.trigger("stock_report")) == "success"

    report = json.loads((live.settings.reports / "stock.json").read_text())
    assert report["products"] > 0
    run = wait_for(
        lambda: live.tracker.get_recent_runs("stock_report", status="success"), 10, "the mirror"
    )[0]
    assert run["metadata"]["summary"]["report"] == report
    assert live.recsys("stats").stdout.count("stock_report") == 1
