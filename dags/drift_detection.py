"""
### drift_detection: last week against its reference

**Does**: compares the last full week (Monday to Sunday, local time) with the weeks before it:
ratings, popularity, volume, customers, campaigns, comments, kinds of products, and how well the
model predicted the week. Writes the report, alerts, and asks for a training when it is serious.

**Reads** `data/processed`, `data/embeddings`, `artifacts/cf`. **Writes**
`reports/drift/drift_report_YYYYMMDD.json` and `.html` (dated by the Monday after the week),
`reports/drift/last_retrain.json`.

**Then**: high severity sends a critical alert and triggers `model_training` with the report as
its reason (once per cool-down, unless `retrain_on_drift: false`); medium sends a warning.
A backfill only writes reports: last year's drift alarms nobody and trains nothing.

**When it fails**: `detect` failed: no data version is published (run `data_refresh`), or
`config/drift.yaml` is wrong; the message names the key. `trigger_training` failed: start
`model_training` by hand, the reason is in the log. What each check means: `docs/drift.md`.
"""

from typing import Any, cast

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, TriggerRule, chain, task

from recsys.orchestration.jobs import Area, job_dag, no_retry_on_bad_input

with job_dag(
    "drift_detection",
    __doc__,
    area=Area.MODELS,
    params={
        "reference_days": Param(
            None,
            type=["null", "integer"],
            minimum=28,
            title="Days to compare with",
            description="Length of the reference; empty: reference_weeks of config/drift.yaml",
        )
    },
):

    @task
    @no_retry_on_bad_input
    def detect(params: dict[str, Any] | None = None, **context: Any) -> dict[str, Any]:
        from recsys.drift.job import detect_drift
        from recsys.schedule import interval_of
        from recsys.settings import load_settings

        days = (params or {}).get("reference_days")
        return detect_drift(load_settings(), interval_of(context), days)

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def is_current(dag_run: Any = None) -> bool:
        return bool(dag_run.run_type != "backfill")

    @task
    @no_retry_on_bad_input
    def alert(summary: dict[str, Any]) -> dict[str, Any]:
        from recsys.drift.job import alert_on_drift
        from recsys.settings import load_settings

        return alert_on_drift(load_settings(), summary)

    @task
    @no_retry_on_bad_input
    def decide_on_training(summary: dict[str, Any]) -> str | None:
        from datetime import UTC, datetime

        from recsys.drift.job import reason_to_retrain
        from recsys.settings import load_settings

        return reason_to_retrain(load_settings(), summary, datetime.now(UTC))

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def training_is_due(reason: str | None) -> bool:
        return reason is not None

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def summarise(
        summary: dict[str, Any], alerted: dict[str, Any] | None, reason: str | None
    ) -> dict[str, Any]:
        return summary | {"alerted": alerted, "retrain_reason": reason}

    detected = detect()
    found = cast("dict[str, Any]", detected)
    alerted, reason = alert(found), decide_on_training(found)
    trigger_training = TriggerDagRunOperator(
        task_id="trigger_training",
        trigger_dag_id="model_training",
        trigger_run_id="drift__{{ ti.xcom_pull(task_ids='detect')['report_date'] }}",
        conf={"reason": reason},
        skip_when_already_exists=True,
    )
    summary = summarise(found, cast("dict[str, Any]", alerted), cast("str", reason))
    chain(detected, is_current(), [alerted, reason])
    chain(training_is_due(cast("str", reason)), trigger_training, summary)
