"""What a burst of new accounts can do to a product is bounded (decision 123)."""

import numpy as np
import pandas as pd
import pytest

from recsys.data.versions import current_version
from recsys.evaluation import leave_one_out
from recsys.evaluation.leave_one_out import read_leave_one_out, without_bursts
from recsys.models.histories import histories_from_codes, take_users
from recsys.models.item_knn import ItemKnn
from recsys.models.popularity import RecentPopularity
from recsys.training.job import train_model
from tests.models.shop import DAY, ITEMS, START, publish_shop, taste_interactions

CUSTOMERS = 2000
BURST = 4000
END = START + 300 * DAY


def attacked_shop(products_an_account: int) -> tuple[pd.DataFrame, int]:
    """A shop, and 4,000 events of accounts made yesterday that want one product up."""
    shop = taste_interactions(users=CUSTOMERS)
    sold = np.bincount(shop["item"], minlength=ITEMS)
    target, best = int(sold.argmin()), int(sold.argmax())
    accounts = CUSTOMERS + np.arange(BURST // products_an_account)
    items = [best, target][-products_an_account:]
    parts = [
        pd.DataFrame({"user": accounts, "item": item, "time": END - DAY // 2 + 60 * number})
        for number, item in enumerate(items)
    ]
    return pd.concat([shop, *parts], ignore_index=True).sort_values(["user", "time"]), target


@pytest.mark.parametrize("products_an_account", [1, 2])
def test_a_burst_lifts_a_product_into_few_lists(settings, products_an_account):
    shop, target = attacked_shop(products_an_account)
    publish_shop(settings, shop)
    data = read_leave_one_out(current_version(settings))
    assert len(data.everything.items) - len(data.learnt.items) > 0.9 * BURST
    popularity = RecentPopularity().fit(data.learnt, ITEMS).at(END)
    assert (popularity >= popularity[target]).sum() >= 3
    real = [at for at, user in enumerate(data.user_ids) if int(user[1:]) < CUSTOMERS]
    histories = take_users(data.everything, np.array(real))
    scores = ItemKnn().fit(data.learnt, ITEMS).score(histories, END)
    listed = (scores > scores[:, [target]]).sum(axis=1) < 10
    clean = ItemKnn().fit(take_users(data.everything, np.array(real)), ITEMS)
    before = clean.score(histories, END)
    listed_before = (before > before[:, [target]]).sum(axis=1) < 10
    assert listed.mean() < listed_before.mean() + 0.05


def test_the_bound_holds_in_any_seven_days():
    generator = np.random.default_rng(5)
    users, items = generator.integers(0, 900, 3000), generator.integers(0, 12, 3000) ** 2 // 12
    times = np.sort(generator.integers(0, 120 * DAY, 3000))
    histories = histories_from_codes(users, items, times, count=900)
    learnt = without_bursts(histories, histories.times * 1_000_000, 12)
    starts = histories.indptr[:-1]
    first = np.repeat(histories.times[starts], np.diff(histories.indptr))
    young = histories.times - first < 28 * DAY
    days = histories.times // DAY
    assert 0 < (~learnt).sum() < young.sum()
    assert learnt[~young].all()
    for day in range(6, 120):
        week = young & (days > day - 7) & (days <= day)
        third = np.sort(np.bincount(histories.items[week], minlength=12))[-3]
        today = np.unique(histories.items[week & learnt & (days == day)])
        kept = np.bincount(histories.items[week & learnt], minlength=12)
        assert (kept[today] <= max(3, third)).all()


def test_the_latest_of_a_burst_are_set_aside_whatever_the_order_of_users():
    times = START + np.arange(10) * 60
    histories = histories_from_codes(np.arange(10)[::-1], np.zeros(10, np.int64), times, count=10)
    learnt = without_bursts(histories, histories.times * 1_000_000, 5)
    assert learnt.tolist() == [False] * 7 + [True] * 3


def test_a_shop_of_new_customers_is_still_learnt_from(settings):
    shop = taste_interactions()
    shop["time"] = START + (shop["time"] - START) // 15  # all within three weeks
    file = settings.home / "config" / "training.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("tuning: {seconds: 60, trials: 2}\n")
    summary = train_model(settings, "item_knn", publish_shop(settings, shop))
    assert 0 < summary["set_aside"] < 0.1 * len(shop)
    assert summary["recall_at_10"] > 2 * summary["baseline_recall_at_10"]


def test_a_training_says_how_many_interactions_it_set_aside(settings):
    shop, _ = attacked_shop(1)
    file = settings.home / "config" / "training.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("tuning: {seconds: 60, trials: 1}\n")
    summary = train_model(settings, "item_knn", publish_shop(settings, shop))
    assert summary["set_aside"] > 0.9 * BURST
    log = (settings.logs / "cf" / "item_knn.log").read_text(encoding="utf-8")
    assert f"set_aside={summary['set_aside']}" in log


def test_without_the_rule_the_burst_would_win(settings, monkeypatch):
    monkeypatch.setattr(leave_one_out, "BURST_LEAST", BURST)
    shop, target = attacked_shop(1)
    publish_shop(settings, shop)
    data = read_leave_one_out(current_version(settings))
    assert RecentPopularity().fit(data.learnt, ITEMS).at(END).argmax() == target
