"""What the service did lately, from ``logs/service_metrics.db``."""

from datetime import datetime, timedelta
from typing import Any, Final

from recsys.config import load_config
from recsys.health.config import HealthConfig
from recsys.health.service import TRIAL_USER
from recsys.request_log import read_traffic
from recsys.settings import Settings

RATES: Final = ("avg_latency_ms", "p95_latency_ms", "error_rate", "fallback_rate")


def service_metrics(settings: Settings, now: datetime) -> dict[str, Any]:
    """Requests of the last ``metrics.window_minutes`` before `now`, without the health check's.

    Returns
    -------
    dict
        ``window_minutes``, ``requests`` and ``requests_per_minute`` (None if the service never
        wrote a request); ``avg_latency_ms``, ``p95_latency_ms`` (nearest rank), ``error_rate``
        (the service's own failures: a caller's bad request is none) and ``fallback_rate`` (of
        the requests that can have one), each None without requests.
    """
    minutes = load_config(settings, HealthConfig).metrics.window_minutes
    since = now - timedelta(minutes=minutes)
    found = read_traffic(settings.service_db, since, now, TRIAL_USER)
    if found is None:
        return {"window_minutes": minutes} | dict.fromkeys(
            ("requests", "requests_per_minute", *RATES)
        )
    return {
        "window_minutes": minutes,
        "requests": found["requests"],
        "requests_per_minute": round(found["requests"] / minutes, 3),
        **{name: _rounded(found[name]) for name in RATES},
    }


def judged(metrics: dict[str, Any], min_requests: int) -> dict[str, float | None]:
    """The metrics that rules may be held against: rates of too few requests are unknown."""
    known = {name: value for name, value in metrics.items() if name != "window_minutes"}
    if (metrics["requests"] or 0) < min_requests:
        known |= dict.fromkeys(RATES)
    return known


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
