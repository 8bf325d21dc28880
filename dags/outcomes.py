"""
### outcomes: what became of the lists that the service gave

**Does**: takes the served lists over into their days, finds the list that each click, cart and
purchase belongs to, and counts, for every day whose lists or events are not what they were. Then
it writes the report of the last 28 days, and alerts: a rate that fell by more than chance, tracking
that fell silent, lists that were lost. `judge_experiments` says what the running experiments show,
and stops what breaks a guardrail.

**Reads** `data/served`, the events of all sources and of the service; once a day, where lists
explore, the models of the registry, to estimate what they would have earned. **Writes**
`data/outcomes`, the table `daily_outcomes` in `logs/outcome_metrics.db`,
`reports/outcomes/outcomes_YYYYMMDD.json` and its pages, those of `reports/experiments`.

**From, to**: local days to make again, whatever they were made of. Such a run, and a backfill,
which makes the days of its interval, alarms nobody.

**When it fails**: `compute` or `report` failed: the message names the file that cannot be read, or
the key of `config/outcomes.yaml`. Damaged files of a day are made again by the next run, damaged
served lists are set aside, with an alert. Nothing is lost meanwhile: lists and events wait. What
the figures mean: `docs/outcomes.md`.
"""

from typing import Any, cast

from airflow.sdk import Param, task

from recsys.orchestration import assets
from recsys.orchestration.jobs import Area, job_dag, no_retry_on_bad_input


def day(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], format="date", title=title, description=description)


with job_dag(
    "outcomes",
    __doc__,
    area=Area.DATA,
    params={
        "from": day("From", "First day to make again, such as 2026-03-10"),
        "to": day("To", "Last day to make again; empty: the first"),
    },
):

    @task(inlets=[assets.SERVED_MODEL], outlets=[assets.OUTCOMES])
    @no_retry_on_bad_input
    def compute(params: dict[str, Any] | None = None, **context: Any) -> dict[str, Any]:
        from recsys.outcomes.job import compute_outcomes
        from recsys.schedule import interval_of
        from recsys.settings import load_settings

        days = params or {}
        summary = compute_outcomes(
            load_settings(),
            interval_of(context),
            first=days.get("from"),
            last=days.get("to"),
            is_backfill=context["dag_run"].run_type == "backfill",
        )
        assets.announce(assets.OUTCOMES, assets.outcome_facts(summary))
        return summary

    @task
    @no_retry_on_bad_input
    def report(summary: dict[str, Any]) -> dict[str, Any]:
        from datetime import date

        from recsys.outcomes.report import write_outcome_report
        from recsys.settings import load_settings

        return write_outcome_report(load_settings(), date.fromisoformat(summary["day"]))

    @task.short_circuit
    def is_current(params: dict[str, Any] | None = None, dag_run: Any = None) -> bool:
        days = params or {}
        return dag_run.run_type != "backfill" and not (days.get("from") or days.get("to"))

    @task
    @no_retry_on_bad_input
    def alert(reported: dict[str, Any], **context: Any) -> dict[str, Any]:
        from recsys.outcomes.job import alert_on_outcomes
        from recsys.schedule import interval_of
        from recsys.settings import load_settings

        return alert_on_outcomes(load_settings(), interval_of(context), reported["page"])

    @task
    @no_retry_on_bad_input
    def judge_experiments(**context: Any) -> dict[str, Any]:
        from recsys.experiments.evaluation import evaluate
        from recsys.schedule import interval_of
        from recsys.settings import load_settings

        return evaluate(load_settings(), interval_of(context).end)

    reported = report(cast("dict[str, Any]", compute()))
    current = is_current()
    reported >> current >> [alert(cast("dict[str, Any]", reported)), judge_experiments()]
