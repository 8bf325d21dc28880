from pathlib import Path

import numpy as np
import pytest

from recsys.merchandising.composing import compose
from recsys.merchandising.placements import Placement
from recsys.merchandising.rules import Rule, matching
from recsys.merchandising.steering import compile_steering
from tests.merchandising.steered_shops import NOW, cases, check, make_shop


@pytest.mark.parametrize("seed", range(40))
def test_a_list_is_what_the_words_of_the_page_make_it(tmp_path: Path, seed: int):
    """Rules, spread, filters, availability and what was had, on every path: see
    benchmarks/serving/steering.py for a hundred thousand."""
    for case in cases(seed, tmp_path, 60):
        check(case)


STEEPNESS = {
    "even": lambda place: 1 - place / 400,
    "steep": lambda place: np.exp(-place / 3),
    "a few alone count": lambda place: np.where(
        place < 8, 1 - place / 99, 1e-6 * (1 - place / 400)
    ),
    "negative": lambda place: -(place**2.0),
}


@pytest.mark.parametrize("steepness", STEEPNESS)
@pytest.mark.parametrize(
    ("action", "strength", "of", "to"),
    [("boost", 0.5, 30, 5), ("boost", 0.1, 9, 4), ("bury", 0.1, 2, 7), ("boost", 1, 45, 0)],
)
def test_a_strength_moves_as_many_places_however_steep_the_scores_are(
    tmp_path: Path, steepness: str, action: str, strength: float, of: int, to: int
):
    shop = make_shop(tmp_path, np.random.default_rng(14))[0]
    catalogue = shop.catalogue
    usable = np.zeros(len(catalogue.item_ids), dtype=bool)
    _, first = np.unique(catalogue.families, return_index=True)
    usable[first] = True
    usable &= catalogue.available
    order = np.random.default_rng(1).permutation(np.flatnonzero(usable))
    assert len(order) > 60
    scores = np.full(len(usable), -9e9, dtype=np.float32)
    scores[order] = STEEPNESS[steepness](np.arange(len(order)))
    rule = Rule.model_validate(
        {"name": "r", "action": action, "products": {"ids": [catalogue.item_ids[order[of]]]}}
        | {"strength": strength, "author": "lan", "reason": "a test"}
    )
    meant = matching(rule.products, catalogue, NOW)
    steering = compile_steering(catalogue, [(rule, meant)], Placement())
    assert steering is not None
    assert compose(scores, usable, steering, 12).items.index(order[of]) == to
