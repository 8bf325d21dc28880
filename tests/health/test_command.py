"""`recsys health-check` as a person starts it, beside an Airflow in trouble."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.settings import REPOSITORY
from tests.conftest import find_free_port


@pytest.fixture
def recsys(shop):
    """Runs `python -m recsys health-check` with the words given: code, JSON (or None), errors."""

    def run(*words, airflow=None, **variables):
        env = os.environ | {
            "PYTHONPATH": str(REPOSITORY / "include"),
            "RECSYS_AIRFLOW_URL": airflow or f"http://127.0.0.1:{find_free_port()}",
            "RECSYS_AIRFLOW_USER": "admin",
            "RECSYS_AIRFLOW_PASSWORD": "secret",
        }
        done = subprocess.run(
            [sys.executable, "-m", "recsys", "health-check", *words],
            env=env | variables, capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    return run


@pytest.fixture
def dead_scheduler():
    """An API server whose scheduler has stopped."""
    with api_server(["unhealthy"]) as url:
        yield url


@contextlib.contextmanager
def api_server(states):
    """It tells these states of its scheduler one after the other, and no run ever begins."""
    left = list(states)

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content):
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.answer({"access_token": "x", "dag_run_id": "manual__1"})

        def do_GET(self):
            path = self.path.partition("?")[0]
            if path.endswith("/monitor/health"):
                state = left.pop(0) if len(left) > 1 else left[0]
                self.answer({"scheduler": {"status": state}})
            elif path.endswith("/taskInstances"):
                self.answer({"task_instances": [], "total_entries": 0})
            elif path.endswith("/dagRuns"):
                self.answer({"dag_runs": [], "total_entries": 0})
            elif path.endswith("/dags"):
                self.answer({"dags": [], "total_entries": 0})
            else:
                self.answer({"dag_run_id": "manual__1", "state": "queued"})

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_healthy_component_exits_with_0(recsys, publish, shop):
    publish()
    code, result, errors = recsys("--component", "data")
    assert code == 0, errors
    assert result["summary"]["evaluate"]["status"] == "healthy"
    assert "Airflow does not answer" in errors
    assert (shop.home / result["summary"]["evaluate"]["report"]).exists()


def test_beside_a_dead_scheduler_it_checks_by_itself_and_tells(recsys, dead_scheduler, mails):
    code, result, errors = recsys(airflow=dead_scheduler)
    assert code == 1
    assert result["summary"]["evaluate"]["status"] == "critical"
    assert "service" in result["summary"]["evaluate"]["unhealthy"]
    assert "the scheduler is unhealthy" in errors
    assert any("service" in mail["Subject"] for mail in mails.mails)


def test_a_scheduler_that_hangs_is_not_waited_for_for_ever(shop, publish, monkeypatch):
    publish()
    monkeypatch.setenv("RECSYS_HOME", str(shop.home))
    monkeypatch.setenv("RECSYS_AIRFLOW_USER", "admin")
    monkeypatch.setenv("RECSYS_AIRFLOW_PASSWORD", "secret")
    monkeypatch.setattr("recsys.orchestration.client.PATIENCE_SECONDS", 1.5)
    with api_server(["healthy", "healthy", "unhealthy"]) as url:
        monkeypatch.setenv("RECSYS_AIRFLOW_URL", url)
        done = CliRunner().invoke(app, ["health-check", "--component", "data"])
    assert done.exit_code == 0, done.output
    assert "waits: the scheduler is unhealthy" in " ".join(done.stderr.split())
    assert json.loads(done.stdout)["summary"]["evaluate"]["status"] == "healthy"


def test_local_asks_no_airflow(recsys):
    code, _, errors = recsys("--local", "--component", "data")
    assert code == 1
    assert "Airflow" not in errors


@pytest.mark.parametrize("words", [("--component", "disk"), ("--component",), ("--quick",)])
def test_bad_options_exit_with_2_and_a_sentence(recsys, words):
    code, result, errors = recsys("--local", *words)
    assert (code, result) == (2, None)
    assert errors.strip()
    assert "Traceback" not in errors


def test_what_cannot_be_checked_exits_with_3(recsys, shop):
    shop.pipeline_db.parent.mkdir(parents=True, exist_ok=True)
    shop.pipeline_db.symlink_to(shop.home / "away" / "runs.db")
    code, _, errors = recsys("--component", "pipeline")
    assert code == 3
    assert "the pipeline" in errors
