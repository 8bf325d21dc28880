"""What the request log says about the last minutes and hours.

An error is a failure of the service: what a caller did wrong (status 4xx) is none. Rows that an
earlier version wrote have no status; there every error counts.
"""

from pathlib import Path
from typing import Any

import numpy as np

from recsys.database import connect

WINDOWS_MINUTES = (1, 60, 1440)
_TIMEOUT_SECONDS = 5.0
_SAMPLE = 100_000


def read_stats(database: Path) -> dict[str, Any]:
    """Traffic by window, and of the longest window the requests by endpoint and by fallback.

    Percentiles are those of the newest 100,000 requests of a window.
    """
    connection = connect(database, timeout=_TIMEOUT_SECONDS)
    try:
        since = (f"-{max(WINDOWS_MINUTES)} minutes",)
        return {
            "traffic": [_traffic(connection, minutes) for minutes in WINDOWS_MINUTES],
            "endpoints": dict(
                connection.execute(
                    "SELECT endpoint, count(*) FROM requests WHERE timestamp > "
                    "datetime('now', ?) GROUP BY endpoint",
                    since,
                ).fetchall()
            ),
            "fallback_methods": dict(
                connection.execute(
                    "SELECT fallback_method, count(*) FROM requests WHERE timestamp > "
                    "datetime('now', ?) AND fallback_method IS NOT NULL GROUP BY fallback_method",
                    since,
                ).fetchall()
            ),
        }
    finally:
        connection.close()


def read_traffic_by_model(database: Path, minutes: float) -> list[dict[str, Any]]:
    """Of the last `minutes` of /recommend: requests, error_rate, fallback_rate and avg_latency_ms
    of each model."""
    connection = connect(database, timeout=_TIMEOUT_SECONDS)
    try:
        rows = connection.execute(
            "SELECT model_id, count(*) AS requests, "
            "avg(coalesce(status >= 500, error IS NOT NULL)) AS error_rate, "
            "avg(fallback) AS fallback_rate, avg(latency_ms) AS avg_latency_ms FROM requests "
            "WHERE timestamp > datetime('now', ?) AND endpoint = 'recommend' "
            "AND model_id IS NOT NULL GROUP BY model_id",
            (f"-{minutes} minutes",),
        ).fetchall()
    finally:
        connection.close()
    return [dict(row) for row in rows]


def _traffic(connection: Any, minutes: int) -> dict[str, Any]:
    since = (f"-{minutes} minutes",)
    row = connection.execute(
        "SELECT count(*) AS requests, avg(coalesce(status >= 500, error IS NOT NULL)) AS "
        "error_rate, avg(fallback) AS fallbacks, avg(latency_ms) AS latency FROM requests "
        "WHERE timestamp > datetime('now', ?)",
        since,
    ).fetchone()
    latencies = [
        value
        for (value,) in connection.execute(
            "SELECT latency_ms FROM requests WHERE timestamp > datetime('now', ?) "
            "AND latency_ms IS NOT NULL ORDER BY id DESC LIMIT ?",
            (*since, _SAMPLE),
        )
    ]
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99)).tolist() if latencies else [None] * 3
    return {
        "minutes": minutes,
        "requests": row["requests"],
        "requests_per_second": row["requests"] / (60 * minutes),
        "error_rate": row["error_rate"],
        "fallback_rate": row["fallbacks"],
        "avg_latency_ms": row["latency"],
        "p50_latency_ms": p50,
        "p95_latency_ms": p95,
        "p99_latency_ms": p99,
    }
