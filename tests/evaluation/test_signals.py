"""Signals beside ratings in the protocol: which side knows what, and what is asked."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys import schema
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.evaluation import leave_one_out
from recsys.evaluation.leave_one_out import (
    LOOKED_AT_KEPT,
    number_interactions,
    questions_to,
    read_leave_one_out,
    rolling_windows,
)
from recsys.models.histories import user_rows
from recsys.models.kinds import CODE_OF, weight_of_codes
from recsys.schema import Kind
from tests.models.shop import (
    DAY,
    ITEMS,
    START,
    USERS,
    publish_shop,
    signal_rows,
    taste_interactions,
)

NOTHING_RATED = pd.DataFrame(
    {schema.USER: [], schema.PRODUCT: [], schema.RATING: [], schema.CONFIDENCE: [],
     schema.WEIGHT: [], schema.TIMESTAMP: pd.to_datetime([], utc=True)}
)  # fmt: skip


def rated(*rows: tuple[int, int, float, float]) -> pd.DataFrame:
    """Interactions of (user, item, day, stars)."""
    user, item, day, stars = (list(column) for column in zip(*rows, strict=True))
    return pd.DataFrame(
        {
            schema.USER: [f"u{one}" for one in user],
            schema.PRODUCT: [f"p{one}" for one in item],
            schema.RATING: stars,
            schema.CONFIDENCE: stars,
            schema.WEIGHT: 1.0,
            schema.TIMESTAMP: at(day),
        }
    )


def did(*rows: tuple[int, int, float, Kind]) -> pd.DataFrame:
    """Signals of (user, item, day, kind), in the order given."""
    user, item, day, kind = (list(column) for column in zip(*rows, strict=True))
    return pd.DataFrame(
        {
            schema.USER: [f"u{one}" for one in user],
            schema.PRODUCT: [f"p{one}" for one in item],
            schema.KIND: [str(one) for one in kind],
            schema.TIMESTAMP: at(day),
        }
    )


def at(days: list[float]) -> pd.DatetimeIndex:
    return pd.to_datetime(START + DAY * np.array(days), unit="s", utc=True)


def numbered_of(interactions, signals, items: int = 20):
    return number_interactions(interactions, [f"p{item}" for item in range(items)], signals)


def named(histories) -> list[tuple[int, int, Kind]]:
    kinds = [list(Kind)[code] for code in histories.kinds.tolist()]
    return list(
        zip(user_rows(histories).tolist(), histories.items.tolist(), kinds, strict=True)
    )  # fmt: skip


def test_users_of_signals_alone_are_known_users():
    numbered = numbered_of(rated((1, 0, 1, 5)), did((0, 3, 2, Kind.VIEW), (2, 99, 3, Kind.CART)))
    assert numbered.user_ids == ["u0", "u1", "u2"]
    everything = numbered.part(np.ones(len(numbered.rows), dtype=bool))
    assert named(everything) == [(0, 3, Kind.VIEW), (1, 0, Kind.RATING)]
    assert everything.weight == pytest.approx([0.05, 1])
    assert everything.confidence.tolist() == [5, 5]


def test_a_kind_that_nobody_knows_is_named():
    signals = did((0, 3, 2, Kind.VIEW)).assign(kind="wish")
    with pytest.raises(InputError, match="'wish'"):
        numbered_of(rated((1, 0, 1, 5)), signals)


def test_a_dismissal_is_an_entry_that_says_nothing_for_the_product():
    numbered = numbered_of(rated((0, 0, 1, 5)), did((0, 0, 2, Kind.DISMISS)))
    done = numbered.part(np.ones(2, dtype=bool))
    assert named(done) == [(0, 0, Kind.DISMISS)]
    assert (done.confidence.tolist(), done.weight.tolist()) == ([0], [0])


def test_of_what_was_looked_at_the_latest_are_read():
    views = [(0, item, item, Kind.VIEW) for item in range(LOOKED_AT_KEPT + 5)]
    bought = [(0, item, 0, Kind.PURCHASE) for item in range(200, 220)]
    few = [(1, item, item, Kind.CLICK) for item in range(3)]
    numbered = numbered_of(NOTHING_RATED, did(*views, *bought, *few), items=220)
    done = numbered.part(np.ones(len(numbered.rows), dtype=bool))
    expected = {*range(5, LOOKED_AT_KEPT + 5), *range(200, 220)}
    assert set(done.items[user_rows(done) == 0].tolist()) == expected
    assert done.items[user_rows(done) == 1].tolist() == [0, 1, 2]


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 4),
        st.sampled_from(list(Kind)),
        st.integers(0, 8),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_a_split_never_leaks(events):
    """A side is what it would be if the rows of the other side did not exist."""
    frames = {}
    for name, chosen in (("all", events), ("side", [event for event in events if event[4]])):
        stars = [(u, i, d, 5) for u, i, kind, d, _ in chosen if kind is Kind.RATING]
        stars = list({(u, i): row for row in stars for u, i in [row[:2]]}.values())
        others = [(u, i, d, kind) for u, i, kind, d, _ in chosen if kind is not Kind.RATING]
        frames[name] = (rated(*stars) if stars else NOTHING_RATED, did(*others) if others else None)
    stars, others = frames["all"]
    chosen = {(f"u{u}", f"p{i}", kind, START + DAY * d) for u, i, kind, d, kept in events if kept}
    numbered = numbered_of(stars, others)
    names = [*zip(stars[schema.USER], stars[schema.PRODUCT], ["rating"] * len(stars), strict=True)]
    times = [*stars[schema.TIMESTAMP]]
    if others is not None:
        names += [*zip(others[schema.USER], others[schema.PRODUCT], others[schema.KIND],
                       strict=True)]  # fmt: skip
        times += [*others[schema.TIMESTAMP]]
    kept = np.array(
        [(u, p, Kind(k), int(t.timestamp())) in chosen for (u, p, k), t in
         zip(names, times, strict=True)]
    )  # fmt: skip
    inside = numbered.part(kept[numbered.rows])
    alone = numbered_of(
        stars[kept[: len(stars)]], None if others is None else others[kept[len(stars) :]]
    )
    expected = alone.part(np.ones(len(alone.rows), dtype=bool))
    users = np.array([numbered.user_ids.index(user) for user in alone.user_ids], dtype=np.int64)
    assert [(users[u], i, kind) for u, i, kind in named(expected)] == named(inside)
    for name in ("times", "weight", "confidence"):
        assert getattr(inside, name).tolist() == getattr(expected, name).tolist()


def test_a_window_asks_for_purchases_and_good_ratings_of_new_products(monkeypatch):
    monkeypatch.setattr(leave_one_out, "MIN_USERS", 1)
    numbered = numbered_of(
        rated((0, 0, 0, 5), (0, 1, 395, 2), (0, 2, 395, 4)),
        did(
            (0, 3, 390, Kind.PURCHASE),
            (0, 4, 391, Kind.CLICK),
            (0, 5, 200, Kind.PURCHASE),  # had before the window: bought once more
            (0, 5, 392, Kind.PURCHASE),
            (0, 2, 200, Kind.VIEW),  # looked at before, and chosen in the window
            (0, 6, 393, Kind.DISMISS),
            (0, 7, 400, Kind.VIEW),
        ),
    )
    codes = numbered.histories.kinds
    stars = np.array([5.0, 2.0, 4.0])
    positive = codes == CODE_OF[Kind.PURCHASE]
    positive |= (codes == 0) & (stars[np.minimum(numbered.rows, 2)] >= 4)
    (window,) = rolling_windows(numbered, positive)[-1:]
    assert sorted(window.questions.targets.tolist()) == [2, 3]
    assert named(window.questions.histories) == [
        (0, 0, Kind.RATING),
        (0, 2, Kind.VIEW),
        (0, 5, Kind.PURCHASE),
    ]


def test_who_had_a_product_is_not_asked_for_it():
    numbered = numbered_of(
        rated((0, 1, 9, 5)), did((0, 1, 1, Kind.PURCHASE), (0, 2, 9, Kind.PURCHASE))
    )
    before = numbered.times < int(at([5])[0].timestamp() * 1e6)
    questions = questions_to(numbered.part(before), numbered.part(~before))
    assert questions.targets.tolist() == [2]


def signals_of(table: pd.DataFrame) -> pd.DataFrame:
    """Everybody has viewed what they later chose, and the newcomers only viewed."""
    views = table[["user", "item"]].assign(time=table["time"] - DAY, kind=Kind.VIEW)
    last = table.groupby("user").cumcount(ascending=False)
    views = views.assign(split=np.where(last > 1, schema.TRAIN, schema.EXCLUDED))
    newcomers = pd.DataFrame(
        {"user": [9001, 9002], "item": [1, 2], "time": START, "kind": Kind.CART,
         "split": schema.TRAIN}
    )  # fmt: skip
    return pd.concat([views, newcomers], ignore_index=True)


@pytest.fixture
def data(settings):
    table = taste_interactions()
    publish_shop(settings, table, signals=signals_of(table))
    return read_leave_one_out(current_version(settings))


def test_a_version_with_signals_is_read_with_them(data):
    assert len(data.user_ids) == USERS + 2
    assert data.events == {
        Kind.RATING: USERS * 3,
        Kind.VIEW: USERS * 3,
        Kind.CART: 2,
    }
    assert set(data.training.kinds.tolist()) == {0, CODE_OF[Kind.CART]}, "a rating beats its view"
    assert (data.test.histories.times < data.test.now[user_rows(data.test.histories)]).all()


def test_purchases_are_asked_for_like_good_ratings(settings):
    """The same shop, whether customers rate or buy, asks the same."""
    table = taste_interactions()
    back = table.groupby("user").cumcount(ascending=False)
    split = np.select([back == 0, back == 1], [schema.TEST, schema.VALIDATION], schema.TRAIN)
    table = table.assign(split=split)
    publish_shop(settings, table, version_id="v1")
    of_ratings = read_leave_one_out(current_version(settings))
    buys = (table["user"] + table["item"]) % 2 == 0
    publish_shop(
        settings, table[~buys], version_id="v2", signals=table[buys].assign(kind=Kind.PURCHASE)
    )
    of_both = read_leave_one_out(current_version(settings))
    for side in ("validation", "test"):
        expected, found = getattr(of_ratings, side), getattr(of_both, side)
        assert found.targets.tolist() == expected.targets.tolist()
        assert found.now.tolist() == expected.now.tolist()
        assert found.histories.items.tolist() == expected.histories.items.tolist()
    for one, other in zip(of_ratings.windows, of_both.windows, strict=True):
        assert one.questions.targets.tolist() == other.questions.targets.tolist()


def test_an_empty_file_of_signals_changes_nothing(settings):
    table = taste_interactions()
    publish_shop(settings, table, version_id="v1")
    without = read_leave_one_out(current_version(settings))
    publish_shop(settings, table, version_id="v2", signals=signals_of(table).iloc[:0])
    beside = read_leave_one_out(current_version(settings))
    for name in ("training", "training_and_validation", "learnt", "everything"):
        for field in dataclasses.fields(without.training):
            one, other = (getattr(getattr(each, name), field.name) for each in (without, beside))
            assert np.array_equal(one, other)


def test_weights_are_changed_everywhere_and_of_signals_only(data):
    changed = data.weighed(weight_of_codes({"cart": 0.25}))
    code = CODE_OF[Kind.CART]
    assert changed.training.weight[changed.training.kinds == code] == pytest.approx(0.25)
    assert changed.learnt.weight[changed.learnt.kinds == code] == pytest.approx(0.25)
    assert (changed.training.weight[changed.training.kinds == 0] == 1).all()
    assert data.training.weight[data.training.kinds == code] == pytest.approx(0.5)


def test_without_a_kind_the_same_users_are_asked_the_same(data):
    training, questions = data.without([Kind.CART, Kind.VIEW])
    assert (training.kinds == 0).all()
    assert questions.targets.tolist() == data.validation.targets.tolist()
    assert questions.histories.users == data.validation.users
    everything, same = data.without([])
    assert everything.items.tolist() == data.training.items.tolist()
    assert same.histories.items.tolist() == data.validation.histories.items.tolist()


def test_clicks_of_new_accounts_are_bounded_like_their_ratings(settings):
    """One account that clicks a thousand times is one; a thousand that click once are a burst."""
    table = taste_interactions()
    burst = pd.DataFrame(
        {"user": 10_000 + np.arange(1000), "item": 7, "time": START + 299 * DAY + np.arange(1000)}
    )
    one = pd.DataFrame({"user": 99_999, "item": 8, "time": START + 299 * DAY + np.arange(1000)})
    clicks = pd.concat([burst, one]).assign(kind=Kind.CLICK, split=schema.TRAIN)
    publish_shop(settings, table, signals=clicks)
    data = read_leave_one_out(current_version(settings))
    clicked = data.learnt.items[data.learnt.kinds == CODE_OF[Kind.CLICK]]
    assert np.bincount(clicked, minlength=ITEMS)[[7, 8]].tolist() == [3, 1]
    assert (data.everything.kinds == CODE_OF[Kind.CLICK]).sum() == 1001
    ratings_kept = (data.learnt.kinds == 0).sum()
    publish_shop(settings, table, version_id="v2")
    assert ratings_kept == len(read_leave_one_out(current_version(settings)).learnt.items)
    assert len(signal_rows(clicks)) == 2000
