"""What Airflow sends, and the process that receives it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from prometheus_client import CollectorRegistry, generate_latest

from recsys.exporter.airflow import AirflowFigures, Listener
from recsys.settings import REPOSITORY, Settings
from tests.documented import pages
from tests.exporter.process import exporter_process, free_udp_port, start_scheduler
from tests.exporter.shop import Figures, parsed
from tests.ports import find_free_port

HEARTBEAT = "recsys_airflow_heartbeat_timestamp_seconds"


def shown(figures: AirflowFigures) -> Figures:
    registry = CollectorRegistry()
    registry.register(figures)
    return parsed(generate_latest(registry).decode())


def test_heartbeats_counters_gauges_and_times_are_kept():
    moment = 1000.0
    figures = AirflowFigures(lambda: moment)
    moment = 1060.0
    figures.take(b"airflow.scheduler_heartbeat:1|c\nairflow.ti_failures:2|c")
    figures.take(b"airflow.ti_failures:1|c")
    figures.take(b"airflow.executor.open_slots:4|g\nairflow.executor.open_slots:-1|g")
    figures.take(b"airflow.scheduler.scheduler_loop_duration:250.5|ms")
    found = shown(figures)
    assert found[HEARTBEAT, "scheduler"] == 1060
    assert found[HEARTBEAT, "triggerer"] == 1000
    assert found["recsys_airflow_task_failures_total",] == 3
    assert found["recsys_airflow_tasks_lost_total",] == 0
    assert found["recsys_airflow_open_slots",] == 3
    assert found["recsys_airflow_scheduler_loop_seconds",] == pytest.approx(0.2505)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xff\xfe\x00",
        b"airflow.ti_failures",
        b"airflow.ti_failures:x|c",
        b"airflow.ti_failures:-5|c",
        b"airflow.ti_failures:5|g",
        b"airflow.dag.my_dag.my_task.duration:5|ms",
        b"airflow.pool.open_slots.somebody:5|g",
        b":|" * 1000,
    ],
)
def test_what_is_not_on_the_list_changes_nothing(packet: bytes):
    figures = AirflowFigures(lambda: 1000.0)
    before = shown(figures)
    figures.take(packet)
    assert shown(figures) == before


def test_the_process_answers_listens_and_ends_when_asked(settings: Settings):
    settings.home.mkdir()
    port, statsd_port = find_free_port(), free_udp_port()
    with exporter_process(settings, port, statsd_port):
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            sender.sendto(b"airflow.ti_failures:1|c", ("127.0.0.1", statsd_port))
        until = time.monotonic() + 20
        figures: Figures = {}
        while figures.get(("recsys_airflow_task_failures_total",)) != 1:
            assert time.monotonic() < until
            figures = parsed(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text)
        assert figures["recsys_exporter_sound", "pipelines"] == 1


def test_a_port_that_is_taken_is_a_sentence(settings: Settings):
    settings.home.mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environment = os.environ | {"RECSYS_HOME": str(settings.home)}
        command = [sys.executable, "-m", "recsys", "exporter", "--port", port]
        command += ["--statsd-port", str(free_udp_port())]
        ended = subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 1
    assert "error:" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.boots
def test_a_real_scheduler_is_heard_until_it_dies(
    settings: Settings, airflow_database: Path, tmp_path: Path
):
    """With the variables that docs/watching.md names."""
    home = tmp_path / "airflow"
    home.mkdir()
    shutil.copy(airflow_database, home / "airflow.db")
    figures = AirflowFigures()
    listener = Listener(figures, "127.0.0.1", 0)
    began = shown(figures)[HEARTBEAT, "scheduler"]
    [switch, port] = re.findall("^AIRFLOW__METRICS__.*", pages()["docs/watching.md"], re.MULTILINE)
    extra = {**dict([switch.split("=")]), port.split("=")[0]: str(listener.port)}
    log = tmp_path / "scheduler.log"
    scheduler = start_scheduler(home, log, extra)
    try:
        until = time.monotonic() + 200
        while shown(figures)[HEARTBEAT, "scheduler"] <= began:
            assert scheduler.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, "the scheduler is not heard"
            time.sleep(0.2)
        while "recsys_airflow_open_slots" not in {key[0] for key in shown(figures)}:
            assert time.monotonic() < until
            time.sleep(0.2)
    finally:
        os.killpg(scheduler.pid, signal.SIGKILL)
        scheduler.wait()
    time.sleep(1)
    last = shown(figures)[HEARTBEAT, "scheduler"]
    time.sleep(3)
    assert shown(figures)[HEARTBEAT, "scheduler"] == last
    listener.close()
