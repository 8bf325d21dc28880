import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.models.als import Als, AlsParameters
from recsys.models.histories import histories_from_codes, take_users, user_range
from recsys.models.kinds import CODE_OF, DISMISS
from recsys.models.newcomers import (
    BEST_SELLERS,
    LEAST_SALES,
    LIFT,
    NEIGHBOURS,
    TREND,
    Newcomers,
    Traits,
    find_near,
    find_newcomers,
)
from recsys.schema import Kind

KNOWN = 30


def traits(items: int, **given: object) -> Traits:
    """Products with nothing in common but what is given."""
    nothing = np.full(items, -1, dtype=np.int32)
    own = np.arange(items, dtype=np.int32)
    prices = np.full(items, np.nan)
    return Traits(own, nothing, nothing, prices)._replace(**given)


def numbers(items: int, same: dict[int, int]) -> np.ndarray:
    """Numbers of groups: those of `same`, unknown for the others."""
    result = np.full(items, -1, dtype=np.int32)
    result[list(same)] = list(same.values())
    return result


def heaviest(newcomers: Newcomers | None) -> int:
    assert newcomers is not None
    return int(newcomers.near[0, newcomers.weights[0].argmax()])


PURCHASES = np.full(KNOWN, 9)


@pytest.mark.parametrize(
    "shared",
    [
        {"families": numbers(KNOWN + 1, {4: 1, KNOWN: 1})},
        {"brands": numbers(KNOWN + 1, {4: 1, KNOWN: 1})},
        {"categories": numbers(KNOWN + 1, {4: 1, KNOWN: 1})},
        {"prices": np.append(np.geomspace(1e4, 1e6, KNOWN), np.geomspace(1e4, 1e6, KNOWN)[4])},
        {"vectors": np.eye(KNOWN + 1, dtype=np.float32)[[*range(KNOWN), 4]]},
    ],
    ids=lambda shared: next(iter(shared)),
)
def test_whoever_shares_a_trait_is_near(shared: dict):
    assert heaviest(find_newcomers(traits(KNOWN + 1, **shared), PURCHASES)) == 4


def test_the_family_says_more_than_all_the_rest():
    shared = {"brands": numbers(31, {4: 1, 30: 1}), "categories": numbers(31, {4: 1, 30: 1})}
    vectors = np.eye(31, dtype=np.float32)[[*range(30), 4]]
    family = numbers(31, {9: 1, 30: 1})
    newcomers = find_newcomers(traits(31, families=family, vectors=vectors, **shared), PURCHASES)
    assert heaviest(newcomers) == 9


def test_a_product_that_nobody_has_bought_is_nobodys_neighbour():
    purchases = PURCHASES.copy()
    purchases[4] = 0
    newcomers = find_newcomers(traits(31, brands=np.zeros(31, dtype=np.int32)), purchases)
    assert newcomers is not None
    assert 4 not in newcomers.near


def test_a_product_with_nothing_in_common_stands_in_the_middle():
    newcomers = find_newcomers(traits(KNOWN + 1), PURCHASES)
    assert newcomers is not None
    scores = np.random.default_rng(0).normal(size=(3, KNOWN)).astype(np.float32)
    placed = newcomers.place(scores)
    assert np.allclose(placed[:, -1], scores.mean(axis=1))
    assert (placed[:, :-1] == scores).all()


@given(st.lists(st.integers(0, KNOWN + 4), max_size=12))
def test_some_products_stand_where_all_would(chosen: list[int]):
    brands = np.arange(KNOWN + 5, dtype=np.int32) % 7
    newcomers = find_newcomers(traits(KNOWN + 5, brands=brands), PURCHASES)
    assert newcomers is not None
    scores = np.random.default_rng(0).normal(size=(2, KNOWN)).astype(np.float32)
    some = newcomers.lifted_some(scores, np.array(chosen, dtype=np.int32))
    assert np.allclose(some, newcomers.lifted(scores)[:, chosen])


def test_without_newcomers_there_is_nothing_to_place():
    assert find_newcomers(traits(KNOWN), PURCHASES) is None


def test_a_shop_of_nothing_but_newcomers_can_be_placed():
    newcomers = find_newcomers(traits(KNOWN + 2), np.zeros(KNOWN, dtype=np.int64))
    assert newcomers is not None
    assert newcomers.place(np.arange(KNOWN, dtype=np.float32)).shape == (KNOWN + 2,)


random_traits = st.builds(
    lambda seed, items, texts: Traits(
        *np.random.default_rng(seed).integers(-1, 4, size=(3, items)).astype(np.int32),
        np.where(
            np.random.default_rng(seed).random(items) < 0.2,
            np.nan,
            np.random.default_rng(seed).integers(0, 3, size=items) * 1e4,
        ),
        np.eye(8, dtype=np.float32)[np.random.default_rng(seed).integers(8, size=items)]
        * (np.random.default_rng(seed).random((items, 1)) < 0.7).astype(np.float32)
        if texts
        else None,
    ),
    st.integers(0, 10**6),
    st.integers(KNOWN, KNOWN + 40),
    st.booleans(),
)


@given(random_traits)
@settings(max_examples=50, deadline=None)
def test_weights_sum_up_to_one_and_nobody_is_its_own_neighbour(shop: Traits):
    items = np.arange(len(shop.families), dtype=np.int32)
    near, weights = find_near(shop, items, items[:KNOWN])
    assert near.shape == weights.shape == (len(items), NEIGHBOURS)
    totals = weights.sum(axis=1)
    assert (np.isclose(totals, 1, atol=1e-5) | (totals == 0)).all()
    assert (weights >= 0).all()
    assert (weights[near == items[:, None]] == 0).all()
    assert (near < KNOWN).all()


