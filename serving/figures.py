"""What ``/metrics`` says: counters of all workers, and how the service stands."""

import time
from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from serving.service import Service
from serving.shared import BUCKETS_MS, ENDPOINTS, STATUS_CLASSES


class Figures(Collector):
    """The figures of a service. Labels have closed sets of values: whatever strangers send, there
    are never more series."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._lists()
        yield from self._events()
        yield from self._model()
        yield from self._configuration()
        yield from self._backlogs()
        yield from self._customers()
        yield _gauge("recsys_clock_timestamp_seconds", "The clock of the service.", time.time())

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "recsys_requests", "Answered requests.", labels=["endpoint", "status"]
        )
        latency = HistogramMetricFamily(
            "recsys_request_seconds", "Time to answer.", labels=["endpoint"]
        )
        bounds = [*(str(bound / 1000) for bound in BUCKETS_MS), "+Inf"]
        for path in ENDPOINTS:
            classes, buckets, total_ms = self._service.counters.of(path)
            for name, count in zip(STATUS_CLASSES, classes, strict=True):
                if count:
                    requests.add_metric([path, name], count)
            if any(buckets):
                pairs = list(zip(bounds, accumulate(buckets), strict=True))
                latency.add_metric([path], pairs, total_ms / 1000)
        yield requests
        yield latency

    def _lists(self) -> Iterator[Metric]:
        tallied = self._service.counters.tallied
        lists = CounterMetricFamily(
            "recsys_lists", "Lists that were made.", labels=["customer", "made_by"]
        )
        for customer in ("known", "unknown"):
            for how in ("model", "fallback"):
                lists.add_metric([customer, how], tallied(f"{customer}_by_{how}"))
        yield lists
        for name, text in (
            ("empty", "Lists without a product, although nothing narrowed them down."),
            ("recorded", "Served lists written down."),
            ("dropped", "Served lists that found no room in memory."),
        ):
            yield CounterMetricFamily(f"recsys_lists_{name}", text, tallied(f"lists_{name}"))

    def _events(self) -> Iterator[Metric]:
        events = CounterMetricFamily("recsys_events", "Events that were sent.", labels=["outcome"])
        for outcome in ("accepted", "rejected", "left_out", "implausible"):
            events.add_metric([outcome], self._service.counters.tallied(f"events_{outcome}"))
        yield events

    def _model(self) -> Iterator[Metric]:
        snapshot = self._service.engine.snapshot
        model = GaugeMetricFamily("recsys_model", "The model in service.", labels=["model_id"])
        created = GaugeMetricFamily("recsys_model_created_timestamp_seconds", "When it was made.")
        products = GaugeMetricFamily(
            "recsys_catalogue_products", "Products of the catalogue.", labels=["available"]
        )
        if snapshot is not None:
            model.add_metric([snapshot.model_id], 1)
            if made := snapshot.artifact.manifest.get("created_at"):
                created.add_metric([], datetime.fromisoformat(made).timestamp())
            available = int(snapshot.catalogue.available.sum())
            products.add_metric(["yes"], available)
            products.add_metric(["no"], len(snapshot.catalogue.item_ids) - available)
        yield from (model, created, products)
        broken = len(self._service.engine.in_trial.broken)
        yield _gauge(
            "recsys_experiment_models_broken",
            "Models of experiments that cannot be loaded.",
            broken,
        )

    def _configuration(self) -> Iterator[Metric]:
        rules, places = self._service.rules, self._service.places
        yield _gauge("recsys_rules", "Merchandising rules in service.", len(rules.current.rules))
        readable = GaugeMetricFamily(
            "recsys_file_sound", "1 while the file counts as it is, else 0.", labels=["file"]
        )
        readable.add_metric(["rules"], rules.problem is None)
        readable.add_metric(["placements"], places.problem is None)
        yield readable

    def _backlogs(self) -> Iterator[Metric]:
        log, lists = self._service.requests, self._service.served.log
        yield _gauge(
            "recsys_log_rows_waiting", "Rows that this worker has yet to write.", log.pending
        )
        yield CounterMetricFamily(
            "recsys_log_rows_dropped", "Rows that this worker could not keep.", log.dropped
        )
        failing = GaugeMetricFamily(
            "recsys_unwritten_seconds", "For how long this worker could not write.", labels=["what"]
        )
        for what, backlog in (("request_log", log), ("served_lists", lists)):
            if backlog is not None:
                failing.add_metric([what], backlog.problem[0] if backlog.problem else 0)
        yield failing

    def _customers(self) -> Iterator[Metric]:
        known = self._service.forgotten
        yield _gauge(
            "recsys_customers_forgotten",
            "Customers who are forgotten, as this worker knows.",
            len(known.current or ()),
        )
        yield _gauge(
            "recsys_requests_overdue",
            "Customers' requests that should have been done by now.",
            known.overdue(),
        )
        yield _gauge(
            "recsys_register_readable",
            "1 while this worker can read the register of customers' requests, else 0.",
            known.problem is None,
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)
