"""Tables, on screens of several widths: what is read off them has to stand in one piece."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.cli.output import local_time
from recsys.cli.tables import print_table
from recsys.deployment.history import append_history
from recsys.ids import IdRules
from recsys.orchestration.stack import Stack
from recsys.privacy import ask_to_forget
from recsys.schedule import load_zone
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from tests.data.shop import row, write_shop
from tests.serving.shops import add_model

NOW = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
MODELS = ("als_20260101_020000", "hybrid_20260102_020000", "recent_popularity_20260103_020000")
ERROR = "the verification failed: GET /recommend: no answer in 30 seconds"
ACCOUNT = "nguyen.thi.thanh.huong"


@pytest.fixture
def shown(settings, monkeypatch):
    """What a command prints on a screen of so many columns."""
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))

    def run(width: int, *words: str) -> str:
        done = CliRunner().invoke(app, words, env={"COLUMNS": str(width), "NO_COLOR": "1"})
        assert done.exit_code in (0, 1), done.output
        return done.stdout

    return run


def lines_of(table: str, width: int) -> list[str]:
    lines = table.splitlines()
    assert max(map(len, lines)) <= width
    return lines


def is_whole(value: str, lines: list[str]) -> bool:
    """Whether the value stands in a line, and is no part of another value."""
    return any(value in map(str.strip, line.strip("│").split("│")) for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_models_have_their_ids_times_and_figures_in_one_piece(settings, shown, width):
    for n, model_id in enumerate(MODELS):
        add_model(settings, model_id, recall=0.1 + n / 100, metrics={"ndcg_at_10": 0.05})
    lines = lines_of(shown(width, "registry", "list"), width)
    for one in json.loads(shown(width, "registry", "list", "--json")):
        known = one["model_id"], one["data_version"], f"{one['recall_at_10']:.4f}"
        for value in (*known, local_time(one["created_at"], load_zone(settings))):
            assert is_whole(value, lines)


@pytest.mark.parametrize("width", [80, 120])
def test_deployments_have_their_ids_and_times_in_one_piece(settings, shown, width):
    for n, model_id in enumerate(MODELS):
        known = {"previous_model_id": MODELS[n - 1] if n else None, "status": "rolled_back"}
        moment = (NOW + timedelta(days=n)).isoformat()
        append_history(
            settings, {"timestamp": moment, "model_id": model_id, **known, "error": ERROR}
        )
    lines = lines_of(shown(width, "deployments"), width)
    for value in (*MODELS, "rolled_back", "2026-01-05 10:00:00 +07", "2026-01-07 10:00:00 +07"):
        assert is_whole(value, lines)
    words = " ".join(line.rpartition("│")[0].rpartition("│")[2] for line in lines)
    assert " ".join(words.split()).count(ERROR) == len(MODELS)


@pytest.mark.parametrize("status", [RunStatus.SUCCESS, RunStatus.RUNNING, RunStatus.CANCELLED])
def test_runs_are_counted_in_one_piece(settings, shown, status):
    start = datetime.now(UTC) - timedelta(hours=2)
    tracker = PipelineTracker(settings.pipeline_db)
    jobs = ("model_deployment", "forget_customers", "outcomes")
    for n, job in enumerate(jobs):
        ended = start + timedelta(minutes=26, seconds=53)
        for one in (RunStatus.SUCCESS, RunStatus.FAILED, status):
            end = None if one is RunStatus.RUNNING else ended
            tracker.record_run(RunRecord(f"{n}{one}", job, one, start, end, None, {}))
    lines = lines_of(shown(80, "stats"), 80)
    for value in (*jobs, "50.0%", "26 min 53 s"):
        assert is_whole(value, lines)
    # What no run was takes no room, unless there is enough of it.
    assert is_whole("cancelled", [line.replace("┃", "│") for line in lines]) == (
        status is RunStatus.CANCELLED
    )
    assert "cancelled" in shown(120, "stats")


def test_requests_of_customers_name_who_asked(settings, shown):
    ask_to_forget(settings, ["KH01"], ACCOUNT, IdRules())
    (known,) = json.loads(shown(80, "customer", "requests", "--json"))
    lines = lines_of(shown(80, "customer", "requests"), 80)
    for value in (known["pseudonym"][:9], known["asked_at"][:10], f"due {known['due_at'][:10]}"):
        assert is_whole(value, lines)
    assert "".join(line.split("│")[5].strip() for line in lines if line[0] == "│") == ACCOUNT


def test_the_status_has_its_times_in_one_piece(settings, shown, monkeypatch):
    part = {"name": "execution-api", "state": "STARTING", "pid": 4_194_303}
    monkeypatch.setattr(Stack, "components", lambda stack: [{**part, "uptime_seconds": 8_640_005}])
    lines = lines_of(shown(80, "scheduler", "status"), 80)
    for value in ("execution-api", "STARTING", "4194303", "2400 h 0 min"):
        assert is_whole(value, lines)


def test_a_file_that_is_checked_has_its_times_in_one_piece(settings, shown):
    comment = "rất thích và da mịn hơn và sẽ mua lại nhiều lần nữa"
    write_shop(settings, [row("KH01", "p1", 5, "2025-01-01 10:00:00", comment=comment)])
    file = settings.raw / "viecomrec" / "data_reviews_purchase.csv"
    found = shown(80, "source", "check", str(file))
    title, *lines = found.partition("Look:")[0].splitlines()
    assert title == f"{file} as reviews of viecomrec: 1 of 1 rows"
    lines = lines_of("\n".join(lines), 80)
    for value in ("user_id", "KH01", "5.0", "cmt_date", "2025-01-01 10:00:00 +07"):
        assert is_whole(value, lines)


def test_the_settings_of_a_shop_are_named_by_where_they_stand_in_it(settings, shown):
    local = settings.home / "config" / "local"
    local.mkdir(parents=True)
    (local / "training.yaml").write_text("tuning: {trials: 3}\n")
    title, *lines = shown(80, "config", "check").splitlines()
    assert title.endswith(f"in {settings.home}")
    assert is_whole("config/local/training.yaml", lines)


def test_what_a_cell_says_is_no_markup(capsys):
    print_table("T", ("what",), [("[red]x[/] :smile: [/nothing]",)])
    assert "[red]x[/] :smile: [/nothing]" in capsys.readouterr().out


def test_on_the_narrowest_screen_the_terminal_breaks_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    columns = ("model", "in place of", "why")
    below = {"in place of": "model"}
    print_table("T", columns, [(*MODELS[1:], ERROR)], text=("why",), below=below)
    lines = capsys.readouterr().out.splitlines()
    assert all(is_whole(value, lines) for value in MODELS[1:])
