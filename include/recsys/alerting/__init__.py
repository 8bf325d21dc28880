"""Alerts: to the log, by mail and to Slack, once, and with a notice when it is over."""

from recsys.alerting.heartbeat import send_heartbeat
from recsys.alerting.manager import AlertManager
from recsys.alerting.message import Alert, Channel, Severity, Texts
from recsys.alerting.runs import RunEvent, send_pipeline_alert

__all__ = [
    "Alert",
    "AlertManager",
    "Channel",
    "RunEvent",
    "Severity",
    "Texts",
    "send_heartbeat",
    "send_pipeline_alert",
]
