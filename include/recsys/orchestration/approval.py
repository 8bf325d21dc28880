"""A person's approval before a model is swapped in: Airflow's human-in-the-loop operator."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseNotifier, Context
from airflow.sdk.exceptions import AirflowFailException

from recsys.orchestration.jobs import failure_of
from recsys.settings import load_settings

_MODEL = "{{ ti.xcom_pull(task_ids='check_gate')['model_id'] }}"
BODY = """\
{% set plan = ti.xcom_pull(task_ids='check_gate') -%}
Service now: **{{ plan['serving'] or 'no model' }}**. To be deployed: **{{ plan['model_id'] }}**, \
because {{ plan['reason'] }}.
"""


class ApprovalNotice(BaseNotifier):
    """Tells that the run waits, with a link to the page where it is answered."""

    def notify(self, context: Context) -> None:
        from recsys.deployment import job

        link = ApprovalOperator.generate_link_to_ui_from_context(context=context)
        job.ask_for_approval(load_settings(), _plan(context), link, str(context["ti"].id))


class DeploymentApproval(ApprovalOperator):
    """Asks whether what `check_gate` planned may be deployed. A rejection, and no answer in time,
    are written down as a deployment that failed, and not tried again."""

    def __init__(self, *, hours: float, **options: Any) -> None:
        super().__init__(
            subject=f"Deploy {_MODEL}?",
            body=BODY,
            response_timeout=timedelta(hours=hours),
            # Airflow would go on to ask for an answer that nobody can give any more.
            defaults=ApprovalOperator.REJECT,
            fail_on_reject=True,
            notifiers=[ApprovalNotice()],
            **options,
        )

    def execute(self, context: Context) -> Any:
        from recsys.deployment.comparison import in_words, read_comparisons

        plan = _plan(context)
        known = (one for one in read_comparisons(load_settings()) if _is_of(one, plan))
        if comparison := next(known, None):
            self.body = f"{self.body}\n\n{in_words(comparison)}"
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        from recsys.deployment.gate import Swap
        from recsys.deployment.job import record_refusal

        try:
            answer = super().execute_complete(context, event)
            # What Airflow makes of a moment is for programs; this is read by people.
            return {**answer, "responded_at": event["responded_at"].isoformat(timespec="seconds")}
        except (HITLRejectException, HITLTimeoutError):
            reason = "nobody answered in time whether it may be deployed"
            if answered_by := event.get("responded_by_user"):
                reason = f"{answered_by['name']} rejected it"
        failure = failure_of(context["dag_run"])
        record_refusal(load_settings(), Swap(**_plan(context)), reason, failure)
        raise AirflowFailException(reason)


def _is_of(comparison: dict[str, Any], plan: dict[str, Any]) -> bool:
    return all(comparison.get(key) == plan[key] for key in ("serving", "model_id"))


def _plan(context: Context) -> dict[str, Any]:
    return dict(context["ti"].xcom_pull(task_ids="check_gate"))
