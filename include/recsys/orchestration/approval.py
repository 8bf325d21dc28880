"""A person's approval before a model is swapped in: Airflow's human-in-the-loop operator."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseNotifier, Context

from recsys.orchestration.callbacks import task_failed
from recsys.orchestration.jobs import failure_of
from recsys.settings import load_settings

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
        job.ask_for_approval(load_settings(), _plan(context), link)


def approval_task(hours: float) -> ApprovalOperator:
    """The task `approve`: waits for an answer for so many hours.

    A rejection is not tried again, or the same question would be asked a second time.
    """
    return ApprovalOperator(
        task_id="approve",
        subject="Deploy {{ ti.xcom_pull(task_ids='check_gate')['model_id'] }}?",
        body=BODY,
        response_timeout=timedelta(hours=hours),
        fail_on_reject=True,
        notifiers=[ApprovalNotice()],
        retries=0,
        on_failure_callback=[not_approved, task_failed],
    )


def not_approved(context: Context) -> None:
    """The approval was refused or did not come: called in the worker."""
    from recsys.deployment import job

    job.record_no_approval(
        load_settings(), _plan(context), _reason(context), failure_of(context["dag_run"])
    )


def _plan(context: Context) -> dict[str, Any]:
    return dict(context["ti"].xcom_pull(task_ids="check_gate"))


def _reason(context: Context) -> str:
    error, task = context.get("exception"), context["task"]
    if isinstance(error, HITLRejectException) and isinstance(task, ApprovalOperator):
        who = task.hitl_summary["responded_by_user"] or {}
        return f"{who.get('name', 'somebody')} rejected it"
    if isinstance(error, HITLTimeoutError):
        return "nobody answered in time whether it may be deployed"
    return f"the approval failed: {error or 'it was ended from outside'}"
