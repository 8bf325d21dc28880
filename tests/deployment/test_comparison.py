"""What another model would change, before anybody sees it."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from recsys.deployment.comparison import (
    LENGTH,
    compare_models,
    in_words,
    note_comparison,
    read_comparisons,
)
from recsys.errors import InputError
from recsys.settings import Settings
from tests.data.shop import refresh, row, write_shop
from tests.orchestration.made_shop import CATALOGUE
from tests.serving.shops import USERS, add_model

HARMED = {"users": 300, "recall_at_10": 0.05, "recall_at_10_low": 0.04, "recall_at_10_high": 0.06}
SOUND = {"users": 300, "recall_at_10": 0.2, "recall_at_10_low": 0.18, "recall_at_10_high": 0.22}


@pytest.fixture
def shop(settings: Settings) -> Settings:
    """Two models of the same customers, the second learnt from other histories; p5 is not sold."""
    others = [
        line.replace("Đẹp,Trang điểm", "Sạch,Tóc") if n >= 19 else line
        for n, line in enumerate(CATALOGUE)
        if n != 4
    ]
    write_shop(settings, [row("2", "p1"), row("3", "p2")], others)
    refresh(settings)
    add_model(settings, "als_1", segments={"new_products": SOUND})
    add_model(settings, "als_2", seed=3, segments={"new_products": HARMED})
    return settings


def test_the_lists_of_both_models_are_compared_customer_by_customer(shop: Settings) -> None:
    found = compare_models(shop, "als_1", "als_2")
    assert found["customers"] == USERS
    assert sum(found["shared"]) == USERS
    assert len(found["shared"]) == LENGTH + 1
    assert 0 <= found["first_changed"] <= 1
    assert sum(found["shared"][:LENGTH]) > 0
    for what in ("brands", "categories", "products"):
        wins, losses = found[what]["win"], found[what]["lose"]
        assert all(change > 0 for *_, change in wins)
        assert all(change < 0 for *_, change in losses)
        assert all(change == pytest.approx(new - old) for _, old, new, change in wins + losses)
    json.dumps(found, allow_nan=False)


def test_a_model_beside_itself_changes_nothing(shop: Settings) -> None:
    found = compare_models(shop, "als_1", "als_1")
    assert found["shared"][LENGTH] + found["shared"][LENGTH - 1] >= 1
    assert found["first_changed"] == 0
    assert found["brands"] == {"win": [], "lose": []}
    assert found["loss"] is None


def test_a_segment_that_loses_is_named(shop: Settings) -> None:
    found = compare_models(shop, "als_1", "als_2")
    assert "new_products" in found["loss"]
    assert found["segments"] == {"new_products": [0.2, 0.05]}
    said = in_words(found)
    assert f"Of {USERS} customers' lists of {LENGTH}" in said
    assert found["loss"] in said


def test_what_is_not_sold_stands_in_no_list(shop: Settings) -> None:
    found = compare_models(shop, "als_1", "als_2")
    named = [name for side in found["products"].values() for name, *_ in side]
    gone = CATALOGUE[4].split(",")[1]
    assert named
    assert gone not in named


def test_a_comparison_that_fails_stops_no_deployment(shop: Settings) -> None:
    assert note_comparison(shop, "als_1", "als_9") is None
    with pytest.raises(InputError, match="als_9"):
        compare_models(shop, "als_1", "als_9")
    (shop.artifacts / "als" / "als_2" / "manifest.json").write_text("{")
    assert note_comparison(shop, "als_1", "als_2") is None
    assert read_comparisons(shop) == []


def test_comparisons_are_kept_newest_first(shop: Settings) -> None:
    noted = note_comparison(shop, "als_1", "als_2")
    assert noted is not None
    assert datetime.fromisoformat(noted["made_at"]) <= datetime.now(UTC)
    folder = shop.reports / "deployments"
    older = noted | {"model_id": "als_0", "made_at": "2020-01-01T00:00:00+00:00"}
    (folder / "als_0.json").write_text(json.dumps(older))
    (folder / "damaged.json").write_text("{")
    assert [one["model_id"] for one in read_comparisons(shop)] == ["als_2", "als_0"]
    assert np.isfinite(read_comparisons(shop)[0]["first_changed"])
