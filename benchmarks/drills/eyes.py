"""Twelve faults under the eyes of a real Prometheus and Alertmanager, in which time goes ten
times faster: each must be seen, and told by mail, once, within two minutes (a tenth of that here)
after the time that its rule waits.

    python -m benchmarks.drills.eyes

Needs root, for a small disk that is really full, and the packages prometheus,
prometheus-alertmanager and faketime. The scheduler is Airflow's own, killed; service and exporter
are processes; the clock is the service's; a patch makes the model slow and its lists empty. What
the weekly and hourly jobs would find (drift, silence, a lost worker) is put where they put it.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import requests

from benchmarks.drills._table import Attacks
from recsys.alerting import AlertManager
from recsys.alerting.state import AlertState
from recsys.publishing import write_json
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunStatus
from tests.exporter.process import exporter_process, free_udp_port, start_scheduler
from tests.exporter.shop import lived_in_shop, record_run, write_report
from tests.monitoring.rules import alert_rules, waits
from tests.monitoring.servers import Watched, watching
from tests.ports import find_free_port
from tests.serving.service_process import running_service
from tests.serving.shops import add_model
from tests.sinks import MailSink, mail_sink, write_alerts_config

TIMES = 10
QUIET_SECONDS = 45.0
LONGEST_SECONDS = 300.0
AFTERWARDS_SECONDS = 60.0
"""Twice the time after which Alertmanager would tell more of a group."""
WITHIN = timedelta(minutes=2)
DISK_MEGABYTES = 400
TOKEN = "tok"
ALERTS = """\
email: {{smtp_server: 127.0.0.1, smtp_port: {port}, sender: a@example.com, password: null,
  recipients: [team@example.com]}}
slack: {{enabled: false}}
"""
# Loaded by the service's interpreter: while there is the file `slow`, each list takes 0.3 s longer,
# while there is `empty`, nothing is in it. `time.sleep` does not work under libfaketime.
PATCH = """\
import os, select, sys, threading

def patch():
    while not hasattr(sys.modules.get("serving.routes.lists"), "users"):
        select.select([], [], [], 0.05)
    lists = sys.modules["serving.routes.lists"]
    real = lists.recommend_now
    def broken(service, snapshot, body, who):
        if os.path.exists({folder!r} + "/slow"):
            select.select([], [], [], 0.3)
        if os.path.exists({folder!r} + "/empty"):
            body.topk = 0
        return real(service, snapshot, body, who)
    lists.recommend_now = broken

if "serving.worker" in " ".join(sys.orig_argv):
    threading.Thread(target=patch, daemon=True).start()
