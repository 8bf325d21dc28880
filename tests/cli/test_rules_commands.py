"""`rules check` and `rules history`: what the file says, and what became of it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.config import ConfigError
from recsys.merchandising.audit import Standing, record
from recsys.merchandising.rules import read_rules
from recsys.settings import Settings
from tests.data.shop import refresh, row, write_shop
from tests.merchandising.test_rules import RULE, write
from tests.serving.service_process import running_service
from tests.serving.shops import add_model


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    return settings.home


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(app, ["rules", *arguments])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def test_a_shop_without_rules_has_nothing_to_check(home: Path) -> None:
    assert (run("check")["rules"], run("check")["warnings"], run("history")) == ([], [], [])


def test_a_mistake_is_an_error_that_names_file_rule_and_key(home: Path, settings: Settings) -> None:
    write(settings, RULE | {"action": "pin"})
    with pytest.raises(ConfigError, match=r"rules\.yaml: rules\.0 of 'tet-sets': position: exp"):
        run("check")


def test_changes_are_printed_newest_first(home: Path, settings: Settings) -> None:
    write(settings, RULE)
    now = datetime.now(UTC)
    standing = record(settings, Standing(), read_rules(settings), now)
    write(settings, RULE | {"reason": "again", "author": "minh"})
    record(settings, standing, read_rules(settings), now)
    changed, added = run("history")
    assert (added["what"], added["by"], added["because"]) == ("added", "lan", "Tết")
    assert (changed["what"], changed["changes"]["reason"]) == ("changed", '"Tết" -> "again"')
    assert run("history", "--limit", "1") == [changed]
    at = datetime.fromisoformat(changed["at"])
    assert at.utcoffset() == timedelta(hours=7)  # the shop's time
    assert abs(at - now) < timedelta(minutes=1)


def test_what_rules_will_not_get_is_told_from_what_is_published(
    home: Path, settings: Settings
) -> None:
    new = RULE | {"name": "new", "products": {"max_age_days": 36_000}}
    old = RULE | {"name": "old", "products": {"max_age_days": 1}}
    nobody = RULE | {"products": {"brands": ["Cocon"]}, "placements": ["app", "home"]}
    write(settings, nobody, new, old)
    (home / "config" / "serving.yaml").write_text("placements: [app]\n")
    assert run("check")["warnings"] == []  # nobody knows yet what the shop has
    names = ("Son", "Kem", "Sữa tắm", "Mặt nạ", "Dầu gội", "Toner")
    products = [f"{number},{name},Cocoon,Loại,1000," for number, name in enumerate(names)]
    rows = [row(f"u{number}", number, comment=f"tốt {number}") for number in range(6)]
    write_shop(settings, rows, products)
    refresh(settings)
    found = run("check")
    first = found["rules"][0]
    assert (first["name"], first["state"]) == ("tet-sets", "active")
    assert [(one["rule"], one["kind"]) for one in found["warnings"]] == [
        ("tet-sets", "unknown_name"),  # and not that it matches nothing as well
        ("new", "short_list"),  # of the cart, which has five places,
        ("new", "short_list"),  # and of the mail, which has six
        ("old", "matches_nothing"),
    ]
    assert "'cocoon' is near to 'Cocon'" in found["warnings"][0]["sentence"]


def test_a_preview_asks_the_running_service(
    home: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    add_model(settings, "als_1")
    write(settings, RULE | {"products": {"brands": ["Đẹp"]}})
    monkeypatch.setenv("RECSYS_SERVICE_URL", f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("RECSYS_ADMIN_TOKEN", "let-me")
    with running_service(settings, free_port, "let-me"):
        found = run("preview", "--user", "2", "--placement", "home")
        assert {one["brand"] for one in found["before"]} == {"Đẹp"}
        assert {one["brand"] for one in found["after"]} == {"Sạch"}
        assert {one["rule"] for one in found["effects"]} == {"tet-sets"}
        early = run("preview", "--product", "p3", "--at", "2020-01-01T00:00+07:00")
        assert early["at"] == "2020-01-01T00:00:00+07:00"
        with pytest.raises(RuntimeError, match=r"answered 422: .*placement"):
            run("preview", "--user", "2", "--placement", "the attic")
        with pytest.raises(RuntimeError, match=r"no placement hoem: expected one of cart, demo, h"):
            run("preview", "--user", "2", "--placement", "hoem")
        assert len(run("preview")["after"]) == 10
