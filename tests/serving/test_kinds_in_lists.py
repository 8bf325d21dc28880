"""What the model knows of a user besides ratings decides what may stand in their lists."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.merchandising.catalogue import build_catalogue
from recsys.merchandising.ranking import NOTHING, NearestItems, Wanted, hidden
from recsys.merchandising.recommending import LiveEvent, Snapshot, history_of
from recsys.models.als import Als, AlsParameters
from recsys.models.artifacts import load_artifact
from recsys.models.base import Histories
from recsys.models.histories import user_range
from recsys.models.kinds import CODE_OF
from recsys.schema import Kind
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.serving.shops import ITEMS, add_model, histories, product_id, products

KINDS = [Kind.RATING, Kind.PURCHASE, Kind.CART, Kind.CLICK, Kind.VIEW, Kind.DISMISS]


def one_of_each() -> Histories:
    """The first user has done something else with each of their six products."""
    done = histories()
    codes = np.zeros(len(done.items), dtype=np.int8)
    codes[:6] = [CODE_OF[kind] for kind in KINDS]
    return dataclasses.replace(done, kinds=codes)


@pytest.mark.parametrize("seconds_for_lists", [0, 20])
def test_what_was_looked_at_may_be_recommended_and_what_was_dismissed_never(
    settings: Settings, seconds_for_lists: float
):
    done = one_of_each()
    items = [product_id(item) for item in done.items[:6].tolist()]
    other = next(item for item in range(20) if item not in done.items[:6])
    shop = products(families={int(done.items[5]): "unwanted", other: "unwanted"})
    add_model(settings, "als_1", done=done, shop_products=shop)
    (settings.home / "config").mkdir(exist_ok=True)
    (settings.home / "config" / "serving.yaml").write_text(
        f"personal_lists_seconds: {seconds_for_lists}\n"
    )
    with TestClient(create_app(settings, ServiceEnvironment())) as client:
        for exclude_seen, topk in ((True, ITEMS - 4), (False, ITEMS - 2)):
            body = {"user_id": 0, "topk": topk, "exclude_seen": exclude_seen}
            answer = client.post("/recommend", json=body).json()
            found = {row["product_id"] for row in answer["recommendations"]}
            assert len(found) == topk
            assert not found & {items[5], product_id(other)}
            assert set(items[2:5]) <= found, "cart, click and view"
            assert bool(found & set(items[:2])) is not exclude_seen


def test_the_index_hides_what_was_dismissed(tmp_path: Path):
    items = 1000
    model = Als(AlsParameters(factors=8, starts=1))
    model._set(np.random.default_rng(0).normal(size=(items, 8)).astype(np.float32))
    ids = [product_id(item) for item in range(items)]
    catalogue = build_catalogue(ids, {"product_id": ids}, "test")
    done = user_range(one_of_each(), 0, 1)
    assert sorted(hidden(catalogue, done, True)) == sorted(done.items[[0, 1, 5]])
    assert hidden(catalogue, done, False).tolist() == done.items[[5]].tolist()
    nearest = NearestItems(model, tmp_path / "index.faiss")
    for exclude_seen in (True, False):
        asked = Wanted(500, exclude_seen, np.ones(items, dtype=bool), NOTHING)
        quick = nearest.recommend(catalogue, done, asked, 0)
        assert quick is not None
        assert int(done.items[5]) not in quick.items
        assert {*done.items[:2].tolist()} <= set(quick.items) or exclude_seen


@pytest.mark.parametrize(
    ("stated", "click", "cart"), [(None, 0.2, 0.5), ({"click": 0.9}, 0.9, 0.5)]
)
def test_a_live_event_weighs_what_the_model_was_trained_with(
    settings: Settings, stated: dict[str, float] | None, click: float, cart: float
):
    add_model(settings, "als_1", signal_weights=stated)
    artifact = load_artifact(settings.artifacts / "als" / "als_1")
    ids = [product_id(item) for item in range(ITEMS)]
    snapshot = Snapshot(
        "als_1", "als", artifact, lambda user: None, build_catalogue(ids, {"product_id": ids}, ""),
        content=None, loaded_at=0,
    )  # fmt: skip
    live = (
        LiveEvent("p1", 0.0, 100, Kind.CLICK),
        LiveEvent("p2", 0.0, 200, Kind.CART),
        LiveEvent("p3", 5.0, 300),
    )
    assert history_of(snapshot, "new", live, [], 400).weight == pytest.approx([click, cart, 1])
