"""The page of a run tells its steps in their order."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from recsys.deployment.history import append_history
from recsys.orchestration.monitor.language import Language
from recsys.orchestration.monitor.story import Story, tell
from recsys.publishing import write_text
from recsys.settings import Settings
from tests.data.shop import refresh, row, write_shop
from tests.orchestration.monitor_pages import render
from tests.serving.shops import add_model

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
VI, EN = (Language(code, ZoneInfo("Asia/Ho_Chi_Minh")) for code in ("vi", "en"))


def run(job: str, status: str = "success", error: str | None = None, **about: Any) -> dict:
    return {
        "run_id": f"{job}__1",
        "pipeline_name": job,
        "status": status,
        "started_at": NOW.isoformat(),
        "finished_at": (NOW + timedelta(minutes=5)).isoformat(),
        "duration_seconds": 300.0,
        "error_message": error,
        "metadata": {"airflow_run_id": "1", **about},
    }


def page(settings: Settings, one: dict, summary: dict, language: str = "vi") -> str:
    told = tell(settings, one, summary, VI if language == "vi" else EN)
    shown = {"run": one, "story": told, "pages": [], "airflow_path": "/dags/x"}
    return render(settings, "run.html", language, **shown)


def said(story: Story) -> dict[str, list[str]]:
    return {step.task: step.said for step in story.steps}


def test_a_refresh_says_what_it_read_and_decided(settings: Settings) -> None:
    write_shop(settings, [row(f"u{n}", n % 9) for n in range(12)] + [row("x", rating=9)])
    made = refresh(settings)
    told = tell(settings, run("data_refresh"), {"publish": made, "ingest": made}, EN)
    assert said(told) == {
        "ingest": [
            "13 rows were read of the source viecomrec: 12 valid, 1 refused.",
            "12 of them are new.",
            "Decision: build everything afresh.",
        ],
        "publish": [
            f"Version {made['version_id']}, 12 rows.",
            "Everything uses this version from then on.",
        ],
    }
    assert "1: the rating is outside 1-5" in told.steps[0].quoted


def test_the_failed_step_stands_first_with_its_sentence(settings: Settings) -> None:
    errors = {"publish": "OSError: the disk is full"}
    error = "publish: OSError: the disk is full"
    failed = run("data_refresh", "failed", error, failing_task="publish", task_errors=errors)
    for language, words in (("vi", "Hỏng ở bước"), ("en", "It failed at")):
        text = page(settings, failed, {"ingest": {"rows": 3}}, language)
        assert text.index(words) < text.index("the disk is full") < text.index("<dl>")


def test_errors_of_an_earlier_try_are_not_those_of_a_run_that_succeeded(settings: Settings) -> None:
    again = run("data_refresh", task_errors={"ingest": "OSError: busy"}, failing_task=None)
    assert "busy" not in page(settings, again, {"ingest": {}})


def test_a_training_shows_each_model_with_its_interval_and_why(settings: Settings) -> None:
    add_model(
        settings, "als_20260301_030000", metrics={"recall_at_10_high": 0.2, "ndcg_at_10": 0.1}
    )
    trained = [
        {
            "model_id": "als_20260301_030000",
            "recall_at_10": 0.15,
            "passes": True,
            "duration_seconds": 9,
        },
        {"model_id": "bpr_20260301_030000", "recall_at_10": 0.05, "passes": False, "reason": "low"},
        {"model_id": "linear_20260301_030000", "recall_at_10": 0.16, "passes": True},
    ]
    choice = {"model_id": "als_20260301_030000", "changed": True, "reason": "most personal"}
    choice["refused"] = {"linear_20260301_030000": "loses too much in a segment"}
    summary = {"train": [*trained, None], "select_best": choice}
    rows = tell(settings, run("model_training"), summary, VI).trainings
    assert [(one.family, one.outcome, one.why) for one in rows] == [
        ("linear", "refused", "loses too much in a segment"),
        ("als", "chosen", "most personal"),
        ("bpr", "refused", "low"),
    ]
    assert rows[1].recall[0] == 0.15
    assert rows[1].recall[2] == 0.2
    text = page(settings, run("model_training"), summary)
    assert "0,1500" in text
    assert "loses too much in a segment" in text


def test_a_deployment_that_failed_shows_what_was_verified_and_rolled_back(
    settings: Settings,
) -> None:
    entry = {
        "timestamp": (NOW + timedelta(minutes=1)).isoformat(),
        **{"model_id": "als_2", "previous_model_id": "als_1", "status": "rolled_back"},
        "verification": {"health_check": True, "model_id_match": False},
    }
    append_history(settings, {**entry, "timestamp": "2026-01-01T00:00:00+00:00"})
    append_history(settings, entry)
    failed = run("model_deployment", "failed", "deploy: no", failing_task="deploy")
    plan = {"model_id": "als_2", "serving": "als_1", "reason": "it is the current best"}
    told = tell(settings, failed, {"check_gate": plan}, EN)
    assert said(told) == {
        "check_gate": ["als_2 is to take the place of als_1."],
        "deploy": ["als_2 did not pass; als_1 was brought back."],
    }
    assert told.steps[1].checks == {"health_check": True, "model_id_match": False}
    assert told.failed == [told.steps[1]]


def test_a_week_that_was_not_judged_is_told_as_that(settings: Settings) -> None:
    found = {"overall_severity": "not judged", "raised": [], "not_judged": ["rating"]}
    told = tell(settings, run("drift_detection"), {"detect": found | {"events": 0, "rows": 0}}, VI)
    assert said(told)["detect"][:2] == [
        "Tuần này có quá ít dữ liệu để đánh giá.",
        "Chưa đánh giá được: Số sao.",
    ]


def test_a_dry_run_of_the_maintenance_removes_nothing(settings: Settings) -> None:
    part = {"models": {"count": 2, "freed_bytes": 3 * 2**20, "examples": []}}
    for dry, end in ((True, "Dry run: nothing was removed."), (False, "They were removed.")):
        whole = {"dry_run": dry, "freed_bytes": 3 * 2**20, "removed": part}
        summary = {"clean_models": part, "summarise": whole}
        assert said(tell(settings, run("maintenance"), summary, EN)) == {
            "clean_models": ["2 things past their days, 3.0 MB."],
            "summarise": [end],
        }


ODD = (None, [], 3, "x", {"rows": 3}, {"verification": 1}, {"made": None})


@pytest.mark.parametrize("odd", ODD)
def test_results_of_an_unknown_form_are_shown_as_they_are(settings: Settings, odd: Any) -> None:
    write_text(settings.deployment_history, "{")
    for job, tasks in {
        "data_refresh": ("ingest", "publish"),
        "model_training": ("train", "select_best"),
        "model_deployment": ("check_gate", "deploy"),
        "drift_detection": ("detect",),
        "health_check": ("check_data", "evaluate"),
        "outcomes": ("compute", "report", "judge_experiments"),
        "maintenance": ("clean_models",),
        "shops_own": ("anything",),
    }.items():
        summary = dict.fromkeys(tasks, odd)
        assert [one.task for one in tell(settings, run(job), summary, VI).steps] == list(tasks)
        assert "shops_own" in page(settings, run(job), summary) or job != "shops_own"
