"""What is bought together, learned from baskets of which the truth is known."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.models.artifacts import load_artifact, save_artifact
from recsys.models.base import Histories
from recsys.models.complements import Complements, learn_complements
from recsys.models.histories import acquired, histories_from_codes
from recsys.models.kinds import CODE_OF
from recsys.models.popularity import Popularity
from recsys.models.storage import ArtifactError
from tests.models.shop import DAY, START

STEPS, OF_STEP = 3, 10
"""Categories of a routine, and products of each."""
ITEMS = STEPS * OF_STEP
CATEGORIES = 1 + np.arange(ITEMS, dtype=np.int32) // OF_STEP
ALONE = np.arange(ITEMS, dtype=np.int32)


def events(rows: list[tuple[int, int, float]], kinds: list[str] | None = None) -> Histories:
    """Histories of (user, item, day)."""
    users, items, days = (np.array(column) for column in zip(*rows, strict=True))
    codes = None if kinds is None else np.array([CODE_OF[kind] for kind in kinds], dtype=np.int8)
    times = (START + days * DAY).astype(np.int64)
    return histories_from_codes(users, items, times, count=int(users.max()) + 1, kinds=codes)


def routine(users: int = 400, seed: int = 0) -> Histories:
    """Customers of a line, 0 to 9, buy some of its steps on one day, and weeks later one more
    product of a step that they have, of whatever line: instead of it, not beside it."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        line, day = random.integers(OF_STEP), random.integers(300)
        steps = random.choice(STEPS, size=2, replace=False)
        rows += [(user, step * OF_STEP + line, day) for step in steps]
        rows.append((user, steps[0] * OF_STEP + random.integers(OF_STEP), day + 30))
    return events(rows)


def learn(histories: Histories, families=ALONE, categories=CATEGORIES, texts=None) -> Complements:
    return learn_complements(histories, families, categories, texts)


def best(complements: Complements, cart: list[int], topk: int = 2) -> list[int]:
    return np.argsort(-complements.scores(np.array(cart)), kind="stable")[:topk].tolist()


def test_a_cart_is_completed_by_the_other_steps_of_the_routine():
    complements = learn(routine())
    for line in range(OF_STEP):
        steps = [step * OF_STEP + line for step in range(STEPS)]
        assert set(best(complements, steps[:1])) == set(steps[1:])
        assert best(complements, steps[:2], 1) == steps[2:]


def test_another_product_of_the_category_stands_behind_what_completes_it():
    complements = learn(routine())
    for item in range(ITEMS):
        scores = complements.scores(np.array([item]))
        same = CATEGORIES[item] == CATEGORIES
        assert scores[same].max() < np.sort(scores[~same])[-2]


def test_a_product_that_nobody_bought_is_completed_by_what_goes_with_its_category():
    rows = [(user, item, 0.0) for user in range(40) for item in (0, 20 if user % 4 else 10)]
    complements = learn(events(rows))
    assert best(complements, [1], 1) == [20]  # of the category of product 0
    assert best(complements, [25], 1) == [0]


def test_products_with_nearly_the_same_text_are_taken_instead_of_each_other():
    rows = [(user, item, 0.0) for user in range(40) for item in (0, 1 + user % 2)]
    texts = np.eye(ITEMS, dtype=np.float32)
    texts[1] = texts[0]
    nothing = np.zeros(ITEMS, dtype=np.int32)
    plain = learn(events(rows), categories=nothing).scores(np.array([0]))
    assert plain[1] == plain[2] > 0
    by_text = learn(events(rows), categories=nothing, texts=texts).scores(np.array([0]))
    assert by_text[2] > 1.5 * by_text[1]


def test_sizes_of_a_product_count_as_one_and_the_best_selling_one_is_offered():
    # 10 and 11 are two sizes of one product; 11 is bought more often.
    rows = [(user, item, 0.0) for user in range(40) for item in (0, 10 if user % 4 == 0 else 11)]
    families = ALONE.copy()
    families[11:] -= 1
    complements = learn(events(rows), families)
    assert best(complements, [0]) == [11, 10]
    assert complements.scores(np.array([10]))[11] == 0
    assert best(complements, [10], 1) == best(complements, [11], 1) == [0]


def test_what_is_bought_next_counts_and_what_is_bought_much_later_does_not():
    soon = learn(events([(user, item, item * 1.0) for user in range(40) for item in (0, 20)]))
    assert best(soon, [0], 1) == [20]
    assert soon.scores(np.array([20]))[0] < soon.scores(np.array([0]))[20]  # one way only
    late = learn(events([(user, item, item * 10.0) for user in range(40) for item in (0, 20)]))
    assert late.scores(np.array([0])).max() == 0


