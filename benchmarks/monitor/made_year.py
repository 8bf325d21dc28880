"""A year of a shop's records, as the jobs would have left them: what the monitor reads."""

import json
import math
import sqlite3
from contextlib import closing
from datetime import date, datetime, timedelta

import numpy as np

from recsys.database import connect, transaction
from recsys.health.days import NAME
from recsys.publishing import write_json, write_text
from recsys.settings import Settings
from recsys.tracking import PipelineTracker

DAYS = 365
JOBS = {
    "health_check": (24, 9.0),
    "outcomes": (24, 40.0),
    "data_refresh": (1, 60.0),
    "model_training": (1, 1_500.0),
    "model_deployment": (1, 25.0),
    "forget_customers": (1, 4.0),
    "bert_embeddings": (0.15, 90.0),
    "drift_detection": (0.15, 30.0),
}
"""Job -> runs a day, and seconds of each."""
FAMILIES = ("als", "bpr", "hybrid", "item_knn", "linear")
_CHECKS = ("rating", "popularity", "volume", "activity", "new_users", "campaign", "embedding")
_TRAINING_RUNS = """
CREATE TABLE training_runs (
  run_id TEXT PRIMARY KEY, model_type TEXT, started_at TIMESTAMP, completed_at TIMESTAMP,
  status TEXT, hyperparameters TEXT, recall_at_10 REAL, ndcg_at_10 REAL,
  baseline_recall_at_10 REAL, improvement_pct REAL, model_id TEXT,
  data_version TEXT, error_message TEXT)
"""


def make_year(settings: Settings, now: datetime, days: int = DAYS) -> None:
    """Fill a state root with records of `days` up to `now`."""
    rng = np.random.default_rng(7)
    _days(settings, now, days, rng)
    _runs(settings, now, days, rng)
    _trainings(settings, now, days, rng)
    _drift(settings, now, days, rng)
    _outcomes(settings, now, days, rng)


def _days(settings: Settings, now: datetime, days: int, rng: np.random.Generator) -> None:
    found = {}
    for n in range(days, 0, -1):
        day = now - timedelta(days=n)
        week = 1 + 0.3 * math.sin(n / 7 * 2 * math.pi)
        found[str(day.date())] = {
            "requests": int(40_000 * week * rng.uniform(0.9, 1.1)),
            "avg_latency_ms": float(rng.uniform(2.5, 4)),
            "p95_latency_ms": float(rng.uniform(8, 14)),
            "error_rate": float(rng.uniform(0, 0.002)),
            "fallback_rate": float(rng.uniform(0.1, 0.15)),
            **{"interactions": 400_000 + 900 * (days - n), "users": 60_000, "items": 2_200},
            "newest_event": (day - timedelta(hours=float(rng.uniform(1, 30)))).isoformat(),
        }
    write_json(settings.reports / "health" / NAME, {"days": found})


def _runs(settings: Settings, now: datetime, days: int, rng: np.random.Generator) -> None:
    PipelineTracker(settings.pipeline_db).get_stats()  # makes the table
    metadata = json.dumps({"airflow_run_id": "scheduled__x", "summary": {"text": "x" * 800}})
    rows = []
    for job, (often, seconds) in JOBS.items():
        for n in range(int(days * often)):
            start = now - timedelta(days=n / often)
            lasted = float(seconds * rng.uniform(0.8, 1.3))
            status = "failed" if rng.random() < 0.01 else "success"
            text = (start.isoformat(timespec="microseconds"), None)
            end = (start + timedelta(seconds=lasted)).isoformat(timespec="microseconds")
            rows.append((f"{job}_{n}", job, status, text[0], end, lasted, None, metadata))
    with closing(connect(settings.pipeline_db)) as connection, transaction(connection):
        connection.executemany(
            "INSERT INTO pipeline_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


def _trainings(settings: Settings, now: datetime, days: int, rng: np.random.Generator) -> None:
    with closing(connect(settings.training_db)) as connection, transaction(connection):
        connection.execute(_TRAINING_RUNS)
        for n in range(days):
            for place, family in enumerate(FAMILIES):
                end = (now - timedelta(days=n)).isoformat(timespec="milliseconds")
                recall = 0.08 + 0.01 * place + float(rng.normal(0, 0.002))
                values = (f"{family}_{n}", family, end, end, "success", "{}", recall, recall / 2)
                values += (0.07, 20.0, f"{family}_{n:03}", "v", None)
                connection.execute(f"INSERT INTO training_runs VALUES ({'?, ' * 12}?)", values)


def _drift(settings: Settings, now: datetime, days: int, rng: np.random.Generator) -> None:
    monday = now.date() - timedelta(days=now.weekday())
    for n in range(days // 7):
        week = monday - timedelta(weeks=n)
        checks = {
            f"{name}_drift": {
                "severity": str(rng.choice(["low", "medium", "high"], p=[0.9, 0.07, 0.03])),
                "status": "tested" if rng.random() > 0.1 else "insufficient_data",
                "details": ["x" * 40] * 200,
            }
            for name in _CHECKS
        }
        path = settings.reports / "drift" / f"drift_report_{week:%Y%m%d}.html"
        write_text(path, "<h1>x</h1>")
        write_json(path.with_suffix(".json"), {"overall_severity": "low", **checks})


def _outcomes(settings: Settings, now: datetime, days: int, rng: np.random.Generator) -> None:
    names = ("users", "items", "prompt_purchases", "fallbacks", "bought", "value", "spent")
    names += ("anonymous_lists", "active_users", "repeated", "unvalued")
    for n in range(1, days):
        day: date = (now - timedelta(days=n)).date()
        lists = int(rng.integers(20_000, 30_000))
        totals = {"day": str(day), "lists": lists, "robots": {}, "happened": {}}
        totals |= dict.fromkeys(names, 0)
        totals |= {"clicks": int(lists * 0.06), "carts": int(lists * 0.02)}
        totals |= {"purchases": int(lists * 0.011)}
        write_json(settings.outcomes / f"day={day}" / "totals.json", totals)


def runs_in(settings: Settings) -> int:
    """How many runs are on record."""
    with closing(sqlite3.connect(settings.pipeline_db)) as connection:
        return int(connection.execute("SELECT count(*) FROM pipeline_runs").fetchone()[0])
