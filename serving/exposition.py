"""The counters of all workers in Prometheus' text format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from serving.service import Service
from serving.shared import BUCKETS_MS, ENDPOINTS, STATUS_CLASSES


class _ServiceCollector(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "recsys_requests", "Answered requests.", labels=["endpoint", "status"]
        )
        latency = HistogramMetricFamily(
            "recsys_request_seconds", "Time to answer.", labels=["endpoint"]
        )
        for path in ENDPOINTS:
            classes, buckets, total_ms = self._service.counters.of(path)
            for name, count in zip(STATUS_CLASSES, classes, strict=True):
                if count:
                    requests.add_metric([path, name], count)
            bounds = [str(bound / 1000) for bound in BUCKETS_MS] + ["+Inf"]
            cumulated = [sum(buckets[: number + 1]) for number in range(len(buckets))]
            if cumulated[-1]:
                pairs = list(zip(bounds, cumulated, strict=True))
                latency.add_metric([path], pairs, total_ms / 1000)
        yield requests
        yield latency
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        snapshot = self._service.engine.snapshot
        model = GaugeMetricFamily("recsys_model", "The model in service.", labels=["model_id"])
        if snapshot is not None:
            model.add_metric([snapshot.model_id], 1)
        yield model
        log = self._service.requests
        yield GaugeMetricFamily(
            "recsys_log_rows_waiting", "Rows that this worker has yet to write.", log.pending
        )
        yield CounterMetricFamily(
            "recsys_log_rows_dropped", "Rows that this worker could not keep.", log.dropped
        )


def exposition(service: Service) -> bytes:
    """The metrics page."""
    registry = CollectorRegistry()
    registry.register(_ServiceCollector(service))
    return generate_latest(registry)