@given(random_traits, st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_model_is_asked_for_what_it_knows_alone_and_for_nobody_else(shop: Traits, seed: int):
    random = np.random.default_rng(seed)
    items, entries, users = len(shop.families), 40, 6
    newcomers = find_newcomers(shop, np.ones(KNOWN, dtype=np.int64))
    if newcomers is None:
        return
    done = histories_from_codes(
        random.integers(users, size=entries),
        random.integers(items, size=entries),
        random.integers(10, size=entries),
        count=users,
        kinds=random.integers(len(CODE_OF), size=entries).astype(np.int8),
    )
    asked = newcomers.as_known(done)
    assert asked.users == users
    assert (asked.items < KNOWN).all()
    for user in range(users):
        alone = newcomers.as_known(user_range(done, user, user + 1))
        in_crowd = take_users(asked, np.array([user]))
        known = user_range(done, user, user + 1)
        if (known.items >= KNOWN).any():
            assert (alone.items == in_crowd.items).all()
            assert (np.diff(alone.times) >= 0).all()
        known_items = known.items[known.items < KNOWN]
        assert set(known_items.tolist()) <= set(in_crowd.items.tolist())


def test_having_a_newcomer_pulls_towards_its_like():
    """Two tastes, and a newcomer of the second by its brand."""
    users, items = np.repeat(np.arange(20), 5), np.tile(np.arange(5), 20)
    items = items + 15 * (users % 2)
    model = Als(AlsParameters(factors=2, starts=1)).fit(
        histories_from_codes(users, items, np.zeros(100, dtype=np.int64), count=20), KNOWN
    )
    brands = np.append(np.arange(KNOWN) // 15, 1).astype(np.int32)
    newcomers = find_newcomers(traits(31, brands=brands), np.bincount(items, minlength=KNOWN))
    assert newcomers is not None
    had = histories_from_codes(np.zeros(1, int), np.array([30]), np.zeros(1, int), count=1)
    scores = model.score(newcomers.as_known(had), 0)[0]
    assert scores[15:20].min() > scores[:5].max()
    dismissed = histories_from_codes(
        np.zeros(1, int),
        np.array([30]),
        np.zeros(1, int),
        count=1,
        kinds=np.array([DISMISS], dtype=np.int8),
    )
    assert len(newcomers.as_known(dismissed).items) == 0
    assert newcomers.as_known(had).kinds.tolist() == [CODE_OF[Kind.VIEW]] * 5


def test_a_newcomer_is_lifted_above_its_neighbours_and_a_shade_is_not_above_its_siblings():
    brands, families = numbers(32, {4: 1, 30: 1, 9: 2, 31: 2}), numbers(32, {9: 1, 31: 1})
    newcomers = find_newcomers(traits(32, brands=brands, families=families), PURCHASES)
    assert newcomers is not None
    scores = np.random.default_rng(0).random(KNOWN).astype(np.float32)
    beside, placed = newcomers.beside(scores), newcomers.place(scores)
    assert beside[30:] == pytest.approx(scores[[4, 9]], abs=1e-6)
    assert placed[30] == pytest.approx(beside[30] + LIFT * (beside[30] - scores.mean()))
    assert placed[31] == beside[31]
    assert newcomers.place(scores + 7) == pytest.approx(placed + 7, abs=1e-4)


def test_a_newcomer_that_sells_as_the_tenth_best_seller_stands_half_way_to_the_best():
    brands = np.zeros(KNOWN + 4, dtype=np.int32)
    known = np.arange(KNOWN, 0, -1) * 2.0
    tenth = known[BEST_SELLERS - 1]
    sales = np.concatenate([known, [0, tenth / 2, tenth, 10 * tenth]])
    newcomers = find_newcomers(traits(KNOWN + 4, brands=brands), PURCHASES, sales)
    assert newcomers is not None
    scores = np.random.default_rng(0).normal(size=(3, KNOWN)).astype(np.float32)
    span = scores.max(axis=1) - scores.mean(axis=1)
    added = newcomers.place(scores) - newcomers.lifted(scores)
    assert (added[:, :KNOWN] == 0).all()
    assert added[:, KNOWN:] == pytest.approx(np.outer(TREND * span, [0, 0.5, 1, 1]), abs=1e-5)
    popularity = known.astype(np.float32)
    like = newcomers.beside(popularity)[KNOWN:]
    popular = newcomers.popular(popularity)
    assert (popular[:KNOWN] == popularity).all()
    assert popular[KNOWN:] == pytest.approx(np.maximum(like, tenth * np.array([0, 0.5, 1, 1])))


def test_sales_that_nobody_counted_or_made_change_nothing():
    brands = np.arange(KNOWN + 5, dtype=np.int32) % 7
    shop = traits(KNOWN + 5, brands=brands)
    scores = np.random.default_rng(0).random((2, KNOWN), dtype=np.float32)
    uncounted = find_newcomers(shop, PURCHASES)
    none = find_newcomers(shop, PURCHASES, np.append(np.full(KNOWN, 9.0), np.zeros(5)))
    assert uncounted is not None
    assert none is not None
    assert (none.place(scores) == uncounted.place(scores)).all()
    assert (none.popular(scores[0]) == none.beside(scores[0])).all()


@pytest.mark.parametrize("known", [0, 3, KNOWN])
def test_one_sale_is_no_trend_where_hardly_anything_is_sold(known: int):
    sales = np.append(np.zeros(known), [1.0])
    newcomers = find_newcomers(traits(known + 1), np.ones(known, dtype=np.int64), sales)
    assert newcomers is not None
    assert newcomers.trend == pytest.approx([1 / LEAST_SALES])
