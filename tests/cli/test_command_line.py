"""The command line as a person starts it, in a state root where nothing was set up yet."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.settings import REPOSITORY, Settings
from tests.sinks import webhook_sink


@pytest.fixture
def recsys(settings: Settings):
    """Runs ``python -m recsys`` with the words given: exit code, output and errors."""
    settings.home.mkdir()
    foreign = ("AIRFLOW", "RECSYS_", "SMTP_", "SLACK_", "ALERT_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env |= {"RECSYS_HOME": str(settings.home), "PYTHONPATH": str(REPOSITORY / "include")}

    def run(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "recsys", *words], env=env, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_command_works_from_anywhere_and_says_what_it_lacks(tmp_path: Path) -> None:
    if (REPOSITORY / ".venv").exists():
        asked = [str(REPOSITORY / "recsys"), "stats", "--help"]
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0
        assert "--days" in done.stdout
    shutil.copy(REPOSITORY / "recsys", tmp_path)
    bare = subprocess.run([str(tmp_path / "recsys")], capture_output=True, text=True)
    assert (bare.returncode, bare.stdout) == (2, "")
    assert "nothing is installed here yet; run `make up` first" in bare.stderr


def test_the_test_alert_knows_the_channels_of_the_env_file(settings: Settings, recsys) -> None:
    with webhook_sink() as slack:
        (settings.home / ".env").write_text(f"SLACK_WEBHOOK_URL={slack.url}\n")
        code, out, _ = recsys("alerts", "test")
        assert len(slack.posts) == 1
    assert json.loads(out) == {"log": "sent", "email": "not set up", "slack": "sent"}
    assert code == 1


@pytest.mark.parametrize(
    "words", [("data-refresh",), ("model-deployment", "--rollback"), ("tracker", "reconcile")]
)
def test_before_the_first_start_a_command_says_so(recsys, words: tuple[str, ...]) -> None:
    code, _, errors = recsys(*words)
    assert code == 2
    assert "nothing is set up here yet; run `make up` first" in errors
    assert "Traceback" not in errors


def test_a_database_that_cannot_be_opened_is_named(settings: Settings, recsys) -> None:
    (settings.home / ".env").write_text("")
    settings.pipeline_db.parent.mkdir(parents=True)
    settings.pipeline_db.symlink_to(settings.home / "gone" / "away.db")
    assert recsys("stats") == (
        1, "", f"error: {settings.pipeline_db}: unable to open database file\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("stats", "--json"),
        ("registry", "list", "--json"),
        ("deployments", "--json"),
        ("alerts", "recent"),
    ],
)
def test_what_only_looks_says_so_too_and_prints_its_json(
    settings: Settings, recsys, words: tuple[str, ...]
) -> None:
    code, out, errors = recsys(*words)
    assert code == 0
    assert not json.loads(out) or json.loads(out)["stats_by_pipeline"] == {}
    assert "nothing is set up here yet; run `make up` first" in errors
    assert recsys(*words)[2] == errors  # also when looking has made its files
    (settings.home / ".env").write_text("")
    assert recsys(*words)[2] == ""


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("stats", "--days", "99999999999"), "Invalid value for '--days'"),
        (("alerts", "recent", "--limit", "0"), "Invalid value for '--limit'"),
        (
            ("backfill", "x", "--from-date", "2025-02-01", "--to-date", "2025-01-01"),
            "--to-date 2025-01-01 is before --from-date 2025-02-01",
        ),
        (
            ("backfill", "x", "--from-date", "2025-02-01", "--to-date", "2999-01-01"),
            "--to-date 2999-01-01: expected a day from 2000-01-01 to today",
        ),
        (
            ("backfill", "x", "--from-date", "0001-01-01", "--to-date", "2025-01-01"),
            "--from-date 0001-01-01: expected a day from 2000-01-01 to today",
        ),
        (("drift-detection", "--reference-days", "0"), "Invalid value for '--reference-days'"),
        (("model-training", "--model-types", "asl"), "unknown model type 'asl'; expected one of"),
        (
            ("outcomes", "--from", "2026-03-10", "--to", "2026-03-09"),
            "--to 2026-03-09 is before --from 2026-03-10",
        ),
        (("live-at", "0001-01-01T00:00+14:00"), "is no time; expected a time such as"),
        (("nothing",), "No such command 'nothing'"),
    ],
)
def test_a_bad_option_ends_with_a_sentence(recsys, words: tuple[str, ...], error: str) -> None:
    code, _, errors = recsys(*words)
    assert code == 2
    assert error in errors
    assert "Traceback" not in errors


def test_the_status_tells_of_a_job_that_cannot_run(settings: Settings, recsys) -> None:
    folder = settings.home / "config"
    folder.mkdir()
    (folder / "scheduler_config.json").write_text('{"jobs": {"data_refresh": {"cron": "never"}}}')
    for name in ("trainning.yaml", "data.yml", "README.md"):
        (folder / name).write_text("")
    code, out, errors = recsys("scheduler", "status")
    assert code == 1
    assert "STOPPED" in out
    assert "jobs.data_refresh.cron: expected a cron expression" in " ".join(errors.split())
    _, out, _ = recsys("scheduler", "status", "--json")
    problems = json.loads(out)["problems"]
    assert [problem.split(": ")[0].rpartition("/")[2] for problem in problems] == [
        "scheduler_config.json", "data.yml", "trainning.yaml",
    ]  # fmt: skip


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "1e12"])
def test_a_nonsensical_age_is_refused_with_a_sentence(recsys, hours: str) -> None:
    code, _, errors = recsys("tracker", "cleanup", "--hours", hours)
    assert code == 2
    assert "--hours: expected 0 to 8760" in errors


def test_a_mistyped_key_is_named_before_a_job_reads_it(settings: Settings, recsys) -> None:
    (settings.home / "config").mkdir()
    (settings.home / "config" / "data.yaml").write_text("max_shrink_fractoin: 0.1\n")
    for words, expected in ((("scheduler", "status"), 1), (("up",), 2)):
        code, _, errors = recsys(*words)
        assert code == expected
        assert "data.yaml" in errors
        assert "max_shrink_fractoin" in errors
        assert "clean the reviews" not in errors  # the plan of `up`
    assert not (settings.home / ".airflow").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--source", "nix"), "there is no source 'nix': expected one of"),
        (
            ("--source", "hasaki", "--reviews", "nowhere.csv"),
            "nowhere.csv: the file does not exist",
        ),
        (("--source", "hasaki", "--products", "empty.csv"), "reviews.csv: the file does not"),
        (("--reviews", "nowhere.csv"), "name the files' source as well"),
        ((), "hasaki: reviews: "),  # which data.yaml names
    ],
)
def test_what_up_cannot_use_is_refused_before_it_tells_its_plan(
    settings: Settings, recsys, words: tuple[str, ...], told: str
) -> None:
    (settings.home / "config").mkdir()
    (settings.home / "config" / "data.yaml").write_text("source: hasaki\n")
    code, _, errors = recsys("up", *words)
    first, error = errors.strip().split("\n")  # and no plan
    assert code == 2
    assert first == "Checking the settings, the source and its files"
    assert told in error
    assert not (settings.home / "data" / "raw").exists()
    assert not (settings.home / ".env").exists()


def test_a_port_in_use_is_told_before_the_plan(settings: Settings, recsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (settings.home / ".env").write_text(f"RECSYS_SERVICE_PORT={port}\n")
        code, _, errors = recsys("up")
    assert code == 2
    _, error = errors.strip().split("\n")
    assert f"port {port} is in use" in error
    assert not (settings.home / "data" / "raw").exists()


@pytest.fixture
def local(settings: Settings) -> Path:
    folder = settings.home / "config" / "local"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("training.yaml", "tuning: {trails: 3}", "tuning.trails: there is no such key"),
        ("serving.yaml", "workers: 0", "workers: expected at least 1"),
        ("rules.yaml", "rules: [{name: x}]", "rules.0.action of 'x'"),
        ("alerts_config.yaml", "cooldown_minutes: soon", "cooldown_minutes: expected a number"),
        ("scheduler_config.json", '{"timezone": "Asia/Saigong"}', "timezone"),
        ("data.yaml", "source: nix", "source: there is no source 'nix'"),
        ("data.yaml", "events: [nix]", "events: there is no source of events 'nix'"),
        ("scheduler_config.json", '{"jobs": {"refresh": {"enabled": false}}}', "known jobs are da"),
        (
            "deployment.yaml",
            "{canary: {enabled: true, minutes: 12}, require_approval: true}",
            "canary.minutes: expected at most 11.5, which the timeout",
        ),
        ("sources/hasaki.yaml", "reviews: {}", "reviews.path: is missing"),
        ("trainning.yaml", "", "no settings have this name"),
        ("pools.json", "[1", "cannot be read"),
        ("pools.json", '{"outcomes": {"slots": 0}}', "outcomes.slots: expected at least 1"),
        ("pools.json", '{"outcomes": {"slot": 2}}', "outcomes.slot: there is no such key"),
        ("data.yaml", "earliest: 9999-12-31", "earliest: expected a day in the past"),
        ("data.yaml", "\nearliest: 2026-13-01", "line 2: month must be in 1..12"),
    ],
)
def test_a_bad_setting_is_found_before_anything_starts(
    recsys, local: Path, name: str, content: str, told: str
) -> None:
    path = local / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    (local / "drift.yaml").write_text("{}\n")
    code, out, errors = recsys("config", "check", "--json")
    assert code == 2
    assert told in errors
    assert str(path) in errors
    found = json.loads(out)
    assert len(found["problems"]) == 1
    assert set(found["own_files"]) == {str(local / "drift.yaml"), str(path)}


def test_sound_settings_are_said_to_be_so(recsys, local: Path) -> None:
    assert recsys("config", "check")[::2] == (
        0, f"No settings of this shop's own; they belong in {local}\n",
    )  # fmt: skip
    (local / "training.yaml").write_text("tuning: {trials: 3}\n")
    code, out, errors = recsys("config", "check")
    assert (code, errors) == (0, "")
    assert "sound" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--model-id", "../../etc"), "../../etc"),
        (("--model-id", ""), "''"),  # a variable of a shell that is not set
        (("--model-id", "als_1", "--rollback"), "leave --model-id out"),
    ],
)
def test_what_cannot_be_deployed_is_refused_at_once(recsys, words, told: str) -> None:
    code, _, errors = recsys("model-deployment", *words)
    assert code == 2
    assert told in errors
