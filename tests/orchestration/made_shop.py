"""The state root of a shop that has something to say on every page of the monitor."""

from datetime import datetime, timedelta

import numpy as np

from benchmarks.experiments.sequential import Shop, simulate
from benchmarks.monitor.made_year import make_year
from recsys.alerting import Alert, AlertManager, RunEvent, Severity
from recsys.alerting.runs import tell_of_run
from recsys.data.simulated import note_traffic
from recsys.deployment.comparison import note_comparison
from recsys.deployment.history import append_history
from recsys.experiments.evaluation import evaluate
from recsys.experiments.state import Experiments
from recsys.ids import IdRules
from recsys.models.hybrid import Hybrid
from recsys.orchestration.mirror import tracker_id
from recsys.privacy import ask_to_forget
from recsys.publishing import write_json
from recsys.registry import Registry
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from tests.data.shop import refresh, row, write_shop
from tests.experiments.test_evaluation import write_days
from tests.experiments.test_state import definition
from tests.merchandising.test_rules import RULE
from tests.merchandising.test_rules import write as write_rules
from tests.serving.shops import ITEMS, add_model, histories

OF_OTHERS = "No space left on device"
"""What a program that is not ours said."""
JOB, RUN = "data_refresh", "manual__2026-01-05T02:00:00.5+00:00"
STORY = "scheduled__2026-01-05T02:00:00+00:00"
INGESTED = {
    "rows": {"read": 1_234, "valid": 1_200, "quarantined": 34},
    "changes": {"new": 200},
    "source": "viecomrec",
    "files_read": ["don_hang.csv"],
    "strategy": "full",
    "reason": "123 new interactions, more than 100",
    "dry_run": False,
    "quarantined_by_reason": {"the rating is outside 1-5": 34},
    "files_set_aside": [{"file": "bad.csv", "reason": "bad.csv: the file is empty"}],
}
LOST = "does not beat popularity (0.0900 against 0.1000 recall@10)"
NOT_VERIFIED = "the verification failed: recommendations_work: the list is empty"
# Names that no two sizes of one product have.
NAMES = [f"Son {'aeiou'[n % 5] * 3}{'bcdghklm'[n // 5] * 3}" for n in range(ITEMS)]
CATALOGUE = [f"p{n},{NAMES[n]},Đẹp,Trang điểm,{n}000,Mô tả" for n in range(1, ITEMS)]
BEFORE, HELD = ("als_20260101_020000", "hybrid_20260102_020000"), "als_20260103_020000"
REPORT = "drift_report_20260105.html"
EXPERIMENT = "tron-lan-dau"


def make_shop(settings: Settings, now: datetime) -> None:
    """Fill an empty state root with what the jobs of a shop leave, as of `now`."""
    make_year(settings, now, days=40)
    add_models(settings, now)
    publish(settings)
    write_health(settings, now)
    write_runs(settings, now)
    write_stories(settings, now)
    write_reports(settings)
    alerts = AlertManager(settings)
    said = f"ingest: {OF_OTHERS}"
    tell_of_run(RunEvent("task_failed", JOB, RUN, "manual", task="ingest", error=said), settings)
    alerts.send_alert("data_drift", "drift of volume", "warning")
    for name in ("tracking_silent", "served_lists_lost"):
        alerts.deliver(Alert(name, "no event has come", Severity.CRITICAL, until_resolved=True))
    alerts.resolve("tracking_silent", "events are coming again")
    assert note_comparison(settings, *BEFORE) is not None
    add_experiment(settings, now)
    write_rules(settings, RULE | {"reason": "thu hồi theo lô"}, hide_expired(now))
    ask_to_forget(settings, ["KH01", "KH02"], "lan", IdRules())
    note_traffic(settings, now - timedelta(days=3), now, lists=1_200, events=40)


