"""The commands that write lists and find customers."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.errors import InputError
from recsys.settings import Settings
from tests.serving.shops import USERS, add_model
from tests.test_served_lists import found


@pytest.fixture
def shop(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    add_model(settings, "als_1")
    (settings.home / "config").mkdir()
    (settings.home / "config" / "serving.yaml").write_text("holdout_share: 0.5\nworkers: 2\n")
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    return settings


def test_lists_for_a_mail_are_written_with_the_holdout_of_the_service(shop: Settings):
    file = shop.home / "lists.parquet"
    command = ["export-lists", "--placement", "mail", "--to", str(file)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert json.loads(done.stdout)["customers"] == USERS
    assert f"{USERS} customers" in done.stderr
    rows = pq.read_table(file).to_pylist()
    popular = {row["user_id"] for row in rows if row["fallback_method"] == "popularity"}
    assert 10 < len(popular) < 50
    assert {one.user_id for one in found(shop)[0] if one.experiment} == popular


def test_a_shop_that_records_no_lists_records_none_of_a_mail(shop: Settings):
    (shop.home / "config" / "serving.yaml").write_text("record_lists: false\n")
    file = shop.home / "lists.parquet"
    command = ["export-lists", "--placement", "mail", "--to", str(file)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert json.loads(done.stdout)["recorded"] is False
    assert found(shop) == ([], 0)
    (shop.home / "config" / "serving.yaml").write_text("holdout_share: 7\n")
    refused = CliRunner().invoke(app, command)
    assert "serving.yaml: holdout_share" in str(refused.exception)


def test_whom_to_tell_is_printed_or_written(shop: Settings, tmp_path: Path):
    asked = ["audience", "p5", "--size", "3"]
    printed = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)
    assert len(printed["customers"]) == 3
    to = ["--to", str(tmp_path / "who.csv")]
    said = json.loads(CliRunner().invoke(app, [*asked, *to], catch_exceptions=False).stdout)
    assert (said["written"], "customers" in said) == (3, False)
    with (tmp_path / "who.csv").open(encoding="utf-8", newline="") as file:
        assert [row["user_id"] for row in csv.DictReader(file)] == [
            one["user_id"] for one in printed["customers"]
        ]


@pytest.mark.parametrize(
    "asked",
    [
        ["audience", "p5", "--to", "FOLDER/who.csv"],
        ["export-lists", "--placement", "mail", "--to", "FOLDER/lists.parquet"],
    ],
)
def test_a_folder_that_is_not_there_is_a_mistake_and_is_not_made(
    shop: Settings, tmp_path: Path, asked: list[str]
):
    folder = tmp_path / "no" / "such"
    told = [part.replace("FOLDER", str(folder)) for part in asked]
    with pytest.raises(InputError, match=f"there is no folder {folder}"):
        CliRunner().invoke(app, told, catch_exceptions=False)
    assert not folder.parent.exists()
