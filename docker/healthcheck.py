"""Asks this container's component whether it is well; exits with 0 if it is.

``RECSYS_ROLE`` says what runs here. The dag-processor and the triggerer have no port of their
own: the API server knows their heartbeats.
"""

import json
import os
import sys
import urllib.request
from typing import Any

TIMEOUT_SECONDS = 10.0
API_SERVER = os.environ.get("RECSYS_AIRFLOW_URL", "http://127.0.0.1:8080")
MONITOR = f"{API_SERVER}/api/v2/monitor/health"
SERVICE = f"http://127.0.0.1:{os.environ.get('RECSYS_SERVICE_PORT', '8000')}/health"


def ask(url: str) -> dict[str, Any]:
    """The JSON answer of `url`. Raises `OSError` for an error status or none at all."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        return dict(json.load(answer))


def is_healthy(role: str) -> bool:
    """Whether the component `role` is well."""
    if role == "service":
        return ask(SERVICE)["status"] == "healthy"
    if role == "api-server":
        return ask(MONITOR)["metadatabase"]["status"] == "healthy"
    if role in ("scheduler", "dag-processor", "triggerer"):
        return ask(MONITOR)[role.replace("-", "_")]["status"] == "healthy"
    if role == "worker":
        return worker_answers()
    raise ValueError(f"RECSYS_ROLE={role!r}: no component of this name")


def worker_answers() -> bool:
    """Whether this container's Celery worker answers a ping through the broker."""
    import socket

    from celery import Celery

    # Any application of the same broker may ask: Airflow's own takes ten times as long to import.
    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    name = f"celery@{socket.gethostname()}"
    return bool(app.control.inspect(destination=[name], timeout=TIMEOUT_SECONDS).ping())


def main() -> int:
    role = os.environ.get("RECSYS_ROLE", "service")
    try:
        healthy = is_healthy(role)
    except (OSError, KeyError, ValueError) as error:
        print(f"{role}: {error!r}", file=sys.stderr)
        return 1
    if not healthy:
        print(f"{role}: unhealthy", file=sys.stderr)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
