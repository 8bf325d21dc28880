"""Alerts: to the log, by mail and to Slack, once, and with a notice when it is over."""

from recsys.alerting.manager import AlertManager
from recsys.alerting.pipeline_events import send_pipeline_alert
from recsys.alerting.severity import Channel, Severity

__all__ = ["AlertManager", "Channel", "Severity", "send_pipeline_alert"]
