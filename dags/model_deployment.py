"""
### model_deployment: bring the best model into service

**Does**: `check_gate` takes the registry's current best (or param `model_id`, or with `rollback`
the model that the serving one replaced) and refuses it if it is archived, damaged, or more than
the configured margin worse than the serving model (`force` lets it pass). `deploy` reloads the
service, makes three checks (`health_check`, `model_id_match`, `recommendations_work`) and on any
failure restores the previous model. `dry_run` stops before anything changes. If the model serves
already, or the current best is held, because a person went back or named another model, what
serves is only verified. With `require_approval` in the configuration, `approve` waits for a person
before that, but not before a rollback.

**Reads** `artifacts/cf/registry.json`, the service at `RECSYS_SERVICE_URL`. **Writes**
`logs/deployment_history.json`. **Options**: `config/deployment.yaml`.

**When it fails** a critical alert says why, and the history says what was done; what serves now is
in `GET /health` of the service. `check_gate`: nothing was changed; the message names the model and
the reason. `approve`: somebody rejected the model, or nobody answered in time; to be asked again,
run the job again. `deploy`, status `rolled_back`: the previous model serves; look at the named
check and at `logs/service/recommender.log` before deploying that model again. Status `failed` with
"could NOT be restored": the service needs you now: restart it, then run this with `rollback`.
"Administration is switched off" or "needs the admin token": `RECSYS_ADMIN_TOKEN` differs between
Airflow and the service. See docs/deployment.md.
"""

from typing import Any, cast

from airflow.sdk import Param, TriggerRule, task

from recsys.config import load_config
from recsys.deployment import DeploymentConfig
from recsys.orchestration import assets
from recsys.orchestration.choices import model_ids
from recsys.orchestration.jobs import Area, failure_of, job_dag, no_retry_on_bad_input
from recsys.settings import load_settings


def option(title: str, description: str) -> Param:
    return Param(False, type="boolean", title=title, description=description)


with job_dag(
    "model_deployment",
    __doc__,
    area=Area.SERVICE,
    params={
        "model_id": Param(
            None,
            type=["null", "string"],
            examples=model_ids(load_settings()),
            title="Model",
            description="Empty: the current best. The newest are offered; any id may be typed",
        ),
        "rollback": option("Roll back", "Back to the model before this one"),
        "dry_run": option("Dry run", "Only say what would be done"),
        "force": option("Even if worse", "Deploy even a worse model"),
    },
):

    @task
    @no_retry_on_bad_input
    def check_gate(params: dict[str, Any] | None = None, dag_run: Any = None) -> dict[str, Any]:
        from recsys.deployment import job

        return job.check_gate(load_settings(), params or {}, failure_of(dag_run))

    @task(inlets=[assets.SELECTED_MODEL], outlets=[assets.SERVED_MODEL])
    @no_retry_on_bad_input
    def deploy(
        plan: dict[str, Any],
        params: dict[str, Any] | None = None,
        dag_run: Any = None,
        ti: Any = None,
    ) -> dict[str, Any]:
        from recsys.deployment import job

        # Airflow may have begun the run before it read that a person has to be asked.
        approved = ti.xcom_pull(task_ids="ask_if_needed") is not None
        summary = job.bring_into_service(
            load_settings(), plan, params or {}, failure_of(dag_run), approved=approved
        )
        assets.announce(assets.SERVED_MODEL, assets.deployment_facts(summary))
        return summary

    plan = cast("dict[str, Any]", check_gate())
    done = deploy.override(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)(plan)
    config = load_config(load_settings(), DeploymentConfig)
    if config.require_approval:
        from recsys.orchestration.approval import DeploymentApproval

        @task.branch
        def ask_if_needed(plan: dict[str, Any], params: dict[str, Any] | None = None) -> str:
            from recsys.deployment import job

            return "approve" if job.needs_approval(plan, params or {}) else "deploy"

        approve = DeploymentApproval(task_id="approve", hours=config.approval_hours)
        ask_if_needed(plan) >> [approve, done]
        approve >> done
