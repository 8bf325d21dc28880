"""A day and a half in which nothing is wrong: the exporter's own figures of simulated records, and
the service's of a shop that sleeps at night, held against the real rules. Nobody is told."""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from croniter import croniter

from recsys.data.sample import write_sample_shop
from recsys.publishing import write_json
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval, load_schedule
from recsys.settings import Settings
from recsys.tracking import RunStatus
from serving.shared import BUCKETS_MS
from tests.exporter.shop import all_jobs_seen, figures_of, record_run, write_report
from tests.monitoring.rules import alert_rules, promtool_test
from tests.serving.shops import add_model

BEGIN = datetime(2026, 3, 7, 17, 0, tzinfo=UTC)  # midnight between Saturday and Sunday there
HOURS = 36  # with the trainings of Sunday and the drift of Monday
STEP = timedelta(minutes=2)
STEPS = int(timedelta(hours=HOURS) / STEP)
MINUTES = {"data_refresh": 4, "model_training": 55, "bert_embeddings": 20, "drift_detection": 3}
LABELS = {
    "recsys_pipeline_runs": ("pipeline", "status"),
    "recsys_exporter_sound": ("part",),
    "recsys_data_rows": ("what",),
    "recsys_model_quality": ("measure",),
    "recsys_health": ("component",),
    "recsys_outcomes": ("what",),
    "recsys_rate_fall_ratio": ("rate",),
    "recsys_alert_told_timestamp_seconds": ("alert", "severity"),
    "recsys_alert_channel_failing": ("channel",),
}
FOUND = {"silence": 0.3, "lost_share": 0.001, "proven_falls": {"click": 0.02, "purchase": 0.0}}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """As it stood at the beginning of the day: each job succeeded when it was last due."""
    settings = Settings(tmp_path_factory.mktemp("quiet"))
    write_sample_shop(settings, reviews=400, until=date(2026, 3, 7))
    run_refresh(settings, DataInterval(BEGIN - timedelta(days=1), BEGIN))
    add_model(settings, "als_1")
    all_jobs_seen(settings, BEGIN - timedelta(days=60))
    for job, due in last_due(settings, BEGIN).items():
        record_run(settings, job, RunStatus.SUCCESS, due, summary={"alert": FOUND})
    healthy(settings, BEGIN)
    report = {"generated_at": BEGIN.isoformat(), "overall_severity": "low"}
    write_report(settings.reports / "drift", "drift_report_20260302.json", report)
    return settings


def last_due(settings: Settings, moment: datetime) -> dict[str, datetime]:
    schedule = load_schedule(settings)
    local = moment.astimezone(schedule.zone)
    return {
        job: croniter(timing.cron, local).get_prev(datetime).astimezone(UTC)
        for job, timing in schedule.jobs.items()
    }


def healthy(settings: Settings, moment: datetime) -> None:
    checks = {name: {"healthy": True} for name in ("service", "data", "model", "pipeline")}
    report = {"generated_at": moment.isoformat(), "checks": checks}
    write_json(settings.reports / "health" / "latest.json", report)


def live(settings: Settings, moment: datetime, before: datetime) -> None:
    """What the jobs did between two moments."""
    for job, due in last_due(settings, moment + timedelta(seconds=1)).items():
        began = due + timedelta(seconds=20)  # the scheduler takes a moment
        ended = began + timedelta(minutes=MINUTES.get(job, 1))
        if before < began <= moment < ended:
            record_run(settings, job, RunStatus.RUNNING, began)
        elif before < ended <= moment:
            minutes = MINUTES.get(job, 1)
            record_run(settings, job, RunStatus.SUCCESS, began, minutes, {"alert": FOUND})
            if job == "health_check":
                healthy(settings, ended)


def series_of(values: dict[tuple[str, ...], list[float | None]]) -> Iterator[dict[str, str]]:
    for (name, *labels), points in values.items():
        names = LABELS.get(name, ("pipeline",))
        shown = ",".join(f'{key}="{one}"' for key, one in zip(names, labels, strict=False))
        texts = ["_" if point is None else repr(float(point)) for point in points]
        yield {"series": f"{name}{{{shown}}}", "values": " ".join(texts)}


def exported(settings: Settings) -> dict[tuple[str, ...], list[float | None]]:
    """The figures of each step; times as promtool has them, which begins in 1970."""
    found: dict[tuple[str, ...], list[float | None]] = defaultdict(lambda: [None] * STEPS)
    before = BEGIN
    for step in range(STEPS):
        moment = BEGIN + step * STEP
        live(settings, moment, before)
        for key, value in figures_of(settings, moment).items():
            if key[0].startswith("recsys_disk"):  # that of the machine that runs the test
                value = {"recsys_disk_free_bytes": 5e10, "recsys_disk_size_bytes": 1e11}[key[0]]
            since_begin = value - BEGIN.timestamp()
            found[key][step] = since_begin if "timestamp_seconds" in key[0] else value
        before = moment
    return found


