"""
### model_training: train, evaluate, register, select

**Does**: for each model type (param `model_types`, default from `config/training.yaml`): fits on
the published data version, evaluates once on the held-out test events, fits again on everything
and registers the model. Then selects the best: the highest lower bound of the metric among the
models of this data version that beat all-time popularity.

**Reads** `data/processed`. **Writes** `artifacts/cf/<type>/<model_id>/`,
`artifacts/cf/registry.json`, `logs/training_metrics.db`, `logs/cf/<type>.log`,
`logs/registry_audit.log`.

**When it fails**: `plan` failed: there is no data version, or the configuration or a type is
wrong; the message says which. One `train` failed: read `logs/cf/<type>.log`; the other types are
still selected from. All failed: nothing was selected, the old best keeps serving. `select_best`
never replaces the best by a model that does not pass its gates; its summary says why.
"""

from collections.abc import Iterable
from typing import Any, cast

from airflow.sdk import Param, TriggerRule, task

from recsys.orchestration import assets
from recsys.orchestration.choices import FAMILIES
from recsys.orchestration.jobs import Area, job_dag, no_retry_on_bad_input

with job_dag(
    "model_training",
    __doc__,
    area=Area.MODELS,
    params={
        "model_types": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            examples=list(FAMILIES),
            title="Families",
            description="Families to train; empty: those of config/training.yaml",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            title="Reason",
            description="Why, for the record; drift gives its own",
        ),
    },
):

    @task
    @no_retry_on_bad_input
    def plan(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
        from recsys.settings import load_settings
        from recsys.training.job import plan_training

        return plan_training(load_settings(), (params or {}).get("model_types"))

    @task(map_index_template="{{ model_type }}")
    @no_retry_on_bad_input
    def train(
        model_type: str, version_id: str, params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        from recsys.settings import load_settings
        from recsys.training.job import train_model

        reason = (params or {}).get("reason")
        return train_model(load_settings(), model_type, version_id, reason=reason)

    @task(
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
        inlets=[assets.DATA_VERSION, assets.EMBEDDINGS],
        outlets=[assets.SELECTED_MODEL],
    )
    @no_retry_on_bad_input
    def select_best(trained: Iterable[dict[str, Any]]) -> dict[str, Any]:
        from recsys.settings import load_settings
        from recsys.training.job import select_best

        summary = select_best(load_settings(), [one for one in trained if one])
        assets.announce(assets.SELECTED_MODEL, assets.selection_facts(summary))
        return summary

    select_best(cast("Iterable[dict[str, Any]]", train.expand_kwargs(plan())))