"""


class Stand(NamedTuple):
    """All that runs."""

    settings: Settings
    watched: Watched
    mails: MailSink
    service: str
    statsd_port: int
    scheduler: subprocess.Popen[bytes]
    folder: Path


class Told(NamedTuple):
    """When a rule began to wait, and when its mails came, in seconds since 1970."""

    active: float
    mails: tuple[float, ...]


class Inbox(threading.Thread):
    """Notes when mails arrive, by rule."""

    def __init__(self, sink: MailSink) -> None:
        super().__init__(daemon=True)
        self._sink, self.ending = sink, threading.Event()
        self.came: dict[str, list[float]] = {}

    def run(self) -> None:
        seen = 0
        while not self.ending.wait(0.1):
            for mail in self._sink.mails[seen:]:
                seen += 1
                subject = str(mail["Subject"])
                if not subject.startswith("[RESOLVED]"):
                    name = subject.removeprefix("[FIRING] ").partition(":")[0]
                    self.came.setdefault(name, []).append(time.time())


class Shop(threading.Thread):
    """Customers, and the two parts of Airflow that are not started here."""

    def __init__(self, service: str, statsd_port: int) -> None:
        super().__init__(daemon=True)
        self._service, self._statsd = service, ("127.0.0.1", statsd_port)
        self.ending = threading.Event()

    def run(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sender, requests.Session() as session:
            number = 0
            while not self.ending.wait(0.2):
                number += 1
                with contextlib.suppress(requests.RequestException):
                    body = {"user_id": number % 60}
                    session.post(f"{self._service}/recommend", json=body, timeout=10)
                beats = (f"airflow.{part}_heartbeat:1|c" for part in ("dag_processor", "triggerer"))
                sender.sendto("\n".join(beats).encode(), self._statsd)


def kill_the_scheduler(stand: Stand) -> None:
    os.killpg(stand.scheduler.pid, signal.SIGKILL)


def let_data_age(stand: Stand) -> None:
    path = stand.settings.processed.resolve() / "data_stats.json"
    stats = json.loads(path.read_text(encoding="utf-8"))
    stats["last_at"] = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    write_json(path, stats)


def fill_the_disk(stand: Stand) -> None:
    free = shutil.disk_usage(stand.settings.home).free
    with (stand.settings.home / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - int(0.03 * DISK_MEGABYTES * 2**20))


def slow_the_model(stand: Stand) -> None:
    (stand.folder / "slow").touch()


def empty_the_lists(stand: Stand) -> None:
    (stand.folder / "empty").touch()


def break_the_mail(stand: Stand) -> None:
    write_alerts_config(stand.settings, ALERTS.format(port=find_free_port()))
    AlertManager(stand.settings).send_alert("data_drift", "to nobody", channels=["email"])


def silence_tracking(stand: Stand) -> None:
    found = {"alert": {"silence": 1.4, "lost_share": 0.0, "proven_falls": {}}}
    now = datetime.now(UTC)
    record_run(stand.settings, "outcomes", RunStatus.SUCCESS, now, summary=found)


def find_drift(stand: Stand) -> None:
    report = {"generated_at": datetime.now(UTC).isoformat(), "overall_severity": "high"}
    write_report(stand.settings.reports / "drift", "drift_report_29990101.json", report)


def fail_a_training(stand: Stand) -> None:
    tracker = PipelineTracker(stand.settings.pipeline_db)
    tracker.fail_run(tracker.start_run("model_training"), "out of memory")


def lose_a_worker(stand: Stand) -> None:
    line = b"airflow.task_instances_without_heartbeats_killed:1|c"
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(line, ("127.0.0.1", stand.statsd_port))


def serve_an_old_model(stand: Stand) -> None:
    answer = requests.post(
        f"{stand.service}/reload_model",
        json={"model_id": "als_old"},
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=60,
    )
    answer.raise_for_status()


def set_the_clock(stand: Stand) -> None:
    (stand.folder / "clock").write_text("+600", encoding="utf-8")


FAULTS: dict[str, tuple[str, Callable[[Stand], None]]] = {
    "dead scheduler": ("AirflowSilent", kill_the_scheduler),
    "stale data": ("DataStale", let_data_age),
    "slow model": ("ServiceSlow", slow_the_model),
    "empty lists": ("ListsEmpty", empty_the_lists),
    "broken mail": ("AlertChannelFailing", break_the_mail),
    "silent tracking": ("TrackingSilent", silence_tracking),
    "drift": ("DriftFound", find_drift),
    "failed training": ("JobFailed", fail_a_training),
    "lost worker": ("TasksLost", lose_a_worker),
    "expired model": ("ModelExpired", serve_an_old_model),
    "wrong clock": ("ClockWrong", set_the_clock),
    "full disk": ("DiskFull", fill_the_disk),
}


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of its own for a state root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MEGABYTES}m", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def quiet_shop(home: Path) -> Settings:
    """A shop in which nothing is wrong."""
    settings = lived_in_shop(home)
    (settings.logs / "service" / "alert_state.db").unlink()
    AlertState(settings.logs / "service" / "alert_state.db")
    now = datetime.now(UTC)
    report = {"generated_at": now.isoformat(), "overall_severity": "low"}
    write_report(settings.reports / "drift", "drift_report_20260309.json", report)
    checks = {name: {"healthy": True} for name in ("service", "data", "model", "pipeline")}
    healthy = {"generated_at": now.isoformat(), "checks": checks}
    write_json(settings.reports / "health" / "latest.json", healthy)
    (settings.logs / "service" / "health_state.json").unlink()  # nothing is owed yet
    old = {"created_at": (now - timedelta(days=40)).isoformat()}
    add_model(settings, "als_old", seed=1, select=False, manifest=old)
    return settings


def service_variables(folder: Path) -> dict[str, str]:
    """With them the service takes its clock from a file."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    (folder / "clock").write_text("+0", encoding="utf-8")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


@contextlib.contextmanager
def variables_set(variables: dict[str, str]) -> Iterator[None]:
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


