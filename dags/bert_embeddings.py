"""
### bert_embeddings: product text -> embeddings

**Does**: composes a text for every product (name, brand, category, attributes, description
without the shop's boilerplate), encodes those that are new or changed, and swaps model and
vectors as one by moving the link `data/embeddings/current`. Nothing changed: no new set. With
`force`, or when the settings of the model or the texts changed, or when `refit_share` of the
products is new since the last fit: everything is made afresh.

**Reads** `data/processed`, `config/content.yaml`. **Writes** `data/embeddings/<set_id>/`, which
every data version shows as `content_based_embeddings`.

**When it fails**: the current set stays. *No data version is published*: run `data_refresh`. *The
model cannot be had* (`fallback: strict`): the message says why; fetch it into the cache or switch
`download` on, or let it fall back. A fallback to `catalog-static` does not fail the run: it is a
warning, the alert `embedding_fallback`, and in the set's `manifest.json`. Killed or timed out:
run it again. More: `docs/embeddings.md`.
"""

from typing import Any

from airflow.sdk import Param, task

from recsys.orchestration import assets
from recsys.orchestration.jobs import Area, job_dag, no_retry_on_bad_input

with job_dag(
    "bert_embeddings",
    __doc__,
    area=Area.DATA,
    params={
        "force": Param(
            False, type="boolean", title="All afresh", description="Encode every product again"
        )
    },
):

    @task(inlets=[assets.DATA_VERSION], outlets=[assets.EMBEDDINGS])
    @no_retry_on_bad_input
    def embed(params: Any = None) -> dict[str, Any]:
        from recsys.content.job import build_embeddings
        from recsys.settings import load_settings

        summary = build_embeddings(load_settings(), force=params["force"])
        assets.announce(assets.EMBEDDINGS, assets.embedding_facts(summary))
        return summary

    @task
    @no_retry_on_bad_input
    def alert(summary: Any) -> Any:
        from recsys.content.job import alert_on_fallback
        from recsys.settings import load_settings

        return summary | {"alerted": alert_on_fallback(load_settings(), summary)}

    alert(embed())