def publish(settings: Settings) -> None:
    """A version in which customer 2 has rated p1, p2 and p3, and nobody p9."""
    rows = [row("2", f"p{n}", 3 + n % 3, f"2025-01-0{n} 10:00:00") for n in (1, 2, 3)]
    write_shop(settings, [*rows, row("3", "p1")], CATALOGUE)
    refresh(settings)


def add_models(settings: Settings, now: datetime) -> None:
    """Two models that served one after the other, and one that was taken out of service."""
    figures = {"ndcg_at_10": 0.05, "recall_at_10_high": 0.14, "newcomer_overlap": 3.2}
    segment = {"users": 210, "recall_at_10": 0.09, "recall_at_10_low": 0.07}
    segments = {"new_products": segment | {"recall_at_10_high": 0.11}}
    for n, model_id in enumerate(BEFORE):
        add_model(
            settings,
            model_id,
            model=Hybrid.create({}).fit(histories(), ITEMS) if n else None,
            seed=n,
            recall=0.1 + n / 100,
            metrics=figures,
            segments=segments,
        )
        replaced = {"previous_model_id": BEFORE[n - 1] if n else None, "status": "success"}
        moment = (now - timedelta(days=60 - 50 * n)).isoformat()
        append_history(settings, {"timestamp": moment, "model_id": model_id, **replaced})
    add_model(settings, HELD, metrics=figures, segments=segments, select=False)
    folder = settings.artifacts / "als" / HELD
    scores = [0.1, None, 0.12, 0.11]
    tried = [
        {"parameters": {"factors": 32 * n, "alpha": 4.5}, "score": score, "passes": [0.05, 0.1]}
        for n, score in enumerate(scores, start=1)
    ]
    curves = {"iterations": {"loss": [3.0, 2.0, 1.5]}, "search": [0.1, 0.12], "trials": tried}
    write_json(folder / "evaluation.json", {"curves": curves})
    Registry(settings).hold(HELD)
    failed = {"status": "rolled_back", "error": NOT_VERIFIED}
    checks = {"health_check": True, "model_id_match": False, "recommendations_work": False}
    failed["verification"] = checks
    known = {"model_id": HELD, "previous_model_id": BEFORE[-1], **failed}
    append_history(settings, {"timestamp": now.isoformat(), **known})


def add_experiment(settings: Settings, now: datetime) -> None:
    """One that has run for three weeks, as the outcomes job left it, and one that has just begun
    elsewhere."""
    began = now - timedelta(days=20)
    sides = [("hien-nay", None), ("moi", BEFORE[0])]
    variants = [{"name": name, "share": 0.5, "model_id": one} for name, one in sides]
    asked = {"question": "Mô hình mới có được bấm nhiều hơn không?", "variants": variants}
    first = definition(EXPERIMENT, placements=["home"], **asked)
    Experiments(settings).start(first, "lan", now=began)
    visits = simulate(np.random.default_rng(1), Shop(300, 2000), 21, uplift=0.3)
    write_days(*(settings, visits), name=EXPERIMENT, names=("hien-nay", "moi"), first=began.date())
    evaluate(settings, now)
    begun = definition("tron-lan-hai", placements=["cart"], **asked)
    Experiments(settings).start(begun, "lan", now=now)


def write_health(settings: Settings, now: datetime) -> None:
    checks = {
        "service": {
            "healthy": False,
            "severity": "critical",
            "error": "GET /health failed: ReadTimeout",
        },
        "data": {
            "healthy": True,
            "newest_event": (now - timedelta(days=3)).isoformat(),
            **{"interactions": 123_456, "users": 5_000, "items": 800},
        },
        "model": {
            "healthy": False,
            "severity": "warning",
            "error": "the service serves als_1, although als_2 was selected 30 hours ago",
        },
        "pipeline": {"healthy": True},
    }
    metrics = {"window_minutes": 60, "requests": 1_234, "p95_latency_ms": 12.3}
    metrics |= {"error_rate": 0.001, "fallback_rate": 0.12}
    report = {
        "generated_at": now.isoformat(),
        "status": "critical",
        **{"checks": checks, "metrics": metrics},
        "overdue_jobs": {"model_training": {}},
        "alerts": [{"alert_name": "high_latency"}],
    }
    write_json(settings.reports / "health" / "latest.json", report)


