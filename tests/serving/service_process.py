"""The service as its operators start it, in processes of its own; and in a thread of the test's."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import requests
import uvicorn
from fastapi import FastAPI

from recsys.settings import REPOSITORY, Settings


def start_service(
    settings: Settings,
    port: int,
    token: str | None = "tok",
    workers: int = 1,
    python_path: Path = REPOSITORY,
    write_token: str | None = None,
    **config: object,
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start it; returns the parent process and the file with its output."""
    folder = settings.home / "config"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{key}: {value}\n" for key, value in {"workers": workers, **config}.items()]
    (folder / "serving.yaml").write_text("".join(lines))
    output = settings.home / "service_output.txt"
    environment = os.environ | {
        "RECSYS_HOME": str(settings.home),
        "RECSYS_SERVICE_PORT": str(port),
        "PYTHONPATH": f"{python_path}:{REPOSITORY}:{REPOSITORY / 'include'}",
    }
    if token:
        environment["RECSYS_ADMIN_TOKEN"] = token
    if write_token:
        environment["RECSYS_WRITE_TOKEN"] = write_token
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving"],
            cwd=REPOSITORY,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return process, output


def wait_for(port: int, status: str | None = "healthy", seconds: float = 60) -> dict:
    """The content of /health as soon as it has this `status` (None: as soon as it answers)."""
    until = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < until:
        with contextlib.suppress(requests.RequestException):
            last = requests.get(f"http://127.0.0.1:{port}/health", timeout=5).json()
            if status is None or last["status"] == status:
                return last
        time.sleep(0.05)
    raise AssertionError(f"the service does not become {status}: {last}")


@contextlib.contextmanager
def running_service(
    settings: Settings,
    port: int,
    token: str | None = "tok",
    workers: int = 1,
    python_path: Path = REPOSITORY,
    write_token: str | None = None,
    **config: object,
) -> Iterator[Path]:
    """A healthy service for the block; it must end cleanly afterwards."""
    process, output = start_service(
        settings, port, token, workers, python_path, write_token, **config
    )
    try:
        wait_for(port)
        yield output
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


@contextlib.contextmanager
def service_in_thread(app: FastAPI, port: int) -> Iterator[None]:
    """The application answers on `port` for the block."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < until, "the service does not start"
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=20)
