"""One and two stars are no liking: seen, and without any pull on similar products."""

import numpy as np
import pandas as pd
import pytest

from recsys import schema
from recsys.evaluation.leave_one_out import number_interactions
from recsys.models.als import Als
from recsys.models.base import Histories
from recsys.models.histories import keep_entries
from recsys.models.hybrid import Hybrid
from recsys.models.item_knn import ItemKnn
from recsys.models.model_types import create_model
from tests.models.shop import DAY, GROUPS, ITEMS, START, taste_histories

NOW = START + 301 * DAY
WEIGHTS = {"item_knn": 1.0, "als": 0.5, "recent_popularity": 0.1, "content": 1.0}


def histories_of(*rows: tuple[str, int, float, int]) -> Histories:
    """Histories of the rows (user, item, stars, day) as a training prepares them."""
    table = pd.DataFrame(rows, columns=[schema.USER, schema.PRODUCT, schema.RATING, "day"])
    table[schema.PRODUCT] = "p" + table[schema.PRODUCT].astype(str)
    table[schema.TIMESTAMP] = pd.to_datetime(START + table["day"] * DAY, unit="s", utc=True)
    table[schema.CONFIDENCE] = (table[schema.RATING] + 1.0).astype(np.float32)
    table[schema.WEIGHT] = np.float32(1)
    return number_interactions(table, [f"p{item}" for item in range(ITEMS)]).histories


@pytest.fixture(params=["item_knn", "linear", "als", "bpr", "hybrid"])
def model(request):
    parameters = {"weights": WEIGHTS} if request.param == "hybrid" else {}
    made = create_model(request.param, parameters, 7)
    if isinstance(made, Hybrid):
        made.use_content(np.eye(GROUPS, dtype=np.float32)[np.arange(ITEMS) % GROUPS])
    return made.fit(taste_histories(), ITEMS)


@pytest.mark.parametrize("stars", [1.0, 2.0])
def test_a_customer_of_low_ratings_is_scored_like_one_without_history(model, stars):
    low = histories_of(("u", 3, stars, 290), ("u", 9, stars, 291))
    nobody = keep_entries(low, np.zeros(2, dtype=bool))
    others = np.delete(np.arange(ITEMS), [3, 9])
    got, expected = (model.score(each, NOW)[0, others] for each in (low, nobody))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_customer_of_high_ratings_is_offered_what_is_similar(model):
    high = histories_of(("u", 3, 5.0, 290), ("u", 9, 3.0, 291))
    scores = model.score(high, NOW)[0]
    alike = (np.arange(ITEMS) % GROUPS == 3) & ~np.isin(np.arange(ITEMS), [3, 9])
    assert scores[alike].mean() > scores[np.arange(ITEMS) % GROUPS != 3].mean()


def test_what_was_disliked_together_does_not_go_together():
    rows = []
    for user in range(40):
        rows += [(f"u{user}", 0, 5.0, 1 + user), (f"u{user}", 1, 1.0, 60 + user)]
        rows += [(f"u{user}", 2, 4.0, 120 + user)]
    histories = histories_of(*rows)
    similar = ItemKnn().fit(histories, ITEMS).similar(0)
    assert similar[1] == 0
    assert similar[2] > 0
    factors = Als.create({"factors": 4, "starts": 1}).fit(histories, ITEMS)
    without = keep_entries(histories, histories.items != 1)
    expected = Als.create({"factors": 4, "starts": 1}).fit(without, ITEMS)
    assert np.array_equal(factors.item_vectors, expected.item_vectors)


def test_what_was_disliked_is_still_seen():
    histories = histories_of(("u", 3, 1.0, 1), ("u", 9, 5.0, 2))
    assert histories.items.tolist() == [3, 9]
    assert histories.confidence.tolist() == [0.0, 6.0]
