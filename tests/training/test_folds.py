"""A blend of a small shop is chosen on folds of its validation."""

import numpy as np
import pytest

from recsys.data.versions import current_version
from recsys.evaluation.leave_one_out import read_leave_one_out
from recsys.evaluation.metrics import metrics_per_user
from recsys.evaluation.ranking import rank_targets
from recsys.settings import Settings
from recsys.training.subject import Subject
from recsys.training.tuning import tune
from tests.models.shop import DAY, ITEMS, START, publish_shop, taste_interactions

TUNED = {"item_knn": {}, "als": {"factors": 4, "starts": 1}, "linear": {}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Everybody's latest but one purchase is one of a campaign, of which nothing else is known."""
    settings = Settings(tmp_path_factory.mktemp("shop"))
    table = taste_interactions(users=300)
    latest_but_one = table.groupby("user").cumcount(ascending=False) == 1
    campaign = ITEMS + table["user"] % 6
    table["item"] = np.where(latest_but_one, campaign, table["item"])
    table.loc[latest_but_one, "time"] = START + 301 * DAY + table["user"] % 7
    table.loc[table.groupby("user").cumcount(ascending=False) == 0, "time"] = START + 400 * DAY
    publish_shop(settings, table, items=ITEMS + 6)
    return read_leave_one_out(current_version(settings))


def chosen(data, folds):
    known = (data.training, data.validation, len(data.item_ids))
    subject = Subject(*known, 1, folds=folds)
    return subject, tune("hybrid", subject, {}, seconds=60, trials=1, tuned_components=TUNED)


def test_what_others_bought_since_decides_with_folds_and_is_unknown_without(data):
    _, without = chosen(data, [])
    _, found = chosen(data, data.folds(1))
    assert without.score < 0.1
    assert found.score > 0.5


def test_the_score_is_that_of_blends_that_are_fitted_on_what_each_fold_knows(data):
    folds = data.folds(1)
    subject, found = chosen(data, folds)
    of_users = []
    for fold in folds:
        model = subject.fit("hybrid", found.parameters | {"siblings": 1.0}, fold.training)
        ranked = metrics_per_user(rank_targets(model, fold.questions))
        of_users.append((ranked["recall_at_10"] + ranked["ndcg_at_10"]) / 2)
    assert np.concatenate(of_users).mean() == pytest.approx(found.score)