def test_a_review_of_what_was_bought_is_no_second_basket():
    bought = [(user, item, 0.0) for user in range(40) for item in (0, 10)]
    rated = [(user, 20, 9.0) for user in range(40)] + [(user, 0, 9.0) for user in range(40)]
    kinds = ["purchase"] * len(bought) + ["rating"] * len(rated)
    histories = events(bought + rated, kinds)
    got = acquired(histories, ALONE)
    assert got.sum() == len(bought) + 40
    complements = learn(histories)
    scores = complements.scores(np.array([0]))
    # Bought with 10, and 20 in the next basket: not in the same one as the review of 0.
    assert scores[10] > 2 * scores[20] > 0


def test_looks_and_carts_are_no_baskets():
    rows = [(user, item, 0.0) for user in range(40) for item in (0, 10, 20)]
    kinds = ["purchase", "purchase", "view"] * 40
    scores = learn(events(rows, kinds)).scores(np.array([0]))
    assert scores[10] > 0 == scores[20]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_scores_are_finite_none_is_negative_and_no_size_of_the_cart_is_offered(data):
    user, item, day = st.integers(0, 9), st.integers(0, ITEMS - 1), st.floats(0, 400)
    rows = data.draw(st.lists(st.tuples(user, item, day), min_size=1, max_size=60))
    families = np.array(data.draw(st.lists(st.integers(0, 5), min_size=ITEMS, max_size=ITEMS)))
    families = np.unique(families, return_inverse=True)[1].astype(np.int32)
    complements = learn(events(rows), families)
    cart = np.array(data.draw(st.lists(item, max_size=5)), dtype=np.int32)
    scores = complements.scores(cart)
    assert scores.shape == (ITEMS,)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    assert not scores[np.isin(families, families[cart])].any()
    assert np.array_equal(scores, complements.scores(np.repeat(cart[::-1], 2)))


@pytest.fixture(scope="module")
def learned() -> Complements:
    """Of products in families of two and five categories."""
    rows = [(user, (3 * user + step) % ITEMS, 0.0) for user in range(200) for step in (0, 5, 9)]
    return learn(events(rows), ALONE // 2, 1 + ALONE % 5)


def save(path: Path, complements: Complements | None) -> Path:
    histories = routine(20)
    return save_artifact(
        path,
        model=Popularity().fit(histories, ITEMS),
        item_ids=[f"p{item}" for item in range(ITEMS)],
        user_ids=[f"u{user:02}" for user in range(20)],
        histories=histories,
        popularity=np.ones(ITEMS, dtype=np.float32),
        products=pd.DataFrame({"product_id": [f"p{item}" for item in range(ITEMS)]}),
        manifest={"model_id": "popularity_1", "data_version": "v1"},
        complements=complements,
    )


def test_an_artifact_keeps_what_is_bought_together(tmp_path: Path, learned: Complements):
    loaded = load_artifact(save(tmp_path / "popularity_1", learned)).complements
    assert loaded is not None
    for item in range(ITEMS):
        cart = np.array([item])
        assert np.array_equal(loaded.scores(cart), learned.scores(cart))


def test_an_artifact_of_before_has_none(tmp_path: Path):
    assert load_artifact(save(tmp_path / "popularity_1", None)).complements is None


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("families", lambda a: a[:-1], "29 families of 30 products"),
        ("families", lambda a: a + 100, "does not exist"),
        ("categories", lambda a: a - 9, "does not exist"),
        ("trust", lambda a: a[:-1], "rows for"),
        ("columns", lambda a: a * 0 + 16, "no family"),
        ("starts", lambda a: a[::-1].copy(), "do not start at 0"),
        ("values", lambda a: a.astype(np.float64), "expected float32"),
    ],
)
def test_arrays_that_do_not_agree_are_refused(
    tmp_path: Path, learned: Complements, name: str, change, said: str
):
    learned.save(tmp_path)
    np.save(tmp_path / f"{name}.npy", change(np.load(tmp_path / f"{name}.npy")))
    with pytest.raises(ArtifactError, match=said):
        Complements.load(tmp_path, ITEMS)


def test_asking_needs_no_scipy(tmp_path: Path, learned: Complements):
    saved = save(tmp_path / "popularity_1", learned)
    program = (
        "import sys, numpy as np; from pathlib import Path; "
        "from recsys.models.artifacts import load_artifact; "
        "found = load_artifact(Path(sys.argv[1])).complements; "
        "assert found.scores(np.array([0])).max() > 0; "
        "sys.exit('scipy' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(saved)], check=False)
    assert done.returncode == 0
