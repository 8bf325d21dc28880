"""A real Prometheus and a real Alertmanager on loopback, with the files of ``monitoring/``. Time
may go faster there: every span of the files is divided."""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.monitoring.rules import MONITORING, program
from tests.ports import find_free_port

_SPAN = re.compile(r"\b(\d+)(s|m|h)\b")
_MILLISECONDS = {"s": 1000, "m": 60_000, "h": 3_600_000}
# Keys whose values are spans of time, and ranges of queries. Numbers of seconds in comparisons
# (an age, a threshold) are none: they are of the world that is looked at.
_KEYS = re.compile(
    r"^(\s*(?:- )?(?:(?:keep_firing_)?for|\w+_interval|group_wait|scrape_timeout): )(\S+)$", re.M
)
_RANGE = re.compile(r"\[(\w+)\]")


def faster(text: str, times: int) -> str:
    """The configuration `text` with every span divided by `times`."""

    def divided(span: str) -> str:
        return _SPAN.sub(
            lambda found: f"{int(found[1]) * _MILLISECONDS[found[2]] // times}ms", span
        )

    text = _KEYS.sub(lambda found: found[1] + divided(found[2]), text)
    return _RANGE.sub(lambda found: f"[{divided(found[1])}]", text)


@dataclass
class Watched:
    """Where Prometheus and Alertmanager answer."""

    prometheus: str
    alertmanager: str
    log: Path = field(repr=False)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers now: samples with ``metric`` and ``value``."""
        answer = requests.get(
            f"{self.prometheus}/api/v1/query", params={"query": query}, timeout=10
        ).json()
        assert answer["status"] == "success", (query, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """Names of the rules that fire."""
        return {one["metric"]["alertname"] for one in self.ask('ALERTS{alertstate="firing"}')}


@contextlib.contextmanager
def watching(
    folder: Path, targets: dict[str, Sequence[str]], mail_port: int, times: int = 1
) -> Iterator[Watched]:
    """The two servers over `targets` (job -> addresses); mails go to `mail_port`."""
    port, manager_port = find_free_port(), find_free_port()
    folder.mkdir(parents=True, exist_ok=True)
    _write_prometheus(folder, targets, manager_port, times)
    _write_alertmanager(folder, mail_port, times)
    prometheus = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    alertmanager = [
        program("prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'told'}",
        f"--web.listen-address=127.0.0.1:{manager_port}",
        "--cluster.listen-address=",
    ]
    log = folder / "servers.log"
    with contextlib.ExitStack() as running:
        for command in (alertmanager, prometheus):
            running.enter_context(_process(command, log))
        watched = Watched(
            f"http://127.0.0.1:{port}", f"http://127.0.0.1:{manager_port}", folder / "servers.log"
        )
        for url in (watched.alertmanager, watched.prometheus):
            _wait_until_ready(url, log)
        yield watched


def _write_prometheus(
    folder: Path, targets: dict[str, Sequence[str]], manager_port: int, times: int
) -> None:
    text = faster((MONITORING / "prometheus.yml").read_text(encoding="utf-8"), times)
    content = yaml.safe_load(text)
    managers = content["alerting"]["alertmanagers"][0]["static_configs"][0]
    managers["targets"] = [f"127.0.0.1:{manager_port}"]
    for job in content["scrape_configs"]:
        job["static_configs"][0]["targets"] = list(targets[job["job_name"]])
    (folder / "prometheus.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    (folder / "rules").mkdir(exist_ok=True)
    for path in (MONITORING / "rules").glob("*.yml"):
        text = faster(path.read_text(encoding="utf-8"), times)
        (folder / "rules" / path.name).write_text(text, encoding="utf-8")


def _write_alertmanager(folder: Path, mail_port: int, times: int) -> None:
    text = faster((MONITORING / "alertmanager.yml").read_text(encoding="utf-8"), times)
    content = yaml.safe_load(text)
    content["global"]["smtp_smarthost"] = f"127.0.0.1:{mail_port}"
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(content), encoding="utf-8")


@contextlib.contextmanager
def _process(command: list[str], log: Path) -> Iterator[None]:
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=os.environ, cwd=log.parent
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, log: Path) -> None:
    until = time.monotonic() + 60
    while True:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/-/ready", timeout=5).ok:
                return
        assert time.monotonic() < until, log.read_text(encoding="utf-8")[-3000:]
        time.sleep(0.1)
