import json
from datetime import timedelta
from typing import Any

import pytest

from recsys.config import ConfigError
from recsys.health.pipelines import check_pipeline_health
from recsys.registry import Registry
from recsys.schedule import SchedulerConfig, load_schedule, load_zone
from recsys.settings import REPOSITORY, Settings

# As the commissioning document has it: no deadlines, two jobs.
SEED = {
    "timezone": "Asia/Ho_Chi_Minh",
    "jobs": {
        "data_refresh": {"enabled": True, "cron": "0 2 * * *", "timeout_minutes": 30},
        "health_check": {"enabled": True, "cron": "0 * * * *", "timeout_minutes": 5},
    },
}
TIMETABLE = {
    "data_refresh": ("0 2 * * *", 30, 20),
    "bert_embeddings": ("0 3 * * 2", 60, 40),
    "drift_detection": ("0 9 * * 1", 15, 10),
    "model_training": ("0 3 * * 0", 120, 90),
    "model_deployment": ("0 5 * * *", 15, 10),
    "health_check": ("0 * * * *", 5, 3),
    "outcomes": ("20 * * * *", 15, 10),
    "forget_customers": ("30 1 * * *", 120, 60),
}


def write(settings: Settings, content: Any) -> str:
    path = settings.home / "config" / "scheduler_config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def jobs(**entries: Any) -> dict[str, Any]:
    return {"jobs": entries}


def test_a_file_without_deadlines_and_with_two_jobs_keeps_the_other_jobs(
    settings: Settings,
) -> None:
    write(settings, SEED)
    schedule = load_schedule(settings)
    assert schedule.problems == {}
    assert schedule.job("data_refresh").deadline == timedelta(minutes=20)
    assert schedule.job("health_check").deadline == timedelta(minutes=5) * 2 / 3
    others = {
        name: (job.cron, job.timeout, job.deadline)
        for name, job in schedule.jobs.items()
        if name in TIMETABLE and name not in SEED["jobs"]
    }
    assert others == {
        name: (cron, timedelta(minutes=timeout), timedelta(minutes=deadline))
        for name, (cron, timeout, deadline) in TIMETABLE.items()
        if name not in SEED["jobs"]
    }


def test_the_documented_timetable_stands_without_any_file() -> None:
    documented = SchedulerConfig().jobs
    assert {
        name: (job.cron, job.timeout_minutes, job.deadline_minutes)
        for name, job in documented.items()
        if name in TIMETABLE
    } == TIMETABLE


def test_another_timeout_brings_another_deadline(settings: Settings) -> None:
    write(settings, jobs(model_training={"timeout_minutes": 240}))
    assert load_schedule(settings).job("model_training").deadline == timedelta(minutes=160)
    write(settings, jobs(model_training={"timeout_minutes": 240, "deadline_minutes": 200}))
    assert load_schedule(settings).job("model_training").deadline == timedelta(minutes=200)
    write(settings, jobs(model_training={"cron": "0 4 * * 0"}))
    assert load_schedule(settings).job("model_training").deadline == timedelta(minutes=90)


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"cron": "at two o'clock"}, "cron: expected a cron expression"),
        ({"cron": "0 2 * *"}, "cron: expected a cron expression"),
        ({"cron": "0 2 * * * *"}, "cron: expected a cron expression"),
        ({"cron": "0 0 30 2 *"}, "cron: expected a cron expression"),
        ({"cron": 5}, "cron: expected text"),
        ({"timeout_minutes": 1e9}, "timeout_minutes: expected at most a hundred years"),
        ({"timeout_minutes": 0}, "timeout_minutes: expected more than 0"),
        ({"corn": "0 2 * * *"}, "corn: there is no such key: expected one of enabled, cron"),
    ],
)
def test_a_bad_entry_stops_no_other_job(settings: Settings, entry: Any, key: str) -> None:
    path = write(settings, jobs(data_refresh=entry))
    schedule = load_schedule(settings)
    assert set(schedule.names) - set(schedule.jobs) == {"data_refresh"}
    with pytest.raises(ConfigError) as caught:
        schedule.job("data_refresh")
    assert str(caught.value).startswith(f"{path}: jobs.data_refresh.{key}")


def test_an_entry_that_is_no_mapping_stops_no_other_job(settings: Settings) -> None:
    write(settings, jobs(data_refresh="daily"))
    schedule = load_schedule(settings)
    assert list(schedule.problems) == ["data_refresh"]
    assert "health_check" in schedule.jobs


def test_a_job_of_the_shops_own_needs_its_cron_and_timeout(settings: Settings) -> None:
    write(settings, jobs(stock_report={"cron": "30 6 * * *", "timeout_minutes": 5}, other={}))
    schedule = load_schedule(settings)
    assert schedule.job("stock_report").timeout == timedelta(minutes=5)
    assert "jobs.other.cron: is missing" in schedule.problems["other"]
    with pytest.raises(ConfigError, match=r"jobs.nothing: the job has no entry"):
        schedule.job("nothing")


