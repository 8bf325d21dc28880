import numpy as np

from recsys.models.histories import histories_from_codes, take_users
from recsys.models.popularity import DAY, Popularity, RecentPopularity


def shop():
    users = np.array([0, 1, 2, 3])
    items = np.array([0, 0, 1, 2])
    times = np.array([0, 0, 60, 120]) * DAY
    weight = np.array([1, 1, 1, 0.5], dtype=np.float32)
    return histories_from_codes(users, items, times, count=4, weight=weight)


def test_all_time_popularity_counts_interactions():
    assert Popularity().fit(shop(), 3).score(shop(), 0)[0].tolist() == [2, 1, 1]


def test_recent_popularity_halves_every_thirty_days():
    model = RecentPopularity().fit(shop(), 3)
    np.testing.assert_allclose(model.at(90 * DAY), [2 / 8, 1 / 2, 0])


def test_recent_popularity_does_not_see_the_future():
    model = RecentPopularity().fit(shop(), 3)
    now = np.array([0, 60, 61, 121]) * DAY
    scores = model.score(take_users(shop(), np.arange(4)), now)
    np.testing.assert_allclose(scores[0], 0)
    np.testing.assert_allclose(scores[1], [2 / 4, 0, 0])
    assert scores[2].argmax() == 1
    assert scores[3].argmax() == 2


def test_long_after_the_last_purchase_the_order_stays():
    model = RecentPopularity().fit(shop(), 3)
    assert np.argsort(model.at(100_000 * DAY)).tolist() == np.argsort(model.at(121 * DAY)).tolist()


def test_a_span_of_a_century_does_not_overflow():
    times = np.array([0, 36_500, 36_501], dtype=np.int64) * DAY
    histories = histories_from_codes(np.zeros(3, int), np.arange(3), times, count=1)
    model = RecentPopularity().fit(histories, 3)
    for now in (1, 36_501, 36_502):
        scores = model.score(histories, np.array([now * DAY]))
        assert np.isfinite(scores).all()
        assert scores[0].max() > 0
