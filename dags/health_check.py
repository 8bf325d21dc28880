"""
### health_check: look after everything, every hour

**Does**: first repairs the record of runs from Airflow's own (`reconcile_runs`). Then four checks
side by side: the service answers and recommends, the published data and the selected model are
complete and unchanged, the pipelines succeed. `evaluate` alerts for what is wrong and announces
what is right again, holds the service's last hour against the rules of
`config/alerts_config.yaml`, looks for jobs that should have succeeded and have not, tries again to
deliver alerts that a channel refused, and writes the report.

**Writes** `reports/health/health_YYYYMMDD_HHMM.json` and `latest.json`. **Options**:
`config/health.yaml`; param `component` checks only one.

**An unhealthy system is a successful run** with an alert: read the report. **When it fails**, a
check broke instead of coming to a result: the log of its task has the traceback, and
the report has what the other checks found. `evaluate` failed: the configuration is bad, the
message names file and key. If no report comes at all, the service sends the alert. See
docs/health.md.
"""

from typing import Any

from airflow.sdk import Param, TriggerRule, task
from airflow.sdk.exceptions import AirflowSkipException

from recsys.orchestration.jobs import Area, job_dag, no_retry_on_bad_input

PROBES = "health_probes"


def skip_unless(component: str, params: dict[str, Any] | None) -> None:
    """Skip the task if another component was asked for."""
    if (params or {}).get("component") not in (None, component):
        raise AirflowSkipException(f"only {(params or {})['component']} was asked for")


with job_dag(
    "health_check",
    __doc__,
    area=Area.SERVICE,
    params={
        "component": Param(
            None,
            type=["null", "string"],
            enum=[None, "service", "data", "model", "pipeline"],
            values_display={
                "service": "the service",
                "data": "the data",
                "model": "the model",
                "pipeline": "the jobs",
            },
            title="Only one component",
            description="Check only this; empty: everything",
        )
    },
):

    @task(retries=0)
    def reconcile_runs() -> dict[str, Any]:
        from recsys.orchestration.mirror import reconcile
        from recsys.settings import load_settings

        return reconcile(load_settings())

    @task(pool=PROBES)
    @no_retry_on_bad_input
    def check_service(params: dict[str, Any] | None = None) -> dict[str, Any]:
        skip_unless("service", params)
        from recsys.health import check_service_health

        return check_service_health()

    @task(pool=PROBES)
    @no_retry_on_bad_input
    def check_data(params: dict[str, Any] | None = None) -> dict[str, Any]:
        skip_unless("data", params)
        from recsys.health import check_data_health

        return check_data_health()

    @task(pool=PROBES)
    @no_retry_on_bad_input
    def check_model(params: dict[str, Any] | None = None) -> dict[str, Any]:
        skip_unless("model", params)
        from recsys.health import check_model_health

        return check_model_health()

    @task(pool=PROBES, trigger_rule=TriggerRule.ALL_DONE)
    @no_retry_on_bad_input
    def check_pipeline(params: dict[str, Any] | None = None) -> dict[str, Any]:
        skip_unless("pipeline", params)
        from recsys.health import check_pipeline_health

        return check_pipeline_health()

    # Whatever became of the checks: one that broke must not hide what the others found. A second
    # try would find the same.
    @task(trigger_rule=TriggerRule.ALL_DONE, retries=0)
    @no_retry_on_bad_input
    def evaluate(
        service: dict[str, Any] | None,
        data: dict[str, Any] | None,
        model: dict[str, Any] | None,
        pipeline: dict[str, Any] | None,
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        from recsys import health
        from recsys.settings import load_settings

        results = {"service": service, "data": data, "model": model, "pipeline": pipeline}
        return health.evaluate(load_settings(), results, (params or {}).get("component"))

    pipeline = check_pipeline()
    reconcile_runs() >> pipeline
    evaluate(check_service(), check_data(), check_model(), pipeline)  # type: ignore[arg-type]
