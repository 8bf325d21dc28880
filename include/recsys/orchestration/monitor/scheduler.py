"""What Airflow's own database says: which DAGs are paused, which questions wait for a person."""

from datetime import datetime
from typing import Final, NamedTuple

MOST_QUESTIONS: Final = 20


class Question(NamedTuple):
    """A task that waits until a person has answered; `subject` is what it asks, in its words."""

    job: str
    run_id: str
    task_id: str
    map_index: int
    subject: str
    asked_at: datetime


class Scheduler(NamedTuple):
    """The DAGs that nobody has unpaused, and the questions, the oldest first."""

    paused: set[str]
    questions: list[Question]


def ask_airflow() -> Scheduler:
    """Two short reads; nothing is locked or written."""
    from airflow.models.dag import DagModel
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from airflow.utils.state import State
    from sqlalchemy import select

    unfinished = [state for state in State.unfinished if state is not None]
    about = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    waiting = (
        select(*about, HITLDetail.subject, HITLDetail.created_at)
        .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
        .where(HITLDetail.responded_at.is_(None), TaskInstance.state.in_(unfinished))
        .order_by(HITLDetail.created_at)
        .limit(MOST_QUESTIONS)
    )
    with create_session(scoped=False) as session:
        paused = set(session.scalars(select(DagModel.dag_id).where(DagModel.is_paused)))
        questions = [Question(*row) for row in session.execute(waiting)]
    return Scheduler(paused, questions)
