"""All jobs with tasks that do as the run's conf says, for tests of what watches over jobs."""

import json
import time
from typing import Any

from airflow.sdk import Param, get_parsing_context, task

from recsys.errors import InputError
from recsys.orchestration.jobs import job_dag, no_retry_on_bad_input
from recsys.settings import REPOSITORY


def fill(job: str) -> Any:
    params = {"sleep": Param(0), "rows": Param(1), "bad_input": Param(None)}
    with job_dag(job, f"Stands in for {job}.", params) as dag:

        @task
        @no_retry_on_bad_input
        def work(dag_run: Any = None) -> dict[str, Any]:
            conf = dag_run.conf or {}
            time.sleep(conf.get("sleep", 0))
            if "bad_input" in conf:
                raise InputError(conf["bad_input"])
            return {"rows": conf.get("rows", 1)}

        @task
        def publish(counts: dict[str, Any]) -> dict[str, Any]:
            return {"published": counts["rows"]}

        publish(work())
    return dag


asked = get_parsing_context().dag_id  # a task needs its own alone
for name in json.loads((REPOSITORY / "config" / "scheduler_config.json").read_text())["jobs"]:
    if asked in (None, name):
        globals()[name] = fill(name)
