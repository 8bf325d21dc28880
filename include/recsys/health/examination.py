"""All findings of a health check put together: alerts, report, summary."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from recsys.alerting import Alert, AlertManager, Severity, send_heartbeat
from recsys.config import load_config
from recsys.errors import InputError, RequestError
from recsys.health.config import HealthConfig
from recsys.health.data import check_data_health
from recsys.health.days import note_days
from recsys.health.model import check_model_health
from recsys.health.pipelines import check_pipeline_health, report_silence
from recsys.health.reports import report_retention, write_report
from recsys.health.service import check_service_health, judged, service_metrics
from recsys.health.verdict import Finding, verdict
from recsys.retention import Removal
from recsys.settings import Settings

COMPONENTS: Final[dict[str, Callable[[Settings], dict[str, Any]]]] = {
    "service": check_service_health,
    "data": check_data_health,
    "model": check_model_health,
    "pipeline": check_pipeline_health,
}
_BROKEN: Final = Finding("the check itself broke; see the log of its task")

logger = logging.getLogger(__name__)


class BrokenCheckError(RuntimeError):
    """A check did not come to a result: nothing is known about its component."""


def evaluate(
    settings: Settings,
    results: Mapping[str, Mapping[str, Any] | None],
    component: str | None = None,
    *,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Alert for what is wrong, resolve what is right again, write the report.

    `results` is what the checks returned, by component; None for a check that broke. The report of
    one `component` alone does not become ``latest.json``. Returns ``status`` (``healthy``,
    ``warning`` or ``critical``), ``unhealthy`` (components), ``alerts`` (names of broken rules),
    ``overdue_jobs``, ``redelivered``, ``heartbeat`` (``sent``, ``failed``, ``not set up``, or
    ``withheld``: not all is well, or not all was looked at), ``report`` (its path below the state
    root).

    Raises `InputError` if the component is unknown, and `BrokenCheckError` after everything else is
    done, if a check broke."""
    now = now or datetime.now(UTC)
    chosen = _chosen(component)
    broken = [name for name in chosen if results.get(name) is None]
    checks = {name: results.get(name) or verdict([_BROKEN], broken=True) for name in chosen}
    manager = AlertManager(settings)
    for name, result in checks.items():
        _tell(manager, name, result)
    about = {"generated_at": now.isoformat(), "component": component}
    report: dict[str, Any] = about | {"checks": checks}
    if component in (None, "service"):
        with _noting(broken, "traffic"):
            config = load_config(settings, HealthConfig).metrics
            metrics = service_metrics(settings, config, now)
            alerts = manager.check_alert_conditions(judged(metrics, config.min_requests))
            report |= {"metrics": metrics, "alerts": alerts}
            if component is None:
                note_days(settings, now, results.get("data"))
    if component in (None, "pipeline"):
        with _noting(broken, "silence"):
            report["overdue_jobs"] = report_silence(settings, manager, now)
    report["broken"] = broken
    report["status"] = _overall(report)
    report["redelivered"] = manager.retry_undelivered()
    path = write_report(settings, report, now, full=component is None)
    Removal(settings).execute([report_retention(settings)])
    heartbeat = _beat(manager, report)
    if broken:
        raise BrokenCheckError(f"the {' and '.join(broken)} check broke; the report is {path.name}")
    return {
        "status": report["status"],
        "unhealthy": [name for name, result in checks.items() if not result["healthy"]],
        "alerts": [alert["alert_name"] for alert in report.get("alerts", [])],
        "overdue_jobs": sorted(report.get("overdue_jobs", {})),
        "redelivered": report["redelivered"],
        "heartbeat": heartbeat,
        "report": str(path.relative_to(settings.home)),
    }


def _beat(manager: AlertManager, report: Mapping[str, Any]) -> str:
    """Tell the dead-man's switch that everything was looked at and all is well."""
    well = report["component"] is None and report["status"] == "healthy"
    return send_heartbeat(manager) if well else "withheld"


def examine(settings: Settings, component: str | None = None) -> dict[str, Any]:
    """Check and evaluate here, without Airflow. Returns and raises as `evaluate`."""
    results: dict[str, dict[str, Any]] = {}
    for name in _chosen(component):
        with _noting([], name):
            results[name] = COMPONENTS[name](settings)
    return evaluate(settings, results, component)


def _chosen(component: str | None) -> tuple[str, ...]:
    if component is not None and component not in COMPONENTS:
        known = ", ".join(COMPONENTS)
        raise RequestError(f"component {component!r} is unknown; expected one of {known}")
    return tuple(COMPONENTS) if component is None else (component,)


@contextlib.contextmanager
def _noting(broken: list[str], part: str) -> Iterator[None]:
    """Let a part of the evaluation break without taking the rest along."""
    try:
        yield
    except InputError:
        raise
    except Exception:
        logger.exception("A part of the health check broke | part=%s", part)
        broken.append(part)


def _overall(report: Mapping[str, Any]) -> str:
    """The worst of the checks, of the broken rules, of silence, and of what is not known."""
    unhealthy = [one for one in report["checks"].values() if not one["healthy"]]
    found = [one["severity"] for one in (*unhealthy, *report.get("alerts", []))]
    if report.get("overdue_jobs") or report["broken"]:
        found.append(Severity.CRITICAL)
    bad = [severity for severity in map(Severity, found) if severity != Severity.INFO]
    return max(bad, key=lambda one: one.rank).value if bad else "healthy"


def _tell(manager: AlertManager, component: str, result: Mapping[str, Any]) -> None:
    """One alert for a component, and its end. A broken check is told by its failed task."""
    name = f"{component}_unhealthy"
    if result["healthy"]:
        message, blanks = f"the {component} check passes again", {"component": component}
        manager.resolve(name, message, text="healthy_again", blanks=blanks)
    elif not result.get("broken"):
        problem = result["error"]
        alert = Alert(
            name,
            problem,
            Severity(result["severity"]),
            text="unhealthy_text",
            headline="unhealthy",
            facts={"component": component, "error": problem},
        )
        manager.deliver(alert)
