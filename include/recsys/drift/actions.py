"""What follows from a report: whom to tell, and whether to train again."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from recsys.alerting import AlertManager
from recsys.config import load_config
from recsys.drift.config import DriftConfig
from recsys.drift.job import REPORTS_FOLDER
from recsys.publishing import write_json
from recsys.settings import Settings

ALERT_NAME = "data_drift"
_ALERT_SEVERITY = {"medium": "warning", "high": "critical"}
_LAST_RETRAIN = "last_retrain.json"


def alert_on_drift(settings: Settings, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Send the alert that the report of `summary` (see `detect_drift`) asks for.

    High severity is critical, medium a warning; low sends nothing and clears an earlier alert.
    Returns ``alert`` (its severity, None without one) and ``channels``.
    """
    manager = AlertManager(settings)
    severity = _ALERT_SEVERITY.get(str(summary["overall_severity"]))
    week = f"drift report {summary['report_date']}"
    if severity is None:
        manager.resolve(ALERT_NAME, f"Nothing is raised any more in the {week}.")
        return {"alert": None, "channels": {}}
    raised = ", ".join(summary["raised"])
    told = " ".join(summary["recommendations"][: len(summary["raised"])])
    channels = manager.send_alert(
        ALERT_NAME,
        f"Drift of {raised} in the {week}. {told}",
        severity,
        context={"report": summary["report"], "page": summary["page"]},
    )
    return {"alert": severity, "channels": channels}


def reason_to_retrain(settings: Settings, summary: Mapping[str, Any], now: datetime) -> str | None:
    """Why the model must be trained again because of the report, None when it need not.

    A report of high severity is a reason, at most once per cool-down; asking again about the
    same report gives the same answer, so that a repeated task does not lose its training.
    """
    actions = load_config(settings, DriftConfig).actions
    if summary["overall_severity"] != "high" or not actions.retrain_on_drift:
        return None
    state = settings.reports / REPORTS_FOLDER / _LAST_RETRAIN
    last = json.loads(state.read_text(encoding="utf-8")) if state.exists() else None
    if last is not None and last["report_date"] != summary["report_date"]:
        age = now - datetime.fromisoformat(last["decided_at"])
        if age < timedelta(days=actions.retrain_cooldown_days):
            return None
    reason = (
        f"drift report {summary['report_date']} is of high severity "
        f"({', '.join(summary['raised'])}); see {summary['report']}"
    )
    if last is None or last["report_date"] != summary["report_date"]:
        write_json(
            state,
            {
                "report_date": summary["report_date"],
                "decided_at": now.isoformat(timespec="seconds"),
                "reason": reason,
            },
        )
    return reason
