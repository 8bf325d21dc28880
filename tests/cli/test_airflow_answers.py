"""What commands make of Airflow's answers that a live stack gives only at the wrong moment."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.errors import InputError
from recsys.orchestration.stack import Stack

BACKFILL = {
    "id": 7, "dag_id": "data_refresh", "from_date": "2025-01-31T17:00:00Z", "completed_at": None,
    "to_date": "2025-02-02T16:59:59Z", "created_at": "2025-03-01T00:00:00Z",
}  # fmt: skip
BEAT = "2025-03-01T19:30:15.123456+00:00"
NIGHT = "2025-03-02T19:00:00Z"


class Airflow:
    """Answers to (method, path), one after the other; the last one is given again."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, Any]]] = {
            ("POST", "/auth/token"): [(201, {"access_token": "t"})],
        }

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        answers = self.answers[method, path.partition("?")[0].removeprefix("/api/v2")]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def airflow(settings, monkeypatch) -> Iterator[Airflow]:
    stand_in = Airflow()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = stand_in.answer(self.command, self.path)
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    monkeypatch.setenv("RECSYS_AIRFLOW_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("RECSYS_AIRFLOW_USER", "admin")
    monkeypatch.setenv("RECSYS_AIRFLOW_PASSWORD", "x")
    yield stand_in
    server.shutdown()
    server.server_close()


def dag(name: str, *, paused: bool) -> dict[str, Any]:
    return {"dag_id": name, "is_paused": paused, "next_dagrun_run_after": NIGHT}


def page(key: str, *entries: Any) -> tuple[int, Any]:
    return 200, {key: list(entries), "total_entries": len(entries)}


def test_a_backfill_that_opens_at_the_same_moment_is_told_like_any_other(airflow):
    airflow.answers |= {
        ("GET", "/dags"): [page("dags", dag("data_refresh", paused=False))],
        ("GET", "/backfills"): [page("backfills"), page("backfills", BACKFILL)],
        ("GET", "/dags/data_refresh/dagRuns"): [page("dag_runs")],
        ("POST", "/backfills"): [(409, {"detail": "There is already a running backfill"})],
    }
    days = ("--from-date", "2025-02-01", "--to-date", "2025-02-02")
    done = CliRunner().invoke(app, ["backfill", "data_refresh", *days])
    assert isinstance(done.exception, InputError)
    assert "is open already (2025-02-01 to 2025-02-02, 0 runs have ended)" in str(done.exception)


def test_the_status_has_local_times_and_none_for_what_is_paused(airflow, monkeypatch):
    airflow.answers |= {
        ("GET", "/dags"): [
            page("dags", dag("data_refresh", paused=False), dag("maintenance", paused=True))
        ],
        ("GET", "/importErrors"): [page("import_errors")],
        ("GET", "/monitor/health"): [
            (200, {"scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": BEAT}})
        ],
    }
    part = {"name": "scheduler", "state": "RUNNING", "pid": 123456, "uptime_seconds": 86_399}
    monkeypatch.setattr(Stack, "is_running", lambda stack: True)
    monkeypatch.setattr(Stack, "components", lambda stack: [dict(part)])
    shown = CliRunner().invoke(app, ["scheduler", "status"])
    assert "2025-03-02 02:30:15 +07" in shown.stdout
    assert "2025-03-03 02:00:00 +07" in shown.stdout
    (row,) = [line for line in shown.stdout.splitlines() if "maintenance" in line]
    assert row.split()[3] == "paused"
    assert "since 2025-03-02 02:30:15 +07" in " ".join(shown.stderr.split())
    found = json.loads(CliRunner().invoke(app, ["scheduler", "status", "--json"]).stdout)
    assert [one["next_run"] for one in found["dags"]] == ["2025-03-03 02:00:00 +07", None]


def test_a_job_whose_settings_cannot_be_used_is_refused_with_the_reason(airflow):
    reason = "recsys.config.ConfigError: scheduler_config.json: jobs.data_refresh.schedule: no key"
    error = {"filename": "data_refresh.py", "stack_trace": f"Traceback\n  File x\n{reason}\n"}
    airflow.answers |= {
        ("GET", "/dags"): [page("dags")],
        ("POST", "/dags/data_refresh/dagRuns"): [(404, {"detail": "Dag not found"})],
        ("GET", "/importErrors"): [page("import_errors", error), page("import_errors")],
    }
    told = [str(CliRunner().invoke(app, ["data-refresh"]).exception) for _ in range(2)]
    assert told[0] == f"Airflow has no job data_refresh: {reason}"
    assert "it may not have read the file yet; `make status` tells" in told[1]
