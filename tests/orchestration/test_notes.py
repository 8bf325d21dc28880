"""The note that a run leaves in Airflow's UI."""

import json

import pytest

from recsys.models.model_types import MODEL_TYPES
from recsys.orchestration.choices import FAMILIES, model_ids
from recsys.orchestration.notes import LONGEST, note_of
from recsys.publishing import write_json
from recsys.schedule import load_schedule
from recsys.settings import REPOSITORY, Settings

DRIFT = {"report_date": "20240603", "overall_severity": "not judged", "raised": []}
SUMMARIES = {
    "data_refresh": (
        {"ingest": {"note": "Strategy full: there is no previous version."}, "publish": {}},
        "Strategy full: there is no previous version.",
    ),
    "bert_embeddings": (
        {"embed": {"new_set": True, "set_id": "s1", "encoded": 12, "products": 1200, "model": "m"}},
        "New set s1: 12 products encoded of 1,200, by m.",
    ),
    "drift_detection": (
        {
            "detect": DRIFT | {"not_judged": ["rating", "volume"]},
            "summarise": {"retrain_reason": None},
        },
        "The week before 20240603: not judged. Not judged: rating, volume.",
    ),
    "model_training": (
        {
            "train": [
                {"model_id": "als_20260101_020000", "recall_at_10": 0.0512, "passes": True},
                {"model_id": "bpr_20260101_020000", "recall_at_10": 0.01, "passes": False},
            ],
            "select_best": {"changed": True, "model_id": "als_1", "reason": "it is the best"},
        },
        "als recall 0.0512; bpr recall 0.0100 (does not pass); selected als_1: it is the best.",
    ),
    "model_deployment": (
        {
            "check_gate": {"model_id": "als_2", "serving": "als_1"},
            "deploy": {
                "status": "success",
                "model_id": "als_2",
                "previous_model_id": "als_1",
                "reason": "it is the current best",
            },
        },
        "als_2 took the place of als_1: it is the current best. Verified.",
    ),
    "health_check": (
        {"evaluate": {"status": "critical", "unhealthy": ["service"], "alerts": ["high_latency"]}},
        "Critical. Unhealthy: service. Rules broken: high_latency.",
    ),
    "outcomes": (
        {
            "compute": {"made": ["2026-03-01"], "lost": 0},
            "report": {"days": 28, "lists": 1234, "clicks": 56, "purchases": 7},
            "judge_experiments": {"verdicts": {"blend": "running"}},
        },
        "Days made again: 1. In 28 days 1,234 lists, 56 clicks, 7 purchases. "
        "Experiment blend: running.",
    ),
    "maintenance": (
        {
            "clean_models": {"models": {"count": 2, "freed_bytes": 3 * 2**20, "examples": []}},
            "clean_airflow": {"records": {"count": 0, "freed_bytes": 2**20, "examples": []}},
            "summarise": {"dry_run": False, "freed_bytes": 4 * 2**20, "removed": {}},
        },
        "2 things removed, 4.0 MB freed.",
    ),
    "forget_customers": (
        {"forget": {"requests": 2, "forgotten": 1, "open": 1, "came_back": 0}},
        "1 of 2 requests done. 1 are still open: see docs/privacy.md.",
    ),
}


def test_every_job_has_a_note() -> None:
    assert set(SUMMARIES) == set(load_schedule(Settings(REPOSITORY)).names)


@pytest.mark.parametrize("job", SUMMARIES)
def test_a_note_says_what_the_results_of_the_tasks_mean(job: str) -> None:
    summary, said = SUMMARIES[job]
    assert note_of(job, summary, None) == said


@pytest.mark.parametrize("job", SUMMARIES)
def test_a_run_that_returned_something_else_has_a_note_or_none(job: str) -> None:
    tasks = SUMMARIES[job][0]
    for odd in (None, {}, [], "skipped", 3, {"recall_at_10": None}):
        note_of(job, dict.fromkeys(tasks, odd), None)
    assert note_of(job, {}, None) in (None, "0 things removed, 0.0 MB freed.")


@pytest.mark.parametrize("job", SUMMARIES)
def test_the_note_of_a_failed_run_says_why_first(job: str) -> None:
    said = note_of(job, SUMMARIES[job][0], "publish: the disk is full " + "x" * 2_000)
    assert said is not None
    assert said.startswith("Failed. publish: the disk is full")
    assert len(said) == LONGEST


def test_the_forms_offer_every_family() -> None:
    assert sorted(MODEL_TYPES) == list(FAMILIES)


def test_the_forms_offer_the_newest_models_that_are_not_archived(settings: Settings) -> None:
    assert model_ids(settings) == []
    models = {f"als_{n:02}": {"created_at": f"2026-01-{n:02}"} for n in range(1, 32)}
    models["als_31"]["status"] = "archived"
    models["als_30"]["status"] = "held"
    write_json(settings.registry, {"current_best": None, "models": models, "metadata": {}})
    offered = model_ids(settings)
    assert offered[:2] == ["als_30", "als_29"]
    assert len(offered) == 30


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"models": []}', b'{"models": {"a": 1}}', b"\xff", b"[" * 9999]
)
def test_a_registry_that_cannot_be_read_offers_nothing(settings: Settings, content: bytes) -> None:
    settings.registry.parent.mkdir(parents=True)
    settings.registry.write_bytes(content)
    assert model_ids(settings) == []
    settings.registry.unlink()
    settings.registry.write_text(json.dumps({"models": {"a": {"status": "active"}}}))
    assert model_ids(settings) == []
