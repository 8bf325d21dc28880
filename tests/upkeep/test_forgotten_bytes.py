"""A search of all bytes for ten customers: all is found before, and nothing after."""

import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.ids import IdRules
from recsys.personal import Record
from recsys.privacy import Register, ask_to_forget, load_forgotten, readmit
from recsys.pseudonyms import KEYS_KEY, PRIVACY_KEY, REQUESTS_KEY, add_key, load_pseudonyms
from recsys.publishing import leftovers
from recsys.settings import Settings
from recsys.upkeep.backup import write_backup
from recsys.upkeep.forgetting import forget_customers
from recsys.upkeep.personal import find, sought
from recsys.upkeep.restore import restore_backup
from tests.upkeep.byte_search import search
from tests.upkeep.marked_shop import (
    MARKED,
    STRANGER,
    comment_mark,
    make_shop,
    name_of,
    session_of,
)

REGISTER = {
    REQUESTS_KEY,
    REQUESTS_KEY.replace(".json", ".last_good.json"),
    "logs/customer_audit.log",
}
OTHERS = ("u1", "u99")


def texts_of(customer: str) -> list[str]:
    return [customer, session_of(customer), comment_mark(customer), name_of(customer)]


TEXTS = [text for customer in MARKED for text in texts_of(customer)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(tmp_path_factory.mktemp("marked") / "home")
    make_shop(settings, datetime.now(UTC))
    add_records(settings)
    return settings


def add_records(settings: Settings) -> None:
    """What has something of customers by accident."""
    for place, text in (
        ("logs/service/recommender.log.1", "No such user_id={0}, {1}\n"),
        (".airflow/logs/dag_id=data_refresh/attempt=1.log", '{{"event": "row of {0}: {2}"}}\n'),
        ("reports/health/mine.txt", "{3} wrote: {2}, {0}\n"),
        ("exports/letters.txt", "an {3} ({0})\n"),
        ("data/own/notes.txt", "{0} | {1} | {2} | {3}\n"),
    ):
        path = settings.home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(text.format(*texts_of(one)) for one in MARKED) + "else\n")


@pytest.fixture
def shop(made: Settings, tmp_path: Path) -> Settings:
    shutil.copytree(made.home, tmp_path / "home", symlinks=True)
    return Settings(tmp_path / "home")


def named(settings: Settings) -> list[str]:
    """What is searched for: also the hashes under which logs have them."""
    names = load_pseudonyms(settings)
    return [*TEXTS, *(name for one in MARKED for name in names.all_of(one))]


def left(home: Path, texts: list[str]) -> dict[str, set[str]]:
    """Where they stand but in the register, which is to have their pseudonyms."""
    found = search(home, texts)
    assert all(text.startswith("~") for place in REGISTER for text in found.get(place, ()))
    return {place: there for place, there in found.items() if place not in REGISTER}


def forget(settings: Settings) -> dict[str, Any]:
    ask_to_forget(settings, MARKED, "lan", IdRules())
    return forget_customers(settings)


def test_all_that_the_export_lists_is_found_before_and_nothing_after(shop: Settings):
    before = {place.partition(":")[0] for place in search(shop.home, TEXTS)}
    records = [one for _, one in find(shop, sought(shop, MARKED)) if isinstance(one, Record)]
    assert {one.place.partition("#")[0] for one in records} >= before
    assert len(before) > 30
    for customer in MARKED:
        there = {text for texts in search(shop.home, texts_of(customer)).values() for text in texts}
        unwritten = {comment_mark(customer), name_of(customer)} if customer == STRANGER else set()
        assert there >= set(texts_of(customer)) - unwritten
    done = forget(shop)
    assert (done["forgotten"], done["open"], done["left"]) == (10, 0, [])
    assert left(shop.home, named(shop)) == {}
    kept = {place for other in OTHERS for place in search(shop.home, [f'"{other}"', f",{other},"])}
    assert kept
    assert forget_customers(shop)["requests"] == 0


def test_a_backup_of_before_is_restored_without_them(shop: Settings, tmp_path: Path):
    backup = tmp_path / "backup.tar"
    write_backup(shop, backup)
    assert len(search(tmp_path, TEXTS)) > 30
    forget(shop)
    expected = current_version(shop)
    there = Settings(tmp_path / "there")
    shutil.copytree(shop.home / PRIVACY_KEY, there.home / PRIVACY_KEY)
    done = restore_backup(there, backup)
    assert (done["forgotten"], done["left"]) == (10, [])
    assert left(there.home, named(shop)) == {}
    assert leftovers(there.home) == []
    assert [path.name for path in there.home.glob(".restore*")] == []
    version = current_version(there)
    assert {name: entry.sha256 for name, entry in version.files.items()} == {
        name: entry.sha256 for name, entry in expected.files.items()
    }
    assert Register(there).requests() == Register(shop).requests()
    assert stat.S_IMODE((there.home / PRIVACY_KEY).stat().st_mode) == 0o700
    # What comes of them later is left out there as well.
    assert all(customer in load_forgotten(there) for customer in MARKED)


def test_a_copy_of_the_register_is_named_where_the_state_root_has_none(
    shop: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    backup, copy, there = tmp_path / "backup.tar", tmp_path / "copy", Settings(tmp_path / "there")
    write_backup(shop, backup)
    add_key(shop)
    ask_to_forget(shop, MARKED[:2], "lan", IdRules())
    shutil.copytree(shop.home / PRIVACY_KEY, copy)
    monkeypatch.setenv("RECSYS_HOME", str(there.home))
    answer = CliRunner().invoke(app, ["restore", str(backup), "--privacy", str(copy)])
    assert answer.exit_code == 0, answer.output
    assert '"forgotten": 2' in answer.stdout
    gone = [text for customer in MARKED[:2] for text in texts_of(customer)]
    found = search(there.home, gone)
    assert found.keys() <= {f"{PRIVACY_KEY}/forgetting.json"}  # until the job has run there
    assert search(there.home, texts_of(MARKED[2])) != {}
    assert forget_customers(there)["forgotten"] == 2
    assert search(there.home, gone) == {}


def test_who_was_readmitted_is_restored(shop: Settings, tmp_path: Path):
    backup, there = tmp_path / "backup.tar", Settings(tmp_path / "there")
    write_backup(shop, backup)
    ask_to_forget(shop, MARKED[:2], "lan", IdRules())
    readmit(shop, MARKED[:1], "lan", IdRules())
    shutil.copytree(shop.home / PRIVACY_KEY, there.home / PRIVACY_KEY)
    assert restore_backup(there, backup)["forgotten"] == 1
    assert len(search(there.home, texts_of(MARKED[0]))) > 20


def test_a_copy_without_its_key_is_refused_and_nothing_restored(settings: Settings, tmp_path: Path):
    ask_to_forget(settings, ["7"], "lan", IdRules())
    backup, there = tmp_path / "backup.tar", Settings(tmp_path / "there")
    write_backup(settings, backup)
    copy = tmp_path / "copy"
    shutil.copytree(settings.home / PRIVACY_KEY, copy)
    (copy / Path(KEYS_KEY).name).unlink()
    with pytest.raises(InputError, match=r"keys\.json: is gone"):
        restore_backup(there, backup, copy)
    assert not any(there.home.iterdir())
