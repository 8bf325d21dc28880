"""Every worker follows rules.yaml; a bad file changes nothing but is told of."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from recsys.merchandising.audit import history, read_standing, write_standing
from recsys.merchandising.customers import standing_rules
from recsys.merchandising.rule_warnings import RuleWarning
from recsys.settings import REPOSITORY, Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from serving.rules import FollowedRules, RulesWatch
from tests.serving.conftest import TOKEN
from tests.serving.shops import add_model

RULE: dict[str, Any] = {
    "name": "no-lips",
    "action": "hide",
    "products": {"categories": ["Trang điểm"]},
    "author": "lan",
    "reason": 'she said "no", twice',
}


def write(settings: Settings, *rules: dict[str, Any]) -> None:
    write_text(settings, json.dumps({"rules": rules}))


def write_text(settings: Settings, text: str) -> None:
    path = settings.home / "config" / "rules.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def names(followed: FollowedRules) -> list[str]:
    return [rule.name for rule in followed.current.rules]


def looks(followed: FollowedRules) -> bool:
    """A new content counts at the second look."""
    return followed.look() or followed.look()


def watching(settings: Settings, followed: FollowedRules, *warnings: RuleWarning) -> RulesWatch:
    return RulesWatch(settings, followed, lambda: list(warnings))


def alerts_of(settings: Settings) -> str:
    path = settings.logs / "service" / "alerts.log"
    return path.read_text("utf-8") if path.exists() else ""


def until(met: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not met() and time.monotonic() < end:
        time.sleep(0.1)
    return met()


def test_a_shop_without_rules_gets_no_file_and_no_alert(settings: Settings) -> None:
    followed = FollowedRules(settings)
    watching(settings, followed).look()
    assert looks(followed) is False
    assert (names(followed), followed.problem) == ([], None)
    assert not settings.home.exists()


def test_a_change_counts_once_two_looks_agree(settings: Settings) -> None:
    followed = FollowedRules(settings)
    write(settings, RULE)
    assert (followed.look(), names(followed)) == (False, [])
    write(settings, RULE, RULE | {"name": "other"})  # the editor was half through
    assert (followed.look(), names(followed)) == (False, [])
    assert (followed.look(), names(followed)) == (True, ["no-lips", "other"])
    assert looks(followed) is False
    write(settings)  # `rules: []`
    assert (looks(followed), names(followed)) == (True, [])


@pytest.mark.parametrize(
    "content", ["", " \n\n", "# a note\n# rules: []\n", "---\n", "rules:\n", "rules: ~\n", None]
)
def test_a_file_that_is_cut_short_or_gone_takes_no_rule_away(
    settings: Settings, content: str | None
) -> None:
    write(settings, RULE)
    followed = FollowedRules(settings)
    watch = watching(settings, followed)
    watch.look()
    path = settings.home / "config" / "rules.yaml"
    path.unlink()
    if content is not None:
        write_text(settings, content)
    assert looks(followed) is False
    watch.look()
    again = FollowedRules(settings)  # after a restart
    for one in (followed, again):
        assert names(one) == ["no-lips"]
        assert str(one.problem).startswith(f"{path}: ")
        assert "write `rules: []` if that is meant" in str(one.problem)
    assert alerts_of(settings).count("rules_refused triggered") == 1
    assert [rule.name for rule in standing_rules(settings).rules] == ["no-lips"]
    write(settings)
    assert looks(again) is True
    watching(settings, again).look()
    assert (names(again), again.problem) == ([], None)
    path.unlink()  # no rules, no file
    looks(again)
    assert (names(again), again.problem) == ([], None)


def test_in_the_repository_itself_the_file_may_be_gone_as_well(tmp_path: Path) -> None:
    """The default state root has no file below its own. Tried in a copy."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "include", tmp_path / "include", ignore=skipped)
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    script = """
from recsys.merchandising.audit import Standing, rules_in_force, write_standing
from recsys.settings import REPOSITORY, load_settings
settings, rules = load_settings(), REPOSITORY / "config" / "rules.yaml"
rules.unlink()
print(rules_in_force(settings))
rules.write_text("rules: [{name: a, action: hide, products: {ids: [p]}, author: x, reason: y}]")
before, _ = rules_in_force(settings)
write_standing(settings, Standing(before))
rules.unlink()
after, problem = rules_in_force(settings)
print(after == before, problem)
"""
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(tmp_path / "include"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    path = tmp_path.resolve() / "config" / "rules.yaml"
    assert told.stdout.splitlines() == [
        "(RuleSet(rules=(), sha256=''), None)",
        f"True {path}: the file is gone: write `rules: []` if that is meant",
    ]


def test_a_bad_file_leaves_the_last_good_rules_over_a_restart_and_is_told_once(
    settings: Settings,
) -> None:
    write(settings, RULE)
    followed = FollowedRules(settings)
    watch = watching(settings, followed)
    watch.look()
    sha256 = followed.current.sha256
    write(settings, RULE | {"action": "push"})
    assert looks(followed) is False
    watch.look()
    watch.look()
    assert names(followed) == ["no-lips"]
    assert "rules.0.action of 'no-lips'" in str(followed.problem)
    again = FollowedRules(settings)
    assert (names(again), again.current.sha256) == (["no-lips"], sha256)
    watching(settings, again).look()
    assert alerts_of(settings).count("rules_refused triggered") == 1
    assert "rules.0.action of 'no-lips'" in alerts_of(settings)
    write(settings)
    assert looks(again) is True
    watching(settings, again).look()
    assert (names(again), again.problem) == ([], None)
    assert alerts_of(settings).count("rules_refused resolved") == 1


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{"), lambda path: path.mkdir()])
def test_without_a_sound_note_and_file_there_are_no_rules(
    settings: Settings, damage: Callable[[Path], Any]
) -> None:
    settings.artifacts.mkdir(parents=True)
    damage(settings.artifacts / "served_rules.json")
    write_text(settings, "rules: [")
    followed = FollowedRules(settings)
    assert names(followed) == []
    assert "rules.yaml" in str(followed.problem)


def test_on_a_full_disk_rules_are_followed_and_the_note_comes_later(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.artifacts.parent.mkdir(parents=True)
    settings.artifacts.write_text("no place for a folder")
    write(settings, RULE)
    followed = FollowedRules(settings)
    watch = watching(settings, followed)
    for _ in range(3):
        watch.look()
    assert caplog.text.count("The rules in service cannot be written down") == 1
    settings.artifacts.unlink()
    watch.look()
    assert names(FollowedRules(settings)) == ["no-lips"]
    assert read_standing(settings).rules == followed.current
    assert [one["what"] for one in history(settings, 9)] == ["added"]


def test_what_changed_is_written_down_with_author_and_reason(settings: Settings) -> None:
    followed = FollowedRules(settings)
    soon = datetime.now(UTC) + timedelta(seconds=1)
    for rules in (
        [RULE],
        [RULE | {"action": "bury", "strength": 2.5, "author": "minh"}],
        [RULE | {"action": "bury", "strength": 2.5, "author": "minh", "end": soon.isoformat()}],
        [],
    ):
        write(settings, *rules)
        looks(followed)
        watch = watching(settings, followed)  # each time as after a restart
        watch.look()
        if "end" in str(rules):
            time.sleep(1.1)
            watch.look()
            watch.look()
    found = history(settings, 10)[::-1]
    assert [one["what"] for one in found] == ["added", "changed", "changed", "expired", "removed"]
    added, changed, *_, removed = found
    assert (added["rule"], added["by"], added["because"]) == ("no-lips", "lan", RULE["reason"])
    assert added["rule_says"]["products"] == {"categories": ["Trang điểm"]}
    assert changed["changes"]["action"] == '"hide" -> "bury"'
    assert changed["changes"]["author"] == '"lan" -> "minh"'
    # What somebody wrote before it was taken out; a key that nobody wrote is not among them.
    last = RULE | {"action": "bury", "strength": 2.5, "author": "minh"}
    assert removed["rule_said"].items() >= last.items()
    assert removed["rule_said"].keys() == {*last, "end"}
    assert (removed["by"], removed["sha256"]) == ("minh", followed.current.sha256)
    assert history(settings, 1) == [removed]
    assert read_standing(settings).rules.rules == ()


def test_new_warnings_are_told_once_a_day_at_most(settings: Settings) -> None:
    write(settings, RULE)
    followed = FollowedRules(settings)
    dead, twice = (
        RuleWarning("no-lips", "unknown_name", f"products.{key}", f"rule no-lips: {key}: none")
        for key in ("brands", "tags")
    )
    watching(settings, followed).look()
    assert "rules_warning" not in alerts_of(settings)
    for _ in range(2):
        watching(settings, followed, dead).look()
    assert alerts_of(settings).count("rules_warning triggered") == 1
    assert "rule no-lips: brands: none" in alerts_of(settings)
    watching(settings, followed, dead, twice).look()
    assert "rule no-lips: tags: none" not in alerts_of(settings)
    standing = read_standing(settings)
    yesterday = standing.told._replace(at=standing.told.at - 86_401)
    write_standing(settings, replace(standing, told=yesterday))
    watching(settings, followed, dead, twice).look()
    assert alerts_of(settings).count("rules_warning triggered") == 2
    assert alerts_of(settings).count("rule no-lips: brands: none") == 1


def test_the_service_follows_the_file_and_says_which_rules_it_has(settings: Settings) -> None:
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment())) as client:

        def says() -> tuple[int, bool]:
            info = client.get("/model_info").json()
            return info["rules"], info["rules_problem"] is None

        assert says() == (0, True)
        write(settings, RULE)
        assert until(lambda: says() == (1, True))
        write_text(settings, "rules: [")
        assert until(lambda: says() == (1, False))
        assert until(lambda: "rules_refused" in alerts_of(settings))
        assert [one["what"] for one in history(settings, 9)] == ["added"]
        # Twenty of its products are left, and the rule of a brand that nobody knows is told.
        write(settings, RULE | {"products": {"brands": ["Nobody"]}})
        assert until(
            lambda: "rule no-lips: products.brands: the shop has no" in alerts_of(settings)
        )


def test_the_rules_in_service_are_for_the_admin_alone(settings: Settings, admin) -> None:
    add_model(settings, "als_1")
    ended = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    lift = {"action": "boost", "products": {"brands": ["Đẹp"]}, "start": "2999-01-01T00:00+07:00"}
    write(settings, RULE, RULE | lift | {"name": "later"}, RULE | {"name": "over", "end": ended})
    environment = ServiceEnvironment(admin_token=TOKEN)
    with TestClient(create_app(settings, environment)) as client:
        assert client.get("/rules").status_code == 401
        answer = client.get("/rules", headers=admin)
    found = answer.json()
    assert [(one["name"], one["state"]) for one in found["rules"]] == [
        ("no-lips", "active"),
        ("later", "waiting"),
        ("over", "expired"),
    ]
    assert found["rules"][1]["strength"] == 1.0
    assert [one["kind"] for one in found["warnings"]] == ["expired"]
    assert found["problem"] is None


def test_a_preview_is_what_customers_get_without_the_rules_and_with_them(
    settings: Settings, admin
) -> None:
    add_model(settings, "als_1")
    soon = datetime.now(UTC) + timedelta(days=3)
    pin = {"action": "pin", "products": {"ids": ["p39"]}, "position": 2, "placements": ["home"]}
    write(settings, RULE, RULE | pin | {"name": "tet", "start": soon.isoformat()})
    environment = ServiceEnvironment(admin_token=TOKEN)
    with TestClient(create_app(settings, environment)) as client:

        def preview(**asked: Any) -> dict[str, Any]:
            answer = client.post("/rules/preview", json=asked, headers=admin)
            assert answer.status_code == 200, answer.text
            return answer.json()

        def ids(listed: list[dict[str, Any]]) -> list[str]:
            return [one["product_id"] for one in listed]

        assert client.post("/rules/preview", json={"user_id": 2}).status_code == 401
        for asked in ({"user_id": 2, "placement": "home"}, {"product_id": "p3"}):
            path = "/recommend" if "user_id" in asked else "/similar_items"
            served = client.post(path, json=asked).json()["recommendations"]
            found = preview(**asked)
            assert ids(found["after"]) == ids(served)
            assert found["before"][0]["product_name"].startswith("Son môi")
            hidden = [one for one in found["effects"] if one["what"] == "hidden"]
            assert ids(hidden) == [
                one["product_id"] for one in found["before"] if one["brand"] == "Đẹp"
            ]
        later = preview(user_id=2, placement="home", at=(soon + timedelta(hours=1)).isoformat())
        assert later["after"][1]["product_id"] == "p39"
        [pinned] = [one for one in later["effects"] if one["rule"] == "tet"]
        assert (pinned["product_name"], pinned["rank_with"]) == ("Dầu gội số 39", 2)
        assert len(preview(product_id="p3", placement="cart")["after"]) == 5
        stranger = preview(placement="home", topk=2)
        assert ids(stranger["after"]) == ids(preview(user_id="nobody", topk=2)["after"])
        said = client.post("/rules/preview", json={"placement": "hoem"}, headers=admin).json()
        assert said["detail"] == (
            "There is no placement hoem: expected one of cart, demo, home, mail, product."
        )
        bad = [({"product_id": "nope"}, 404), ({"user_id": 1, "topk": 1000}, 422)]
        for wrong, status in bad:
            assert client.post("/rules/preview", json=wrong, headers=admin).status_code == status
        client.app.state.service.requests.flush()
        assert "rules_preview" not in str(client.get("/stats").json())
