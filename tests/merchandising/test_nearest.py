import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys.merchandising import snapshots
from recsys.merchandising.catalogue import build_catalogue
from recsys.merchandising.ranking import NearestItems, Wanted, top_items
from recsys.merchandising.recommending import recommend
from recsys.merchandising.snapshots import load_snapshot
from recsys.models.als import Als, AlsParameters
from recsys.models.artifacts import save_artifact
from recsys.models.base import Histories
from recsys.models.storage import ArtifactError
from recsys.settings import Settings

ITEMS, USERS, TOPK = 5_000, 100, 10


@pytest.fixture(scope="module")
def index_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index") / "model.faiss"


@pytest.fixture(scope="module")
def large() -> tuple[Als, Histories]:
    """A model of 16 tastes over 5,000 products, without the time to train one."""
    random = np.random.default_rng(1)
    tastes = random.normal(size=(16, 32))
    vectors = (
        tastes[random.integers(16, size=ITEMS)] + 0.7 * random.normal(size=(ITEMS, 32))
    ) * random.gamma(2, 0.3, size=(ITEMS, 1))
    model = Als(AlsParameters(factors=32, starts=1))
    model._set(vectors.astype(np.float32))
    count = USERS * 5
    histories = Histories(
        indptr=np.arange(0, count + 1, 5, dtype=np.int64),
        items=random.integers(ITEMS, size=count).astype(np.int32),
        confidence=np.full(count, 5, dtype=np.float32),
        weight=np.ones(count, dtype=np.float32),
        times=np.arange(count, dtype=np.int64),
    )
    return model, histories


def catalogue_of(items: int):
    ids = [f"p{item}" for item in range(items)]
    return build_catalogue(ids, {"product_id": ids}, "test")


def one(histories: Histories, user: int) -> Histories:
    part = slice(5 * user, 5 * user + 5)
    return Histories(
        indptr=np.array([0, 5], dtype=np.int64),
        items=histories.items[part],
        confidence=histories.confidence[part],
        weight=histories.weight[part],
        times=histories.times[part],
    )


def test_the_index_finds_what_looking_at_all_products_finds(large, index_file):
    model, histories = large
    catalogue = catalogue_of(ITEMS)
    nearest = NearestItems(model, index_file)
    allowed = np.ones(ITEMS, dtype=bool)
    allowed[::10] = False
    wanted = Wanted(TOPK, True, allowed, np.zeros(0, dtype=np.int32))
    common = 0
    for user in range(USERS):
        history = one(histories, user)
        quick = nearest.recommend(catalogue, history, wanted, 0)
        scores = model.score(history, 0)[0]
        exact = top_items(scores, allowed, history.items, catalogue.families, TOPK)
        assert quick is not None
        assert all(allowed[quick.items])
        assert not set(quick.items) & set(history.items.tolist())
        common += len(set(quick.items) & set(exact.items))
    assert common / (USERS * TOPK) >= 0.98


def test_a_filter_that_leaves_too_little_is_left_to_the_exact_way(large, index_file):
    model, histories = large
    allowed = np.zeros(ITEMS, dtype=bool)
    allowed[:12] = True
    wanted = Wanted(TOPK, True, allowed, np.zeros(0, dtype=np.int32))
    nearest = NearestItems(model, index_file)
    assert nearest.recommend(catalogue_of(ITEMS), one(histories, 0), wanted, 0) is None


def test_an_index_that_exists_is_mapped_and_not_built_again(large, index_file):
    model, _ = large
    NearestItems(model, index_file)
    before = index_file.stat().st_mtime_ns
    NearestItems(model, index_file)
    assert index_file.stat().st_mtime_ns == before


def test_a_damaged_index_is_refused_and_built_at_the_next_try(large, tmp_path):
    model, _ = large
    path = tmp_path / "model.faiss"
    path.write_bytes(b"not an index")
    with pytest.raises(ArtifactError, match=r"model\.faiss"):
        NearestItems(model, path)
    NearestItems(model, path)


@pytest.mark.parametrize("columns", [1, 31])
def test_vectors_of_an_odd_length_can_be_indexed(tmp_path, columns):
    """BPR has a column for what everybody likes."""
    random = np.random.default_rng(0)
    model = Als(AlsParameters(factors=columns, starts=1))
    model._set(random.normal(size=(ITEMS, columns)).astype(np.float32))
    nearest = NearestItems(model, tmp_path / "model.faiss")
    history = Histories(
        indptr=np.array([0, 1], dtype=np.int64),
        items=np.array([7], dtype=np.int32),
        confidence=np.ones(1, dtype=np.float32),
        weight=np.ones(1, dtype=np.float32),
        times=np.zeros(1, dtype=np.int64),
    )
    wanted = Wanted(TOPK, True, np.ones(ITEMS, dtype=bool), np.zeros(0, dtype=np.int32))
    quick = nearest.recommend(catalogue_of(ITEMS), history, wanted, 0)
    assert quick is not None
    best = np.argsort(-model.score(history, 0)[0])
    assert len(set(quick.items) & set(best[best != 7][:TOPK])) >= TOPK - 1


@pytest.mark.parametrize(("least", "indexed"), [(ITEMS, True), (ITEMS + 1, False)])
def test_the_number_of_products_decides_whether_a_loaded_model_has_an_index(
    large, settings: Settings, monkeypatch: pytest.MonkeyPatch, least: int, indexed: bool
):
    monkeypatch.setattr(snapshots, "INDEX_MIN_ITEMS", least)
    model, histories = large
    ids = [f"p{item}" for item in range(ITEMS)]
    path = save_artifact(
        settings.artifacts / "als" / "als_1",
        model=model,
        item_ids=ids,
        user_ids=[f"{user:09}" for user in range(USERS)],
        histories=histories,
        popularity=np.ones(ITEMS, dtype=np.float32),
        products=pd.DataFrame({"product_id": ids}),
        manifest={"model_id": "als_1", "data_version": "v1"},
    )
    snapshot = load_snapshot(settings, path, "als_1", 20)
    assert (snapshot.nearest is not None) == indexed
    assert (snapshot.lists is None) == indexed
    assert (settings.artifacts / "indexes" / "als_1.faiss").exists() == indexed
    wanted = Wanted(TOPK, True, snapshot.catalogue.available, np.zeros(0, dtype=np.int32))
    made = recommend(snapshot, one(histories, 3), wanted, 0)
    exact = recommend(dataclasses.replace(snapshot, nearest=None), one(histories, 3), wanted, 0)
    assert made.fallback_method is exact.fallback_method is None
    assert len(set(made.ranked.items) & set(exact.ranked.items)) >= TOPK - 1
