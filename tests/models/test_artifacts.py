import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.models.als import Als, AlsParameters
from recsys.models.artifacts import (
    Artifact,
    ArtifactFolder,
    load_artifact,
    save_artifact,
    write_without,
)
from recsys.models.histories import most_active, take_users
from recsys.models.popularity import RecentPopularity
from recsys.models.storage import ArtifactError
from recsys.publishing import sha256_of
from tests.models.shop import ITEMS, START, USERS, taste_histories

ITEM_IDS = [f"p{item}" for item in range(ITEMS)]
USER_IDS = [f"khách {user:03}" for user in range(USERS)]


def save(path: Path, **changes) -> Path:
    histories = taste_histories()
    content = {
        "model": Als(AlsParameters(factors=4)).fit(histories, ITEMS),
        "item_ids": ITEM_IDS,
        "user_ids": USER_IDS,
        "histories": histories,
        "popularity": RecentPopularity().fit(histories, ITEMS).at(START * 2),
        "products": pd.DataFrame({"product_id": ITEM_IDS}),
        "manifest": {"model_id": "als_1", "data_version": "v1"},
    }
    return save_artifact(path, **{**content, **changes})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "als_1")


def test_an_artifact_knows_every_user_by_id(saved):
    artifact: Artifact = load_artifact(saved)
    histories = taste_histories()
    for user in (0, 7, USERS - 1):
        known = artifact.history_of(USER_IDS[user])
        assert known is not None
        expected = take_users(histories, np.array([user]))
        assert known.items.tolist() == expected.items.tolist()
        assert known.times.tolist() == expected.times.tolist()
    assert sorted(artifact.user_ids) == sorted(USER_IDS)


@pytest.mark.parametrize("stranger", ["", "nobody", "khách", "khách 9999", "\ud800", "zzz"])
def test_a_stranger_has_no_history(saved, stranger):
    assert load_artifact(saved).history_of(stranger) is None


def test_a_loaded_model_scores_like_the_saved_one(saved):
    histories = taste_histories()
    model = Als(AlsParameters(factors=4)).fit(histories, ITEMS)
    loaded = load_artifact(saved)
    assert np.array_equal(loaded.model.score(histories, 0), model.score(histories, 0))
    assert loaded.model_id == "als_1"
    assert loaded.manifest["hyperparameters"]["factors"] == 4


def test_one_changed_byte_is_found_and_named(saved):
    file = saved / "model" / "item_factors.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"item_factors\.npy"):
        load_artifact(saved)


