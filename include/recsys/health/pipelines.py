"""Do the jobs succeed?"""

from typing import Any

from recsys.alerting import Severity
from recsys.config import load_config
from recsys.health.config import HealthConfig
from recsys.health.verdict import Problem, verdict
from recsys.schedule import load_schedule
from recsys.settings import Settings, load_settings
from recsys.tracking import PipelineTracker


def check_pipeline_health(settings: Settings | None = None) -> dict[str, Any]:
    """Unhealthy if the success rate of any pipeline in the window is below one half.

    So does an entry of ``scheduler_config.json`` that cannot be used: its job never runs.

    Runs that were abandoned (see ``pipeline.max_running_hours``) are closed first, so that a
    pipeline is not taken for running for ever.

    Returns
    -------
    dict
        ``healthy``, ``closed_runs``, ``period_days``, ``stats_by_pipeline`` (as
        `PipelineTracker.get_stats`); when unhealthy ``error`` and ``severity``.
    """
    settings = settings or load_settings()
    config = load_config(settings, HealthConfig).pipeline
    tracker = PipelineTracker(settings.pipeline_db)
    closed = tracker.cleanup_stale_runs(config.max_running_hours)
    stats = tracker.get_stats(config.window_days)
    problems = [
        Problem(
            Severity.CRITICAL,
            f"{name}: {one['failed']} of {one['success'] + one['failed']} runs of the last"
            f" {config.window_days} days failed",
        )
        for name, one in stats["stats_by_pipeline"].items()
        if one["success_rate"] is not None and one["success_rate"] < config.min_success_rate
    ]
    problems += [
        Problem(Severity.CRITICAL, f"{job} does not run: {sentence}")
        for job, sentence in load_schedule(settings).problems.items()
    ]
    return verdict(problems, closed_runs=closed, **stats)
