"""Choosing how far products with few purchases are lifted."""

import numpy as np
import pytest

from recsys.evaluation.leave_one_out import questions_to
from recsys.evaluation.metrics import metrics_per_user
from recsys.evaluation.ranking import rank_targets
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes
from recsys.models.hybrid import Hybrid
from recsys.models.newcomers import Traits
from recsys.training.subject import Subject
from recsys.training.tuning import tune

BRANDS, USERS = 12, 240
KNOWN, ITEMS = 4 * BRANDS, 5 * BRANDS  # the last of each brand is new
WEIGHTS = {"item_knn": 1.0, "als": 0.0, "recent_popularity": 0.5}


def shop(likely: float) -> Subject:
    """Users buy three of the four products of a brand; at last the fourth, or if that is `likely`
    the new one, which nobody has bought before."""
    random = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        bought = random.permutation(np.arange(user % BRANDS, KNOWN, BRANDS))
        if random.random() < likely:
            bought[-1] = KNOWN + user % BRANDS
        rows += [(user, item, time) for time, item in enumerate(bought)]
    users, items, times = np.array(rows).T
    last = times == 3

    def histories(kept: np.ndarray) -> Histories:
        return histories_from_codes(users[kept], items[kept], times[kept], count=USERS)

    nothing = np.full(ITEMS, -1, dtype=np.int32)
    brands = (np.arange(ITEMS) % BRANDS).astype(np.int32)
    traits = Traits(np.arange(ITEMS, dtype=np.int32), brands, nothing, np.full(ITEMS, np.nan))
    questions = questions_to(histories(~last), histories(last))
    return Subject(histories(~last), questions, ITEMS, 0, traits=traits)


@pytest.mark.parametrize("likely", [0.2, 0.6])
def test_new_products_are_lifted_as_far_as_the_others_do_not_pay_for_it(likely: float):
    subject = shop(likely)
    found = tune("hybrid", subject, {"weights": WEIGHTS}, seconds=0.1, trials=1)
    lift = found.parameters["lift"]
    assert lift > 0
    plain, lifted = (subject.fit("hybrid", found.parameters | {"lift": by}) for by in (0.0, lift))
    new = subject.validation.targets >= KNOWN
    before, after = (
        metrics_per_user(rank_targets(model, subject.validation)) for model in (plain, lifted)
    )
    assert after["recall_at_10"][new].mean() > before["recall_at_10"][new].mean()
    lost = [each["recall_at_10"].mean() + each["ndcg_at_10"].mean() for each in (after, before)]
    assert lost[0] >= 0.99 * lost[1]


@pytest.mark.parametrize("why", ["nobody is asked for new products", "no traits"])
def test_where_it_cannot_be_told_nothing_is_lifted(why: str):
    subject = shop(0.6 if why == "no traits" else 0.0)
    if why == "no traits":
        subject = Subject(subject.training, subject.validation, ITEMS, 0)
    found = tune("hybrid", subject, {"weights": WEIGHTS}, seconds=0.1, trials=1)
    assert found.parameters["lift"] == 0
    assert isinstance(subject.fit("hybrid", found.parameters), Hybrid)


def test_the_usual_lift_stands_where_less_or_more_finds_no_other_products():
    weights = {**WEIGHTS, "recent_popularity": 0.0}
    found = tune("hybrid", shop(0.6), {"weights": weights}, seconds=0.1, trials=1)
    assert found.parameters["lift"] == 0.2
