"""The command that says which model served at a moment."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.deployment.history import append_history
from recsys.errors import InputError
from recsys.settings import Settings

DAY = datetime(2026, 1, 5, 22, tzinfo=UTC)  # 05:00 of the next day in the shop


@pytest.fixture
def ask(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    for n, model_id in enumerate(("als_1", "als_2")):
        before = f"als_{n}" if n else None
        about = {"model_id": model_id, "previous_model_id": before, "status": "success"}
        append_history(settings, {"timestamp": (DAY + timedelta(days=n)).isoformat(), **about})

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["live-at", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


def test_a_moment_is_local_time_of_the_shop(ask) -> None:
    said = ask("2026-01-06 10:00")
    assert said == (
        "2026-01-06 10:00 (Asia/Ho_Chi_Minh): als_1 served, since 2026-01-06 05:00, "
        "until 2026-01-07 05:00\n"
    )
    assert "als_2 served, since 2026-01-07 05:00, until now" in ask("2026-01-07 05:00")
    assert "no model is on record" in ask("2026-01-06 04:59")
    assert "als_1 served" in ask("2026-01-05T22:30+00:00")


def test_machines_get_json(ask) -> None:
    found = json.loads(ask("2026-01-06 10:00", "--json"))
    assert found == {
        "at": "2026-01-06T10:00:00+07:00",
        "model_id": "als_1",
        "since": "2026-01-06T05:00:00+07:00",
        "until": "2026-01-07T05:00:00+07:00",
    }


@pytest.mark.parametrize(("moment", "why"), [("tuesday", "no time"), ("2999-01-01", "still to")])
def test_what_is_no_moment_of_the_past_is_refused(ask, moment: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        ask(moment)
