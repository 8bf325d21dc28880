"""The monitor in a plain server: Airflow's own part is who is asking, and a question that waits.

``python -m benchmarks.monitor.server PORT``, with ``RECSYS_HOME`` for the state root."""

import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import uvicorn
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI

from recsys.orchestration.monitor import access
from recsys.orchestration.monitor.app import create_app
from recsys.orchestration.monitor.scheduler import Question, Scheduler
from recsys.settings import load_settings


def main() -> None:
    about = ("model_deployment", "manual__1", "approve", -1, "Deploy als_1?", datetime.now(UTC))
    monitor = create_app(load_settings(), lambda: Scheduler(set(), [Question(*about)]))
    monitor.dependency_overrides[get_user] = lambda: SimpleNamespace(get_name=lambda: "lan")
    for right in (access.may_watch, access.may_preview, access.may_act, access.may_forget):
        monitor.dependency_overrides[right] = lambda: None
    monitor.dependency_overrides[access.can_forget] = lambda: True
    airflow = FastAPI()
    airflow.mount("/recsys", monitor)
    uvicorn.run(airflow, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
