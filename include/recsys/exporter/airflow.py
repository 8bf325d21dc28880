"""Airflow's own figures: it sends StatsD packets, a few of which are kept.

A closed list, because Airflow has names for every DAG, task and pool. docs/decisions/176 says why
the exporter listens by itself."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

PREFIX: Final = "airflow."
_PACKET_BYTES: Final = 65_535
_LOOK_SECONDS: Final = 0.2

HEARTBEATS: Final = {
    f"{part}_heartbeat": part for part in ("scheduler", "dag_processor", "triggerer")
}
COUNTERS: Final = {
    "ti_successes": ("task_successes", "Tasks that succeeded."),
    "ti_failures": ("task_failures", "Tasks that failed, for good or to be tried again."),
    "task_instances_without_heartbeats_killed": ("tasks_lost", "Tasks whose worker is lost."),
    "scheduler.orphaned_tasks.cleared": ("tasks_orphaned", "Tasks whose scheduler was lost."),
    "celery.execute_command.failure": ("celery_failures", "Tasks that Celery could not begin."),
}
GAUGES: Final = {
    "dag_processing.import_errors": ("import_errors", "DAG files that cannot be loaded."),
    "dagbag_size": ("dags", "DAGs that were found."),
    "scheduler.tasks.starving": ("tasks_starving", "Tasks that find no free slot."),
    "executor.open_slots": ("open_slots", "Slots of the executor that are free."),
    "executor.queued_tasks": ("queued_tasks", "Tasks that wait for a worker."),
    "executor.running_tasks": ("running_tasks", "Tasks that the executor runs."),
}
_LOOP: Final = "scheduler.scheduler_loop_duration"


class AirflowFigures(Collector):
    """What came in. Parts that were never heard of count as heard of when this began."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._counted = dict.fromkeys(COUNTERS, 0.0)
        self._values: dict[str, float] = {}
        self._heard = dict.fromkeys(HEARTBEATS.values(), clock())

    def take(self, packet: bytes) -> None:
        """Take the lines ``name:value|kind`` of a packet; what is none, or is not on the list, is
        left alone."""
        for line in packet.decode("ascii", "replace").splitlines():
            name, _, rest = line.partition(":")
            text, _, kind = rest.partition("|")
            name = name.removeprefix(PREFIX)
            try:
                value = float(text)
            except ValueError:
                continue
            with self._lock:
                self._keep(name, value, kind, added=text.startswith(("+", "-")))

    def _keep(self, name: str, value: float, kind: str, *, added: bool) -> None:
        kind = kind.partition("|")[0]
        if name in HEARTBEATS and kind == "c":
            self._heard[HEARTBEATS[name]] = self._clock()
        elif name in self._counted and kind == "c" and value > 0:
            self._counted[name] += value
        elif name in GAUGES and kind == "g":
            self._values[name] = value + (self._values.get(name, 0) if added else 0)
        elif name == _LOOP and kind == "ms":
            self._values[name] = value / 1000

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            heard, counted, values = dict(self._heard), dict(self._counted), dict(self._values)
        heartbeats = GaugeMetricFamily(
            "recsys_airflow_heartbeat_timestamp_seconds", "Last sign of a part.", labels=["part"]
        )
        for part, moment in heard.items():
            heartbeats.add_metric([part], moment)
        yield heartbeats
        for key, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(f"recsys_airflow_{name}", text, counted[key])
        for key, (name, text) in GAUGES.items():
            if key in values:
                yield GaugeMetricFamily(f"recsys_airflow_{name}", text, values[key])
        if _LOOP in values:
            text = "The scheduler's last round."
            yield GaugeMetricFamily("recsys_airflow_scheduler_loop_seconds", text, values[_LOOP])


class Listener:
    """Receives StatsD packets at ``host:port`` (UDP) for `figures`, in a thread of its own. Raises
    `OSError` if the port cannot be had."""

    def __init__(self, figures: AirflowFigures, host: str, port: int) -> None:
        self._figures, self._ending = figures, threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.settimeout(_LOOK_SECONDS)
        try:
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="statsd", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                packet = self._socket.recv(_PACKET_BYTES)
            except TimeoutError:
                continue
            except OSError as error:
                logger.error("A StatsD packet cannot be received | error=%s", error)
                self._ending.wait(_LOOK_SECONDS)
                continue
            self._figures.take(packet)

    def close(self) -> None:
        self._ending.set()
        self._thread.join(timeout=10)
        self._socket.close()
