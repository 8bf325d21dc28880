"""Choosing how far other sizes of what a customer had are lowered."""

from pathlib import Path

import numpy as np
import pytest

from recsys.evaluation.leave_one_out import questions_to
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes
from recsys.models.hybrid import Hybrid
from recsys.models.newcomers import Traits
from recsys.models.storage import ArtifactError
from recsys.training.subject import Subject
from recsys.training.tuning import tune

TASTES, EACH, USERS = 6, 4, 240
ITEMS = 2 * TASTES * EACH  # each product in two sizes, one after the other
WEIGHTS = {"item_knn": 1.0, "als": 0.0, "recent_popularity": 0.1}


def shop(*, refills: bool, traits: bool = True) -> Subject:
    """Users buy three products of their taste in any size, and at last a fourth, or if there are
    `refills` the other size of the third."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        products = EACH * (user % TASTES) + random.permutation(EACH)
        sizes = random.integers(0, 2, EACH)
        if refills:
            products[3], sizes[3] = products[2], 1 - sizes[2]
        bought = 2 * products + sizes
        rows += [(user, item, time) for time, item in enumerate(bought.tolist())]
    users, items, times = np.array(rows).T
    last = times == EACH - 1

    def histories(kept: np.ndarray) -> Histories:
        return histories_from_codes(users[kept], items[kept], times[kept], count=USERS)

    nothing = np.full(ITEMS, -1, dtype=np.int32)
    families = (np.arange(ITEMS) // 2).astype(np.int32)
    told = Traits(families, nothing, nothing, np.full(ITEMS, np.nan)) if traits else None
    questions = questions_to(histories(~last), histories(last))
    return Subject(histories(~last), questions, ITEMS, 0, traits=told)


@pytest.fixture(scope="module")
def tuned() -> tuple[Subject, dict]:
    subject = shop(refills=False)
    found = tune("hybrid", subject, {"weights": WEIGHTS}, seconds=0.1, trials=1)
    return subject, found.parameters


def test_sizes_that_nobody_wants_stand_lower(tuned):
    subject, parameters = tuned
    assert parameters["siblings"] < 1
    histories = subject.validation.histories
    lowered = subject.fit("hybrid", parameters).score(histories, 9)
    plain = subject.fit("hybrid", parameters | {"siblings": 1.0}).score(histories, 9)
    other = histories.items[0] ^ 1  # the other size of what the first user bought first
    assert other not in histories.items[:3]
    assert lowered[0, other] == plain[0, other] * np.float32(parameters["siblings"])
    assert lowered[0, histories.items[0]] == plain[0, histories.items[0]]


@pytest.mark.parametrize("why", ["customers buy other sizes", "no traits"])
def test_where_they_are_wanted_or_unknown_they_stay(why: str):
    subject = shop(refills=why != "no traits", traits=why != "no traits")
    found = tune("hybrid", subject, {"weights": WEIGHTS}, seconds=0.1, trials=1)
    assert found.parameters["siblings"] == 1


def test_a_stored_blend_lowers_them_too_and_its_parts_are_its_score(tuned, tmp_path: Path):
    subject, parameters = tuned
    model = subject.fit("hybrid", parameters)
    model.save(tmp_path)
    loaded = Hybrid.load(tmp_path)
    histories = subject.validation.histories
    scores = model.score(histories, 9)
    assert np.array_equal(loaded.score(histories, 9), scores)
    np.testing.assert_allclose(sum(loaded.parts(histories, 9).values()), scores, rtol=1e-5)
    np.save(tmp_path / "families.npy", np.arange(ITEMS + 1, dtype=np.int32))
    with pytest.raises(ArtifactError, match=r"families\.npy does not fit"):
        Hybrid.load(tmp_path)


def test_nothing_is_stored_where_nothing_is_lowered(tuned, tmp_path: Path):
    subject, parameters = tuned
    subject.fit("hybrid", parameters | {"siblings": 1.0}).save(tmp_path)
    assert not (tmp_path / "families.npy").exists()
