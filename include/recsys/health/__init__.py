"""Health: four checks, the service's traffic, jobs that fell silent, and a report."""

from recsys.health.data import check_data_health
from recsys.health.examination import evaluate, examine
from recsys.health.model import check_model_health
from recsys.health.pipelines import check_pipeline_health
from recsys.health.reports import report_is_overdue, watch_reports
from recsys.health.service import check_service_health

__all__ = [
    "check_data_health",
    "check_model_health",
    "check_pipeline_health",
    "check_service_health",
    "evaluate",
    "examine",
    "report_is_overdue",
    "watch_reports",
]