@contextlib.contextmanager
def standing(folder: Path, sink: MailSink) -> Iterator[Stand]:
    """Everything at work, and quiet."""
    with contextlib.ExitStack() as running:
        settings = quiet_shop(running.enter_context(small_disk(folder / "home")))
        write_alerts_config(settings, "email: {enabled: false}\nslack: {enabled: false}\n")
        port, exporter_port, statsd_port = find_free_port(), find_free_port(), free_udp_port()
        running.enter_context(exporter_process(settings, exporter_port, statsd_port))
        patches = folder / "patches"
        patches.mkdir()
        (patches / "sitecustomize.py").write_text(PATCH.format(folder=str(folder)))
        with variables_set(service_variables(folder)):
            running.enter_context(running_service(settings, port, TOKEN, python_path=patches))
        scheduler = running.enter_context(scheduler_process(folder, statsd_port))
        targets = {"service": [f"127.0.0.1:{port}"], "exporter": [f"127.0.0.1:{exporter_port}"]}
        watched = running.enter_context(watching(folder / "prometheus", targets, sink.port, TIMES))
        service = f"http://127.0.0.1:{port}"
        shop = Shop(service, statsd_port)
        shop.start()
        running.callback(shop.ending.set)
        yield Stand(settings, watched, sink, service, statsd_port, scheduler, folder)
        (settings.home / "filler").unlink(missing_ok=True)


@contextlib.contextmanager
def scheduler_process(folder: Path, statsd_port: int) -> Iterator[subprocess.Popen[bytes]]:
    home = folder / "airflow"
    home.mkdir()
    environment = os.environ | {"AIRFLOW_HOME": str(home)}
    environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{home}/airflow.db"
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=environment, check=True, capture_output=True)
    metrics = {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd_port),
    }
    process = start_scheduler(home, folder / "scheduler.log", metrics)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def look(stand: Stand, inbox: Inbox) -> dict[str, Told]:
    """Of each rule that waits or fires: since when, and when it was told."""
    found: dict[str, Told] = {}
    for one in stand.watched.ask("min by (alertname) (ALERTS_FOR_STATE)"):
        name = one["metric"]["alertname"]
        found[name] = Told(float(one["value"][1]), tuple(inbox.came.get(name, ())))
    return found


def drill(stand: Stand, attacks: Attacks) -> None:
    inbox = Inbox(stand.mails)
    inbox.start()
    time.sleep(QUIET_SECONDS)
    with attacks.afterwards("nothing is told before anything is wrong"):
        assert stand.watched.firing() == set(), stand.watched.firing()
        assert inbox.came == {}, inbox.came
    began = time.time()
    for _, inject in FAULTS.values():
        inject(stand)
    active: dict[str, float] = {}
    rules = {rule for rule, _ in FAULTS.values()}
    while time.time() < began + LONGEST_SECONDS:
        active = {name: told.active for name, told in look(stand, inbox).items()} | active
        if rules <= inbox.came.keys():
            break
        time.sleep(0.5)
    time.sleep(AFTERWARDS_SECONDS)
    inbox.ending.set()
    for fault, (rule, _) in FAULTS.items():
        with attacks.attack("a fault under Prometheus' eyes", fault):
            check(fault, rule, active.get(rule), inbox.came.get(rule, []), began)
    with attacks.afterwards("nothing else is told"):
        others = {name: len(mails) for name, mails in inbox.came.items() if name not in rules}
        assert others == {}, others


def check(fault: str, rule: str, active: float | None, mails: list[float], began: float) -> None:
    """The fault was seen, and told once and in time."""
    assert active is not None, f"{rule} was never seen"
    assert mails, f"{rule} was seen and never told"
    late = (mails[0] - active) * TIMES - waits(alert_rules()[rule]).total_seconds()
    seen = active - began
    print(f"  {fault}: {rule} seen after {seen:.0f} s, told {late:.0f} s after its time")
    assert len(mails) == 1, f"{rule} was told {len(mails)} times"
    assert late <= WITHIN.total_seconds(), f"{rule} was told {late:.0f} s after its time"


def main() -> int:
    if os.geteuid() != 0:
        print("not tried: a disk of its own needs root", file=sys.stderr)
        return 0
    attacks = Attacks("eyes")
    with (
        tempfile.TemporaryDirectory() as folder,
        mail_sink() as sink,
        standing(Path(folder).resolve(), sink) as stand,
    ):
        drill(stand, attacks)
    return attacks.end()


if __name__ == "__main__":
    sys.exit(main())