def served() -> list[dict[str, str]]:
    """A service with customers by day and next to none at night, and a restart at six."""
    totals: dict[str, float] = defaultdict(float)
    found: dict[str, list[float]] = defaultdict(list)
    bounds = [*(str(bound / 1000) for bound in BUCKETS_MS), "+Inf"]
    for step in range(STEPS):
        hour = step * STEP.total_seconds() / 3600 % 24
        if step * STEP == timedelta(hours=6):
            totals.clear()
        busy = max(0.0, math.sin(math.pi * (hour - 6) / 16)) if 6 <= hour <= 22 else 0
        requests = round(1200 * busy) + (step % 7 == 0)  # at night one in a quarter of an hour
        slow = 0.02 if step % 7 else 0.19
        counts = {
            'recsys_requests_total{endpoint="/recommend",status="2xx"}': requests,
            'recsys_requests_total{endpoint="/recommend",status="5xx"}': requests // 400,
            'recsys_requests_total{endpoint="/health",status="2xx"}': 4,
            'recsys_request_seconds_sum{endpoint="/recommend"}': requests * slow,
            'recsys_request_seconds_count{endpoint="/recommend"}': requests,
            'recsys_lists_total{customer="known",made_by="model"}': requests * 3 // 10,
            'recsys_lists_total{customer="known",made_by="fallback"}': requests // 50,
            'recsys_lists_total{customer="unknown",made_by="fallback"}': requests * 7 // 10,
            "recsys_lists_empty_total": requests // 500,
            "recsys_airflow_tasks_lost_total": 0,
        }
        for bound in bounds:
            inside = requests if float(bound) >= slow else 0
            counts[f'recsys_request_seconds_bucket{{endpoint="/recommend",le="{bound}"}}'] = inside
        for key, count in counts.items():
            totals[key] += count
            found[key].append(totals[key])
    texts = {key: " ".join(map(repr, points)) for key, points in found.items()}
    return [{"series": key, "values": text} for key, text in texts.items()]


def steady() -> list[dict[str, str]]:
    """What is the same all day, and clocks."""
    seconds = int(STEP.total_seconds())
    levels = {
        'up{job="service",instance="a:1"}': 1,
        'up{job="exporter",instance="b:1"}': 1,
        'recsys_file_sound{file="rules"}': 1,
        'recsys_unwritten_seconds{what="request_log"}': 0,
        "recsys_experiment_models_broken": 0,
        "recsys_register_readable": 1,
        "recsys_requests_overdue": 0,
        "recsys_model_created_timestamp_seconds": -6 * 86_400,
        "recsys_airflow_import_errors": 0,
    }
    clocks = (
        'recsys_clock_timestamp_seconds{job="service"}',
        *(
            f'recsys_airflow_heartbeat_timestamp_seconds{{part="{part}"}}'
            for part in ("scheduler", "dag_processor", "triggerer")
        ),
    )
    return [
        *({"series": key, "values": f"{value}+0x{STEPS}"} for key, value in levels.items()),
        *({"series": key, "values": f"-1+{seconds}x{STEPS}"} for key in clocks),
    ]


def test_nobody_is_told_of_a_quiet_day(shop: Settings, tmp_path: Path):
    figures = exported(shop)
    known = {key[0] for key in figures}
    assert "recsys_pipeline_due_timestamp_seconds" in known
    # Jobs did run, and were seen to.
    running = figures["recsys_pipeline_running_seconds", "model_training"]
    assert max(filter(None, running)) > 3000
    quiet: list[dict[str, Any]] = [
        {
            "expr": 'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[36h]))',
            "eval_time": f"{HOURS}h",
            "exp_samples": [],
        },
        # The rates were looked at.
        {
            "expr": "count(count_over_time(recsys:fallbacks:ratio15m[36h]) > 600)",
            "eval_time": f"{HOURS}h",
            "exp_samples": [{"labels": "{}", "value": 1}],
        },
    ]
    series = [*series_of(figures), *served(), *steady()]
    test = {
        "interval": f"{int(STEP.total_seconds())}s",
        "name": "a quiet day",
        "input_series": series,
        "promql_expr_test": quiet,
    }
    promtool_test(tmp_path, [test], interval="1m")


def test_every_figure_of_the_rules_was_there(shop: Settings):
    """A rule over a figure that nobody showed would have been quiet for nothing."""
    shown = {key[0] for key in figures_of(shop, BEGIN)}
    shown |= {one["series"].partition("{")[0] for one in (*served(), *steady())}
    used = {
        name
        for rule in alert_rules().values()
        for name in re.findall(r"\brecsys_\w+", rule["expr"])
    }
    # Of alerts that were told and channels that failed there are none on a quiet day.
    told = {"recsys_alert_told_timestamp_seconds", "recsys_alert_channel_failing"}
    failed = {"recsys_pipeline_failure_timestamp_seconds"}
    assert used - shown == told | failed