def write_runs(settings: Settings, now: datetime) -> None:
    tracker = PipelineTracker(settings.pipeline_db)
    summary = {"detect": {"page": f"reports/drift/{REPORT}"}, "ingest": INGESTED}
    about = {"airflow_run_id": RUN, "run_type": "manual", "summary": summary}
    interval = {"data_interval_start": (now - timedelta(days=1)).isoformat()}
    about |= {**interval, "data_interval_end": now.isoformat(), "conf": {"force_full": True}}
    for job, hours, status, error in (
        (JOB, 30, RunStatus.SUCCESS, None),
        (JOB, 2, RunStatus.FAILED, f"publish: OSError: {OF_OTHERS}"),
        ("model_training", 3, RunStatus.SUCCESS, None),
        ("outcomes", 1, RunStatus.RUNNING, None),
    ):
        start = now - timedelta(hours=hours)
        end = None if status is RunStatus.RUNNING else start + timedelta(seconds=90)
        known = tracker_id(JOB, RUN) if error else f"{job}_{hours}"
        run = RunRecord(known, job, status, start, end, error, about if error else {})
        tracker.record_run(run)


def write_stories(settings: Settings, now: datetime) -> None:
    """A run of the training, of drift, and of a deployment that was rolled back."""
    trained = {
        "baseline_recall_at_10": 0.1,
        **{"recall_at_10": 0.11, "ndcg_at_10": 0.05, "duration_seconds": 61.2, "passes": True},
    }
    trainings = [trained | {"model_id": one} for one in (*BEFORE, HELD)]
    trainings[0] |= {"passes": False, "reason": LOST}
    choice = {
        "model_id": BEFORE[1],
        "changed": True,
        "reason": "highest lower bound of ndcg_at_10: 0.04 (value 0.05)",
    }
    found = {"overall_severity": "not judged", "raised": [], "not_judged": ["rating", "volume"]}
    swap = {"model_id": HELD, "serving": BEFORE[1], "reason": "it is the registry's current best"}
    failed = f"deploy: DeploymentFailedError: {NOT_VERIFIED}"
    for job, summary, error in (
        ("model_training", {"train": trainings, "select_best": choice | {"refused": {}}}, None),
        ("drift_detection", {"detect": found | {"events": 0, "rows": 0}}, None),
        ("model_deployment", {"check_gate": swap}, failed),
    ):
        status = RunStatus.FAILED if error else RunStatus.SUCCESS
        about = {"airflow_run_id": STORY, "run_type": "scheduled", "summary": summary}
        about |= {"failing_task": "deploy"} if error else {}
        start, end = now - timedelta(hours=1), now + timedelta(minutes=1)
        run = RunRecord(tracker_id(job, STORY), job, status, start, end, error, about)
        PipelineTracker(settings.pipeline_db).record_run(run)


def write_reports(settings: Settings) -> None:
    reports = settings.reports
    for folder, name in (
        ("drift", REPORT),
        ("data_quality", "20260105T020000Z-a.html"),
        ("experiments", "blend.html"),
    ):
        (reports / folder).mkdir(parents=True, exist_ok=True)
        page = "<html lang='vi'><title>x</title><h1>Tuần yên ổn</h1>"
        (reports / folder / name).write_text(page, encoding="utf-8")
    write_json(
        (reports / "drift" / REPORT).with_suffix(".json"), {"overall_severity": "not judged"}
    )


def hide_expired(now: datetime) -> dict:
    return RULE | {
        "name": "old-campaign",
        "action": "hide",
        "products": {"brands": ["Cocoon"], "max_price": 99_000},
        "end": (now - timedelta(days=1)).isoformat(),
    }