def test_a_bad_entry_does_not_stop_those_who_want_the_time_zone(settings: Settings) -> None:
    write(settings, {"timezone": "Asia/Tokyo", "job": 3} | jobs(data_refresh={"cron": "never"}))
    assert load_zone(settings).key == "Asia/Tokyo"
    assert Registry(settings).current_best() is None


@pytest.mark.parametrize("zone", ["Mars", "", "../etc", "Asia", "x" * 300, 7, None])
def test_a_bad_time_zone_is_named(settings: Settings, zone: Any) -> None:
    path = write(settings, {"timezone": zone})
    for load in (load_zone, load_schedule):
        with pytest.raises(ConfigError) as caught:
            load(settings)
        assert str(caught.value).startswith(f"{path}: timezone: ")


def test_a_mistyped_section_is_named(settings: Settings) -> None:
    path = write(settings, {"job": {}})
    with pytest.raises(ConfigError) as caught:
        load_schedule(settings)
    assert str(caught.value) == (
        f"{path}: job: there is no such key: expected one of timezone, log_format, jobs"
    )
    write(settings, {"jobs": 3})
    with pytest.raises(ConfigError, match="jobs: expected keys with values"):
        load_schedule(settings)


def test_the_health_check_tells_of_a_job_that_cannot_run(settings: Settings) -> None:
    write(settings, jobs(data_refresh={"cron": "never"}))
    result = check_pipeline_health(settings)
    assert result["healthy"] is False
    assert "data_refresh does not run: " in result["error"]
    assert "jobs.data_refresh.cron" in result["error"]


def test_the_shipped_file_is_the_documented_timetable() -> None:
    assert load_schedule(Settings(REPOSITORY)).jobs == SchedulerConfig().jobs


def after(**jobs_after: list[str]) -> dict[str, Any]:
    return jobs(**{job: {"after": names} for job, names in jobs_after.items()})


def test_no_job_follows_anything_unless_it_is_told_to(settings: Settings) -> None:
    assert all(job.after == () for job in load_schedule(settings).jobs.values())
    chain = {
        "data_refresh": ["raw_drop"],
        "model_training": ["data_version"],
        "model_deployment": ["selected_model"],
        "drift_detection": ["embeddings", "outcomes"],
    }
    write(settings, after(**chain))
    schedule = load_schedule(settings)
    assert schedule.problems == {}
    assert {job: list(schedule.job(job).after) for job in chain} == chain
    assert schedule.job("data_refresh").cron == "0 2 * * *"


def test_what_no_job_makes_can_not_be_followed(settings: Settings) -> None:
    path = write(settings, after(model_training=["data_versions"]))
    with pytest.raises(ConfigError) as refused:
        load_schedule(settings).job("model_training")
    assert str(refused.value).startswith(path)
    assert "'data_versions' is none of raw_drop, data_version, embeddings, " in str(refused.value)


@pytest.mark.parametrize(
    ("follows", "bad"),
    [
        ({"data_refresh": ["data_version"]}, {"data_refresh"}),
        ({"outcomes": ["served_model", "outcomes"]}, {"outcomes"}),
        (
            {"model_training": ["served_model"], "model_deployment": ["selected_model"]},
            {"model_training", "model_deployment"},
        ),
    ],
)
def test_a_job_that_would_start_itself_is_refused_and_no_other(
    settings: Settings, follows: dict[str, list[str]], bad: set[str]
) -> None:
    write(settings, after(**follows))
    schedule = load_schedule(settings)
    assert schedule.problems.keys() == bad
    assert set(TIMETABLE) - bad <= schedule.jobs.keys()
    for job in bad:
        with pytest.raises(ConfigError, match=f"jobs.{job}.after: {job} would start itself"):
            schedule.job(job)


def test_a_job_that_another_one_starts_when_it_is_needed_does_not_follow_the_same(
    settings: Settings,
) -> None:
    write(settings, after(bert_embeddings=["data_version"]))
    with pytest.raises(ConfigError, match="data_refresh starts bert_embeddings itself"):
        load_schedule(settings).job("bert_embeddings")


@pytest.mark.parametrize(
    ("content", "minutes"),
    [
        ("require_approval: false\napproval_hours: 3\n", (15, 10)),
        ("require_approval: true\napproval_hours: 3\n", (195, 190)),
        ("require_approval: true\n", (735, 730)),
        ("require_approval: maybe\n", (15, 10)),  # of which the job itself tells
        ("require_approval: [", (15, 10)),
    ],
)
def test_a_deployment_may_last_as_long_as_its_question(settings: Settings, content, minutes):
    path = settings.home / "config" / "deployment.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    schedule = load_schedule(settings)
    job = schedule.job("model_deployment")
    assert (job.timeout, job.deadline) == tuple(timedelta(minutes=one) for one in minutes)
    assert schedule.job("health_check").timeout == timedelta(minutes=5)
