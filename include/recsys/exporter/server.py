"""The exporter's process: ``GET /metrics``, and Airflow's StatsD packets."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server

from recsys.exporter.airflow import AirflowFigures, Listener
from recsys.exporter.state import StateFigures
from recsys.settings import Settings

PORT: Final = 9108
STATSD_PORT: Final = 9125

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def exporting(settings: Settings, host: str, port: int, statsd_port: int) -> Iterator[None]:
    """Answer at ``http://host:port/metrics`` and listen for StatsD packets during the block. Raises
    `OSError` if a port cannot be had."""
    airflow = AirflowFigures()
    registry = CollectorRegistry()
    registry.register(StateFigures(settings))
    registry.register(airflow)
    listener = Listener(airflow, host, statsd_port)
    try:
        server, thread = start_http_server(port, host, registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join(timeout=10)
    finally:
        listener.close()


def serve(settings: Settings, host: str, port: int, statsd_port: int) -> None:
    """Export until the process is asked to end (SIGTERM, SIGINT). Raises as `exporting`."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    with exporting(settings, host, port, statsd_port):
        logger.info("Exporting | url=http://%s:%s/metrics, statsd_port=%s", host, port, statsd_port)
        ending.wait()
