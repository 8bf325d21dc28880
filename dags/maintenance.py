"""
### maintenance: keep the disk from filling up

**Does**, weekly: removes models that are old and that neither the registry's selection, the
service nor the last deployments name; data versions beyond retention that nothing refers to;
quarantine files, scratch folders and temporary files of dead runs; old embedding sets and comment
scorers; old reports, rotated logs, task logs; old rows of the request log and of the record of
runs; old records of Airflow (`airflow db clean`). The summary says what went and how many bytes
that freed. With `dry_run` nothing goes.

**Reads** `config/maintenance.yaml` and the retention keys of `data.yaml`, `content.yaml`,
`comments.yaml` and `serving.yaml`. **Removes** only inside the state root; a linked folder that
leads elsewhere fails its step before anything is removed.

**When it fails** the other steps have done their work all the same; it is safe to run it again.
`clean_models`: the registry or the deployment history is damaged (the message names the file), so
nobody knows which models are in use; repair it, see docs/operations.md. *leads to ... outside of
the state root*: a folder is a link to another place; mount the place there instead. `clean_airflow`
*database is locked*: Airflow was busy for long; run it again. More: docs/operations.md.
"""

from typing import Any

from airflow.sdk import Param, TriggerRule, task

from recsys.orchestration.jobs import Area, job_dag, no_retry_on_bad_input
from recsys.settings import load_settings

with job_dag(
    "maintenance",
    __doc__,
    area=Area.UPKEEP,
    params={
        "dry_run": Param(
            False, type="boolean", title="Dry run", description="Only say what would go"
        )
    },
):
    # In the pool of the job that writes the registry: the two never write it at the same time.
    @task(pool="model_training")
    @no_retry_on_bad_input
    def clean_models(params: Any = None) -> dict[str, Any]:
        from recsys.upkeep import job

        return job.clean_models(load_settings(), dry_run=params["dry_run"])

    # A removed model frees its data version; a failed step before does not stop this one. In the
    # pool of the job that publishes versions: none is removed while one is being built.
    @task(pool="data_refresh", trigger_rule=TriggerRule.ALL_DONE)
    @no_retry_on_bad_input
    def clean_data(params: Any = None) -> dict[str, Any]:
        from recsys.upkeep import job

        return job.clean_data(load_settings(), dry_run=params["dry_run"])

    @task
    @no_retry_on_bad_input
    def clean_records(params: Any = None) -> dict[str, Any]:
        from recsys.upkeep import job

        return job.clean_records(load_settings(), dry_run=params["dry_run"])

    @task
    @no_retry_on_bad_input
    def clean_airflow(params: Any = None) -> dict[str, Any]:
        from recsys.upkeep import job

        return job.clean_airflow(load_settings(), dry_run=params["dry_run"])

    @task
    def summarise(parts: Any, params: Any = None) -> dict[str, Any]:
        from recsys.upkeep import job

        return job.summarise(parts, dry_run=params["dry_run"])

    models, data = clean_models(), clean_data()
    models >> data
    summarise([models, data, clean_records(), clean_airflow()])
