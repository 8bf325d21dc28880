"""What the service did lately, from ``logs/service_metrics.db``."""

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from recsys.config import load_config
from recsys.database import connect
from recsys.health.config import HealthConfig
from recsys.health.service import TRIAL_USER
from recsys.settings import Settings

RATES: Final = ("avg_latency_ms", "p95_latency_ms", "error_rate", "fallback_rate")

# The date's text bounds the index scan, whatever separates date and time; julianday() decides,
# and understands both and an offset from UTC.
_RECENT: Final = (
    " FROM requests WHERE timestamp >= :day AND julianday(timestamp) > julianday(:since)"
    " AND julianday(timestamp) <= julianday(:until) AND user_id IS NOT :trial"
)


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
    empty = {"window_minutes": minutes, "requests": None, "requests_per_minute": None}
    if not settings.service_db.exists():
        return empty | dict.fromkeys(RATES)
    since = now - timedelta(minutes=minutes)
    window = {
        "day": _text(since - timedelta(days=1))[:10],
        "since": _text(since),
        "until": _text(now),
        "trial": TRIAL_USER,
    }
    with contextlib.closing(connect(settings.service_db)) as database:
        columns = _columns(database)
        if not columns:
            return empty | dict.fromkeys(RATES)
        failed = "error IS NOT NULL AND error <> ''"
        if "status" in columns:
            failed = f"coalesce(status >= 500, {failed})"
        row = database.execute(
            "SELECT COUNT(*) AS requests, AVG(latency_ms) AS avg_latency_ms,"
            " COUNT(latency_ms) AS timed, AVG(fallback) AS fallback_rate,"
            f" AVG({failed}) AS error_rate" + _RECENT,
            window,
        ).fetchone()
        p95 = database.execute(
            "SELECT latency_ms" + _RECENT + " AND latency_ms IS NOT NULL"
            " ORDER BY latency_ms LIMIT 1 OFFSET :rank",
            window | {"rank": max(0, -(-row["timed"] * 95 // 100) - 1)},
        ).fetchone()
    return {
        "window_minutes": minutes,
        "requests": row["requests"],
        "requests_per_minute": round(row["requests"] / minutes, 3),
        "avg_latency_ms": _rounded(row["avg_latency_ms"]),
        "p95_latency_ms": _rounded(p95["latency_ms"] if p95 else None),
        "error_rate": _rounded(row["error_rate"]),
        "fallback_rate": _rounded(row["fallback_rate"]),
    }


def judged(metrics: dict[str, Any], min_requests: int) -> dict[str, float | None]:
    """The metrics that rules may be held against: rates of too few requests are unknown."""
    known = {name: value for name, value in metrics.items() if name != "window_minutes"}
    if (metrics["requests"] or 0) < min_requests:
        known |= dict.fromkeys(RATES)
    return known


def _columns(database: sqlite3.Connection) -> set[str]:
    """Of the table; none if the service never ran. Only those of the service have a status."""
    return {row["name"] for row in database.execute("PRAGMA table_info(requests)")}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
