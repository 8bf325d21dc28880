"""Readers see whole versions, and keep them."""

import json
import multiprocessing
import os
import pickle
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from recsys.data import writing
from recsys.data.versions import (
    VersionError,
    current_version,
    list_versions,
    open_version,
    publish,
)
from recsys.errors import InputError
from recsys.health.data import check_data_health
from recsys.publishing import point_link, write_json
from recsys.storage.bundle import LAYOUT
from tests.data.shop import END, refresh, row, write_shop

ROWS = [row(f"u{number % 5}", number % 7, time=f"2025-01-{1 + number:02}") for number in range(20)]


@pytest.fixture
def shop(settings):
    write_shop(settings, ROWS)
    refresh(settings)
    return settings


def keep(settings, versions: int) -> None:
    (settings.home / "config").mkdir(exist_ok=True)
    text = f"source: viecomrec\nkeep_versions: {versions}\n"
    (settings.home / "config" / "data.yaml").write_text(text)


def test_without_a_version_the_reader_says_what_to_run(settings):
    with pytest.raises(InputError, match="run data_refresh"):
        current_version(settings)
    with pytest.raises(InputError, match="no data version of this name"):
        open_version(settings, "20250101T000000Z-0")
    with pytest.raises(InputError, match="not the name"):
        open_version(settings, "../versions")


def test_all_parts_of_a_version_agree(shop):
    version = current_version(shop)
    users, items = version.mappings()
    assert version.matrix().shape == (len(users), len(items))
    assert version.matrix().dtype == np.float32
    assert version.products()["product_id"].tolist() == items
    assert len(version.popularity()) == len(items)
    metadata = version.user_metadata()
    assert sorted(metadata.loc[metadata["segment"] == "trainable", "user_id"]) == users
    rows = version.interactions()
    trained = rows[(rows["split"] == "train") & rows["user_id"].isin(users)]
    assert version.matrix().sum() == pytest.approx(trained["confidence_score"].sum())
    mappings = json.loads((version.path / "user_item_mappings.json").read_text())
    assert mappings["user_to_idx"] == {user: index for index, user in enumerate(users)}
    assert {name: entry["rows"] for name, entry in version.manifest["files"].items()}[
        "interactions.parquet"
    ] == len(rows)
    assert (version.path / "content_based_embeddings").readlink().name == "current"


def test_mappings_are_written_in_pieces_as_one_object(settings, monkeypatch):
    monkeypatch.setattr(writing, "_IDS_AT_ONCE", 2)
    days = {1: "2025-01-02 10:00:00", 2: "2025-01-03 10:00:00"}
    users = ("bé", '"""q"""', "c")  # as CSV writes a quoted q
    write_shop(settings, [row(user, day, 5, days[day]) for user in users for day in days])
    refresh(settings)
    text = (current_version(settings).path / "user_item_mappings.json").read_text()
    mappings = json.loads(text)
    assert mappings["idx_to_user"] == ['"q"', "bé", "c"]
    assert mappings["item_to_idx"] == {str(number): number for number in range(9)}
    assert text == json.dumps(mappings, ensure_ascii=False)


@pytest.mark.parametrize("longest", ["bé", "u" * 128])
def test_one_long_id_does_not_widen_the_pickle_for_all(settings, longest):
    write_shop(settings, [*(row(f"u{number}") for number in range(2_000)), row(longest)])
    refresh(settings)
    version = current_version(settings)
    pickled = version.path / "user_metadata.pkl"
    with pickled.open("rb") as file:
        columns = pickle.load(file)  # made by this test
    table = version.user_metadata()
    assert columns["user_id"].tolist() == table["user_id"].tolist()
    assert columns["segment"].tolist() == table["segment"].tolist()
    assert pickled.stat().st_size < 300_000


def test_a_changed_or_missing_file_is_noticed(shop):
    version = current_version(shop)
    version.verify()
    (version.path / "data_stats.json").write_text("{}")
    with pytest.raises(VersionError, match=r"data_stats\.json: its content"):
        version.verify()
    (version.path / "data_stats.json").unlink()
    with pytest.raises(VersionError, match="does not exist"):
        version.verify()


def test_a_version_of_a_newer_layout_is_refused_and_stops_a_refresh(shop):
    path = current_version(shop).path / "manifest.json"
    manifest = json.loads(path.read_text())
    write_json(path, {**manifest, "layout": LAYOUT + 1})
    with pytest.raises(InputError, match=f"written in layout {LAYOUT + 1}"):
        current_version(shop)
    with pytest.raises(InputError, match="update the code"):
        refresh(shop, force_full=True)


def test_a_folder_of_unknown_origin_is_never_replaced(settings):
    settings.processed.mkdir(parents=True)
    write_shop(settings, ROWS)
    with pytest.raises(InputError, match="expected a link"):
        refresh(settings)
    assert settings.processed.is_dir()


def test_publishing_an_earlier_view_does_not_move_the_link(shop):
    latest = current_version(shop).version_id
    earlier = refresh(shop, END - timedelta(days=40))
    assert (earlier["published"], earlier["new_version"]) == (False, True)
    assert current_version(shop).version_id == latest
    assert not publish(shop, earlier["version_id"])
    assert publish(shop, latest)


