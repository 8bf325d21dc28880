"""`recsys health-check` as a person starts it, beside an Airflow in trouble."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

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

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content):
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.answer({"access_token": "x"})

        def do_GET(self):
            assert self.path.endswith("/monitor/health")
            self.answer({"scheduler": {"status": "unhealthy"}})

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
    shop.pipeline_db.write_bytes(b"no database" * 1000)
    code, _, errors = recsys("--component", "pipeline")
    assert code == 3
    assert "the pipeline" in errors
