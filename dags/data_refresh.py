"""
### data_refresh: raw files and staged events -> a new version of `data/processed`

**Does**: `ingest` reads every raw row that is earlier than the end of the run's data interval,
checks it, and compares it with the previous version. Nothing new: no version. Up to
`incremental_limit` new interactions: they are merged with the previous version's, whose comments
keep their scorer. More, or `force_full`: a new scorer may be trained. Then `score_comments` scores
what no scorer has seen, and `publish` writes a whole new version and moves one link to it.

**Reads** the source of `config/data.yaml` (or of `data/source.json`), `data/staging`.
**Writes** `data/versions/<version_id>/`, `data/quarantine/<version_id>.csv`, the link
`data/processed`, and `reports/data_quality/<version_id>.html`.

**Then**: `find_new_texts` triggers `bert_embeddings` if the published version has products with new
or changed texts, so that what was launched tonight is searchable and placed among its like at once;
not for a backfill or a dry run, nor if that job is switched off.

**When it fails**: nothing was published, the previous version stays. The message of the failed task
says which file or how many rows were bad; the rows are in `data/quarantine`. *More than
max_invalid_fraction*: have the export corrected, or the source's description in `config/sources`.
*Fewer rows than before*: a file was truncated; if it is meant, run with `force_full`. Killed or
timed out: run it again, every step can be repeated. A run for an earlier day (backfill) writes that
day's version and never moves `data/processed` backwards. Only `report_quality` or
`find_new_texts` failed: the version is published; run that task again.
"""

from typing import Any, cast

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, task

from recsys.orchestration import assets
from recsys.orchestration.jobs import Area, job_dag, no_retry_on_bad_input

with job_dag(
    "data_refresh",
    __doc__,
    area=Area.DATA,
    params={
        "force_full": Param(
            False,
            type="boolean",
            title="All afresh",
            description="Build everything afresh, whatever is new",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Show the plan and the numbers, change nothing",
        ),
    },
):

    @task(outlets=[assets.RAW_DROP])
    @no_retry_on_bad_input
    def ingest(params: Any = None, run_id: Any = None, **context: Any) -> dict[str, Any]:
        from recsys.refresh import ingest, open_workspace
        from recsys.schedule import interval_of
        from recsys.settings import load_settings

        settings = load_settings()
        with open_workspace(settings, run_id) as work:
            summary = ingest(
                settings,
                work,
                interval_of(context),
                force_full=params["force_full"],
                dry_run=params["dry_run"],
            )
        assets.announce(assets.RAW_DROP, assets.drop_facts(settings, summary))
        return summary

    @task
    @no_retry_on_bad_input
    def score_comments(run_id: Any = None) -> dict[str, Any]:
        from recsys.refresh import open_workspace, score_comments
        from recsys.settings import load_settings

        settings = load_settings()
        with open_workspace(settings, run_id) as work:
            return score_comments(settings, work)

    @task(inlets=[assets.RAW_DROP], outlets=[assets.DATA_VERSION])
    @no_retry_on_bad_input
    def publish(run_id: Any = None) -> dict[str, Any]:
        from recsys.refresh import open_workspace, publish
        from recsys.settings import load_settings

        settings = load_settings()
        with open_workspace(settings, run_id) as work:
            summary = publish(settings, work)
        assets.announce(assets.DATA_VERSION, assets.version_facts(summary))
        return summary

    @task
    @no_retry_on_bad_input
    def report_quality(summary: dict[str, Any]) -> dict[str, Any]:
        from recsys.quality import report_after_publishing
        from recsys.settings import load_settings

        return report_after_publishing(load_settings(), summary)

    @task.short_circuit
    @no_retry_on_bad_input
    def find_new_texts(summary: dict[str, Any], dag_run: Any = None) -> int:
        from recsys.content.job import count_new_texts
        from recsys.schedule import load_schedule
        from recsys.settings import load_settings

        settings = load_settings()
        is_current = summary["published"] and dag_run.run_type != "backfill"
        wanted = is_current and load_schedule(settings).job("bert_embeddings").enabled
        return count_new_texts(settings) if wanted else 0

    published = publish()
    summary = cast("dict[str, Any]", published)
    ingest() >> score_comments() >> published
    report_quality(summary)
    find_new_texts(summary) >> TriggerDagRunOperator(
        task_id="trigger_embeddings",
        trigger_dag_id="bert_embeddings",
        trigger_run_id="texts__{{ ti.xcom_pull(task_ids='publish')['version_id'] }}",
        skip_when_already_exists=True,
        priority_weight=2,  # before the report, which takes the one slot for seconds
    )
