"""Histories of more than ratings: one entry a product, and what each family makes of weak ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.evaluation.ranking import HeldOut, rank_families, rank_targets
from recsys.models.artifacts import load_artifact, save_artifact
from recsys.models.base import Histories
from recsys.models.histories import (
    histories_from_codes,
    moments,
    one_a_product,
    recent_part,
    steps_from_end,
    take_users,
    user_range,
    user_rows,
)
from recsys.models.kinds import CODE_OF, had, not_offered, weak, weight_of_codes
from recsys.models.model_types import MODEL_TYPES, create_model
from recsys.models.popularity import Popularity, RecentPopularity
from recsys.models.storage import ArtifactError
from recsys.schema import Kind

WEIGHTS = weight_of_codes({})
DAY = 86_400


def history(*events: tuple[int, Kind, int]) -> Histories:
    """Of one user, from (product, kind, day)."""
    return everybodys([(0, *event) for event in events], users=1)


def everybodys(events, users: int) -> Histories:
    user, item, kind, day = (list(part) for part in zip(*events, strict=True))
    codes = np.array([CODE_OF[one] for one in kind], dtype=np.int8)
    return histories_from_codes(
        np.array(user),
        np.array(item),
        1_700_000_000 + DAY * np.array(day, dtype=np.int64),
        count=users,
        confidence=np.where(codes == CODE_OF[Kind.DISMISS], 0, 5).astype(np.float32),
        weight=WEIGHTS[codes],
        kinds=codes,
    )


def test_the_weights_are_those_of_the_contract_unless_others_are_chosen():
    assert pytest.approx([1, 1, 0.5, 0.2, 0.05, 0]) == WEIGHTS
    assert weight_of_codes({"view": 0.25, "cart": 0}) == pytest.approx([1, 1, 0, 0.2, 0.25, 0])


def test_a_rating_comes_before_all_signals_and_keeps_its_time():
    done = one_a_product(
        history((3, Kind.VIEW, 1), (3, Kind.RATING, 2), (3, Kind.PURCHASE, 4), (3, Kind.CLICK, 9))
    )
    assert done.kinds.tolist() == [CODE_OF[Kind.RATING]]
    assert (done.times.tolist(), done.weight.tolist()) == ([1_700_000_000 + 2 * DAY], [1])


def test_the_strongest_signal_counts_with_its_latest_time():
    done = one_a_product(
        history((3, Kind.CART, 1), (3, Kind.CART, 3), (3, Kind.VIEW, 8), (4, Kind.VIEW, 2))
    )
    assert done.items.tolist() == [4, 3]
    assert done.kinds.tolist() == [CODE_OF[Kind.VIEW], CODE_OF[Kind.CART]]
    assert done.times.tolist() == [1_700_000_000 + 2 * DAY, 1_700_000_000 + 3 * DAY]


@pytest.mark.parametrize(
    ("later", "stands"),
    [(Kind.VIEW, True), (Kind.CLICK, True), (Kind.CART, True), (Kind.PURCHASE, False),
     (Kind.RATING, False)],
)  # fmt: skip
def test_a_dismissal_stands_until_the_product_is_bought_or_rated(later, stands):
    done = one_a_product(history((3, Kind.RATING, 1), (3, Kind.DISMISS, 2), (3, later, 3)))
    expected = Kind.DISMISS if stands else Kind.RATING
    assert done.kinds.tolist() == [CODE_OF[expected]]
    assert not_offered(done).all()


def test_of_one_second_the_dismissal_stands_in_whatever_order_they_come():
    for second in (Kind.PURCHASE, Kind.RATING):
        for events in (
            [(3, second, 2), (3, Kind.DISMISS, 2)],
            [(3, Kind.DISMISS, 2), (3, second, 2)],
        ):
            assert one_a_product(history(*events)).kinds.tolist() == [CODE_OF[Kind.DISMISS]]


EVENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from(list(Kind)), st.integers(0, 6)),
    min_size=1,
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_one_entry_a_product_whatever_happened(events):
    before = everybodys(events, users=3)
    after = one_a_product(before)
    pairs = list(zip(user_rows(after).tolist(), after.items.tolist(), strict=True))
    assert sorted(pairs) == sorted({(user, item) for user, item, _, _ in events})
    entries = zip(pairs, after.kinds.tolist(), after.times.tolist(), strict=True)
    for pair, code, time in entries:
        own = [(kind, day) for user, item, kind, day in events if (user, item) == pair]
        assert (list(Kind)[code], (time - 1_700_000_000) // DAY) == expected_of(own)
    moved = np.diff(after.times) >= 0
    assert moved[np.diff(user_rows(after)) == 0].all(), "oldest first"


def expected_of(own: list[tuple[Kind, int]]) -> tuple[Kind, int]:
    """The same, said one event at a time."""
    dismissed = max((day for kind, day in own if kind is Kind.DISMISS), default=-1)
    owned = max((day for kind, day in own if kind in (Kind.RATING, Kind.PURCHASE)), default=-1)
    if dismissed >= 0 and dismissed >= owned:
        return Kind.DISMISS, dismissed
    for kind in (Kind.RATING, Kind.PURCHASE, Kind.CART, Kind.CLICK, Kind.VIEW):
        days = [day for one, day in own if one is kind]
        if days:
            return kind, max(days)
    raise AssertionError(own)


def test_histories_that_do_not_say_so_are_of_ratings():
    plain = histories_from_codes(np.array([0, 1]), np.array([2, 1]), np.array([5, 6]), count=2)
    assert plain.kinds.tolist() == [0, 0]
    assert plain.kinds.dtype == np.int8
    assert had(plain).all()
    assert not weak(plain).any()


def test_what_is_cut_keeps_its_kinds():
    done = everybodys([(0, 1, Kind.VIEW, 1), (1, 2, Kind.CART, 1), (1, 3, Kind.RATING, 2)], users=2)
    assert user_range(done, 1, 2).kinds.tolist() == [2, 0]
    assert take_users(done, np.array([1, 0])).kinds.tolist() == [2, 0, 4]


def test_a_look_around_does_not_make_the_past_forgotten():
    """Twenty views weigh what one rating weighs, and move what was before as far away."""
    views = [(item, Kind.VIEW, 2 + item) for item in range(1, 21)]
    done = history((0, Kind.RATING, 1), *views)
    assert steps_from_end(done)[0] == pytest.approx(1)
    assert moments(done)[[0, 1, -1]] == pytest.approx([0, 0.05, 1])
    _, weight = recent_part(done, 0.5)
    assert weight[0] == pytest.approx(0.5)
    assert weight[-1] == pytest.approx(0.05)


def test_popularity_counts_signals_by_their_weight():
    done = everybodys(
        [(0, 0, Kind.RATING, 1), *((user, 1, Kind.VIEW, 1) for user in range(4)),
         (0, 2, Kind.DISMISS, 1), (1, 3, Kind.PURCHASE, 1)], users=4
    )  # fmt: skip
    expected = pytest.approx([1, 0.2, 0, 1])
    assert Popularity().fit(done, 4).similar(0) == expected
    now = 1_700_000_000 + DAY + 1
    assert RecentPopularity().fit(done, 4).at(now) == pytest.approx([1, 0.2, 0, 1], rel=1e-4)


def two_tastes(weak_kind: Kind, seed: int = 0) -> Histories:
    """Users rate four products of one half of the shop, and `weak_kind` four of the other half."""
    random = np.random.default_rng(seed)
    events = []
    for user in range(120):
        liked, other = (0, 20) if user % 2 else (20, 0)
        events += [(user, liked + item, Kind.RATING, day)
                   for day, item in enumerate(random.choice(20, 4, replace=False))]  # fmt: skip
        events += [(user, other + item, weak_kind, day)
                   for day, item in enumerate(random.choice(20, 4, replace=False))]  # fmt: skip
    return everybodys(events, users=120)


@pytest.mark.parametrize("model_type", [name for name in MODEL_TYPES if "popularity" not in name])
def test_every_family_takes_a_rating_for_more_than_a_view(model_type):
    done = two_tastes(Kind.VIEW)
    few = {"als": {"factors": 4}, "bpr": {"factors": 4}, "hybrid": {"als": {"factors": 4}}}
    few["self_attention"] = {"dimensions": 16, "epochs": 10}
    model = create_model(model_type, few.get(model_type, {}), seed=0).fit(done, 40)
    rated = history((1, Kind.RATING, 100), (21, Kind.VIEW, 100))
    scores = model.score(rated, 1_800_000_000)[0]
    assert np.median(scores[2:20]) > np.median(scores[22:])


def test_only_what_was_had_or_dismissed_is_no_candidate():
    """Evaluation asks for what was looked at before: that is the point of a look."""
    known = history((0, Kind.RATING, 1), (1, Kind.VIEW, 1), (2, Kind.DISMISS, 1), (3, Kind.CART, 1))
    questions = HeldOut(known, known.times[:1], np.array([0, 1]), np.array([1], dtype=np.int32))

    class ByNumber:
        def score(self, histories, now):
            return np.array([[9, 1, 8, 7, 2]], dtype=np.float32)

    assert rank_targets(ByNumber(), questions).ranks.tolist() == [3]
    families = np.array([0, 1, 2, 3, 4], dtype=np.int32)
    assert rank_families(ByNumber(), questions, families).ranks.ranks.tolist() == [3]


def save(path, histories, **facts):
    items = [f"p{item}" for item in range(4)]
    return save_artifact(
        path,
        model=RecentPopularity().fit(histories, 4),
        item_ids=items,
        user_ids=[f"u{user}" for user in range(histories.users)],
        histories=histories,
        popularity=np.ones(4, dtype=np.float32),
        products=pd.DataFrame({"product_id": items}),
        manifest={"model_id": "m", "data_version": "v", **facts},
    )


def test_an_artefact_keeps_the_kinds_where_there_are_some(tmp_path):
    signals = history((0, Kind.RATING, 1), (1, Kind.VIEW, 2), (2, Kind.DISMISS, 3))
    loaded = load_artifact(save(tmp_path / "signals", signals))
    assert loaded.histories.kinds.tolist() == [0, 4, 5]
    ratings = save(tmp_path / "ratings", history((0, Kind.RATING, 1)))
    assert not (ratings / "histories" / "kinds.npy").exists()
    assert load_artifact(ratings).histories.kinds.tolist() == [0]


@pytest.mark.parametrize("codes", [[0, 6], [-1, 0], [0]])
def test_kinds_that_do_not_exist_or_fit_are_refused(tmp_path, codes):
    done = history((0, Kind.RATING, 1), (1, Kind.VIEW, 2))
    odd = Histories(
        done.indptr, done.items, done.confidence, done.weight, done.times,
        np.array(codes, dtype=np.int8),
    )  # fmt: skip
    with pytest.raises(ArtifactError, match="kind"):
        save(tmp_path / "odd", odd)


def test_an_artefact_says_what_live_events_weigh(tmp_path):
    done = history((0, Kind.RATING, 1))
    told = save(tmp_path / "told", done, signal_weights={"click": 0.75, "purchase": 1})
    assert load_artifact(told).kind_weights == pytest.approx([1, 1, 0.5, 0.75, 0.05, 0])
    assert load_artifact(save(tmp_path / "old", done)).kind_weights == pytest.approx(WEIGHTS)


@pytest.mark.parametrize("weights", [{"click": 2}, {"click": "much"}, {"view": None}, [1], "x"])
def test_weights_that_are_no_shares_are_refused(tmp_path, weights):
    with pytest.raises(ArtifactError, match="signal_weights"):
        save(tmp_path / "odd", history((0, Kind.RATING, 1)), signal_weights=weights)