@pytest.mark.parametrize("name", ["manifest.json", "item_ids.json", "histories/items.npy"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(ArtifactError, match=Path(name).stem):
        load_artifact(saved)


def test_a_missing_folder_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match="missing"):
        load_artifact(tmp_path / "als_2")


def test_a_manifest_cannot_name_files_outside(saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    manifest["files"]["../other"] = {"sha256": "0"}
    (saved / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="outside"):
        load_artifact(saved)


def test_nan_factors_are_refused_and_leave_nothing_behind(tmp_path):
    model = Als(AlsParameters(factors=4)).fit(taste_histories(), ITEMS)
    model._items = model._items.copy()
    model._items[3, 1] = np.nan
    with pytest.raises(ArtifactError, match="NaN"):
        save(tmp_path / "als_1", model=model)
    assert list(tmp_path.iterdir()) == []


def test_sizes_that_disagree_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="agree"):
        save(tmp_path / "als_1", popularity=np.ones(3, dtype=np.float32))
    with pytest.raises(ArtifactError, match="histories"):
        save(tmp_path / "als_1", user_ids=USER_IDS[:-1])


@pytest.mark.parametrize("ids", [USER_IDS[::-1], [USER_IDS[0], *USER_IDS[:-1]]])
def test_user_ids_out_of_order_or_twice_are_refused(tmp_path, ids):
    """They are looked up by bisection."""
    with pytest.raises(ArtifactError, match="not in order"):
        save(tmp_path / "als_1", user_ids=ids)


def test_the_products_of_the_time_can_be_read(tmp_path):
    products = pd.DataFrame({"product_id": ITEM_IDS, "brand": "B", "colour": "red"})
    artifact = load_artifact(save(tmp_path / "als_1", products=products))
    assert artifact.shown_products() == {"product_id": ITEM_IDS, "brand": ["B"] * ITEMS}


def test_an_artifact_from_before_the_shown_products_opens_as_it_is(saved):
    """It has a table in their place, and a manifest of the first layout."""
    expected = load_artifact(saved).shown_products()
    (saved / "shown_products.jsonl").unlink()
    pd.DataFrame(expected).to_parquet(saved / "products.parquet", index=False)
    manifest = json.loads((saved / "manifest.json").read_text())
    hashes = {name: entry["sha256"] for name, entry in manifest.pop("files").items()}
    del hashes["shown_products.jsonl"], manifest["layout"]
    hashes["products.parquet"] = sha256_of(saved / "products.parquet")
    manifest |= {"format": 1, "sha256": hashes}
    (saved / "manifest.json").write_text(json.dumps(manifest))
    assert load_artifact(saved).shown_products() == expected


def test_products_in_another_order_are_refused(tmp_path):
    turned = pd.DataFrame({"product_id": ITEM_IDS[::-1]})
    with pytest.raises(ArtifactError, match="order"):
        save(tmp_path / "als_1", products=turned)
    with pytest.raises(ArtifactError, match="agree"):
        save(tmp_path / "als_1", products=turned.iloc[1:])


def test_an_artifact_is_never_overwritten(saved):
    with pytest.raises(FileExistsError):
        save(saved)


def test_written_without_somebody_it_is_as_if_it_had_never_known_them(tmp_path, saved):
    gone = [0, 7, USERS - 1]
    with ArtifactFolder(saved) as artifact:
        assert write_without(artifact, [USER_IDS[at] for at in gone], tmp_path / "als_1.1") == 3
    kept = np.delete(np.arange(USERS), gone)
    never = save(
        tmp_path / "never",
        model=load_artifact(saved).model,
        user_ids=[USER_IDS[at] for at in kept],
        histories=take_users(taste_histories(), kept),
    )
    found = load_artifact(tmp_path / "als_1.1")
    expected = load_artifact(never)
    for area in ("users", "histories", "model"):
        names = {path.name for path in (never / area).iterdir()}
        assert names == {path.name for path in (found.path / area).iterdir()}
        for name in names:
            assert (never / area / name).read_bytes() == (found.path / area / name).read_bytes()
    assert found.manifest["users"] == expected.manifest["users"] == USERS - 3
    assert found.model_id == "als_1"
    assert [found.history_of(USER_IDS[at]) for at in gone] == [None] * 3
    known = found.history_of(USER_IDS[1])
    assert known is not None
    assert known.items.tolist() == take_users(taste_histories(), np.array([1])).items.tolist()


def test_others_try_a_model_out_when_those_who_did_are_gone(tmp_path):
    most = [USER_IDS[at] for at in most_active(taste_histories(), 5)]
    about = {"model_id": "als_1", "data_version": "v1", "sample_users": most[:3]}
    before = save(tmp_path / "als_1", manifest=about)
    with ArtifactFolder(before) as artifact:
        write_without(artifact, [most[1]], tmp_path / "als_1.1")
    after = load_artifact(tmp_path / "als_1.1")
    assert after.manifest["sample_users"] == [most[0], most[2], most[3]]


def test_kinds_and_times_of_others_stay_with_them(tmp_path):
    histories = taste_histories()
    kinds = np.zeros(len(histories.items), dtype=np.int8)
    kinds[::3] = 2
    histories = replace(histories, kinds=kinds)
    got = histories.times + np.arange(len(histories.items))
    before = save(tmp_path / "als_1", histories=histories, got=got)
    with ArtifactFolder(before) as artifact:
        write_without(artifact, [USER_IDS[3]], tmp_path / "als_1.1")
    after = load_artifact(tmp_path / "als_1.1")
    mine = np.repeat(np.arange(USERS), np.diff(histories.indptr)) == 3
    assert after.got.tolist() == got[~mine].tolist()
    assert after.histories.kinds.tolist() == kinds[~mine].tolist()
