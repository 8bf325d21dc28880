"""A year of a shop's records, as the jobs would have left them: what the monitor reads."""

import json
import math
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from recsys import schema
from recsys.database import connect, transaction
from recsys.health.days import NAME
from recsys.outcomes.attribution import LIST, POSITION, Fate
from recsys.outcomes.daily import write_day
from recsys.outcomes.figures import BLOCKS, COUNTS, DIMENSIONS, MONEY, WHOLE, DayFigures
from recsys.outcomes.report import write_outcome_report
from recsys.publishing import write_json, write_text
from recsys.schedule import load_zone
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
SILENT = 9
"""So many days ago no event came."""
_HEARD = ("clicks", "carts", "purchases", "prompt_purchases", "value")
_SLICES = {
    "total": {"": (1.0, 0.06)},
    "placement": {"home": (0.5, 0.07), "product": (0.35, 0.055), "cart": (0.15, 0.03)},
    "endpoint": {"recommend": (0.65, 0.06), "similar_items": (0.35, 0.055)},
    "model": {"hybrid_20260101_020000": (0.8, 0.065), "als_20260101_020000": (0.2, 0.05)},
    "source": {"model": (0.9, 0.006), "content": (0.2, 0.004), "rule": (0.1, 0.003)},
    "side": {"": (0.9, 0.06), "holdout/popularity": (0.1, 0.04)},
    "holdout": {"rest": (0.6, 0.06), "holdout": (0.1, 0.04)},
    "position": {str(place): (1.0, 0.012 / (1 + place)) for place in range(6)},
}
"""Slice -> key -> its share of all lists, and clicks per list."""
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
    """Whole days of figures, of which one is silent, and what the job makes of them."""
    today = now.astimezone(load_zone(settings)).date()
    for n in range(1, days):
        write_day(settings, today - timedelta(days=n), _figures(rng, silent=n == SILENT))
    write_outcome_report(settings, today)


def _figures(rng: np.random.Generator, *, silent: bool) -> DayFigures:
    lists = float(rng.integers(20_000, 30_000))
    sums = {
        (name, key): _sums(rng, lists * share, rate)
        for name, keys in _SLICES.items()
        for key, (share, rate) in keys.items()
    }
    frames = []
    for (name, key), found in sums.items():
        if silent:
            found |= {one: 0 * found[one] for one in _HEARD}
        about = {"slice": name, "key": key, "block": np.arange(BLOCKS)}
        frames.append(pd.DataFrame(about | found))
    whole = {name: values.sum() for name, values in sums["total", ""].items()}
    heard = {"click": int(whole["clicks"]), "purchase": int(whole["purchases"])}
    totals = {name: int(whole[name]) for name in WHOLE}
    totals |= {name: float(whole[name]) for name in MONEY}
    totals |= dict.fromkeys(("anonymous_lists", "repeated", "unvalued"), 0)
    totals |= {"active_users": int(0.3 * whole["users"]) * (not silent)}
    totals |= {"robots": dict.fromkeys(("units", "lists", "outcomes"), 0)}
    totals |= {"happened": {str(Fate.ATTRIBUTED): heard}}
    empty = {
        "cube": (*DIMENSIONS, "source", *COUNTS, "value"),
        "units": ("experiment", "variant", "unit", *COUNTS, "value", "fallbacks"),
        "products": (schema.PRODUCT, "shown", "clicks", "carts", "purchases", "value"),
        "explored": (schema.PRODUCT, POSITION, "shown", "clicks"),
        "events": (
            *(LIST, schema.EVENT, schema.PRODUCT, schema.KIND, schema.TIMESTAMP, schema.QUANTITY),
            *(schema.VALUE, POSITION, "source", "unit", *DIMENSIONS),
        ),
    }
    tables = {name: pd.DataFrame(columns=columns) for name, columns in empty.items()}
    return DayFigures(slices=pd.concat(frames), totals=totals, **tables)


def _sums(rng: np.random.Generator, lists: float, rate: float) -> dict[str, np.ndarray]:
    """Of each block of customers, where a list is clicked at that `rate`."""
    given = rng.poisson(lists / BLOCKS, BLOCKS)
    clicks, carts, purchases = (rng.poisson(given * rate * one) for one in (1, 0.4, 0.18))
    value = purchases * rng.gamma(2.0, 150_000, BLOCKS)
    bought = rng.poisson(given * 0.05 * (1 + rate))
    sums = {"lists": given, "users": -(-given // 2), "items": 10 * given, "clicks": clicks}
    sums |= {"carts": carts, "purchases": purchases, "prompt_purchases": purchases}
    sums |= {"fallbacks": given // 9, "bought": bought, "value": value}
    return sums | {"spent": bought * 300_000.0}


def runs_in(settings: Settings) -> int:
    """How many runs are on record."""
    with closing(sqlite3.connect(settings.pipeline_db)) as connection:
        return int(connection.execute("SELECT count(*) FROM pipeline_runs").fetchone()[0])