def test_old_versions_go_and_the_latest_views_stay(shop):
    keep(shop, 3)
    for day in range(1, 6):
        refresh(shop, END + timedelta(days=day), force_full=True)
    assert len(list_versions(shop)) == 3
    assert current_version(shop).version_id == list_versions(shop)[-1]


def test_a_version_that_somebody_reads_or_refers_to_stays(shop):
    keep(shop, 1)
    names = [current_version(shop).version_id]
    names.append(refresh(shop, END + timedelta(days=1), force_full=True)["version_id"])
    reader = current_version(shop)
    for day in range(2, 5):
        names.append(refresh(shop, END + timedelta(days=day), force_full=True)["version_id"])
        if day == 2:
            entry = {"data_version": names[2], "status": "archived"}
            write_json(shop.registry, {"models": {"als_1": entry}})
        if day == 3:
            report = {"data": {"version_id": names[3]}}
            write_json(shop.reports / "drift" / "drift_report_20250301.json", report)
    assert list_versions(shop) == names[1:]
    reader.verify()
    del reader
    refresh(shop, END + timedelta(days=9), force_full=True)
    assert names[1] not in list_versions(shop)


def test_nothing_is_removed_while_the_registry_cannot_be_read(shop):
    keep(shop, 1)
    shop.registry.parent.mkdir(parents=True)
    shop.registry.write_text("{torn")
    refresh(shop, END + timedelta(days=1), force_full=True)
    assert len(list_versions(shop)) == 2


def test_backfilled_days_survive_the_pruning_of_their_own_run(shop):
    keep(shop, 1)
    days = [refresh(shop, END - timedelta(days=number))["version_id"] for number in (45, 44, 43)]
    assert set(days) <= set(list_versions(shop))


def read_forever(settings, stop, opened) -> None:
    while not stop.is_set():
        version = current_version(settings)
        version.verify()
        users, items = version.mappings()
        assert version.matrix().shape == (len(users), len(items))
        with opened.get_lock():
            opened.value += 1


def test_reading_publishing_and_pruning_at_the_same_time(shop):
    keep(shop, 1)
    context = multiprocessing.get_context("forkserver")
    stop, opened = context.Event(), context.Value("i", 0)
    readers = [context.Process(target=read_forever, args=(shop, stop, opened)) for _ in range(2)]
    for reader in readers:
        reader.start()
    day = 0
    while day < 8 or opened.value < 20:
        day += 1
        refresh(shop, END + timedelta(days=day), force_full=True)
    stop.set()
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0
    refresh(shop, END + timedelta(days=day + 1), force_full=True)
    assert len(list_versions(shop)) == 1
    assert os.listdir(shop.versions) == list_versions(shop)  # noqa: PTH208  (hidden ones too)


def made_under_a_wrong_clock(settings) -> str:
    """The published version, as a machine whose clock is decades ahead would have made it."""
    folder = current_version(settings).path
    ahead = folder.with_name(f"20990101T000000Z-{folder.name[-15:]}")
    shutil.copytree(folder, ahead, symlinks=True)
    manifest = json.loads((ahead / "manifest.json").read_text())
    as_of = "2099-01-01T00:00:00+00:00"
    write_json(ahead / "manifest.json", {**manifest, "version_id": ahead.name, "as_of": as_of})
    point_link(settings.processed, ahead)
    return ahead.name


def test_a_view_that_ends_in_the_future_is_refused(shop):
    before = current_version(shop).version_id
    with pytest.raises(InputError, match=r"would end at .*by the clock of this machine"):
        refresh(shop, datetime.now(UTC) + timedelta(hours=1))
    assert list_versions(shop) == [before]


def test_the_next_refresh_leaves_a_version_of_the_future_behind(shop):
    keep(shop, 1)
    ahead = made_under_a_wrong_clock(shop)
    result = check_data_health(shop)
    assert (result["healthy"], result["severity"]) == (False, "critical")
    assert "in the future" in result["error"]
    summary = refresh(shop, END + timedelta(days=1), force_full=True)
    assert (summary["published"], current_version(shop).version_id) == (
        True,
        summary["version_id"],
    )
    assert current_version(shop).manifest["backfill"] is False
    assert ahead not in list_versions(shop)
    assert "in the future" not in check_data_health(shop)["error"]


def test_with_nothing_new_the_version_before_the_wrong_clock_is_published_again(shop):
    before = current_version(shop).version_id
    made_under_a_wrong_clock(shop)
    summary = refresh(shop)
    assert (summary["new_version"], summary["published"]) == (False, True)
    assert current_version(shop).version_id == before


def test_a_version_with_a_damaged_manifest_stops_neither_publishing_nor_pruning(shop):
    keep(shop, 1)
    damaged = current_version(shop).version_id
    (shop.versions / damaged / "manifest.json").write_text("")
    summary = refresh(shop, END + timedelta(days=1), force_full=True)
    assert summary["published"]
    assert damaged in list_versions(shop)
