"""What Airflow calls when a task or run fails or a run misses its deadline."""

import logging
from typing import Any

from airflow.sdk import Context

logger = logging.getLogger(__name__)


def task_failed(context: Context) -> None:
    """Called in the worker after a task's last try."""
    logger.error("Task failed | task=%s", context.get("task_instance"))


def run_failed(context: Context) -> None:
    """Called by the dag-processor when a run failed or timed out."""
    logger.error("Run failed | run=%s, reason=%s", context.get("run_id"), context.get("reason"))


def deadline_missed(**kwargs: Any) -> None:
    """Called in a process of its own when a run is not done at its deadline."""
    logger.error("Deadline missed | %s", kwargs.get("context"))
