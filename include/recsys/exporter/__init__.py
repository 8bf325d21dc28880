"""What Prometheus sees of jobs, freshness, quality, outcomes, alerts and Airflow: a process of its
own, because what watches must not go with what it watches. See docs/watching.md."""

from recsys.exporter.server import serve

__all__ = ["serve"]
