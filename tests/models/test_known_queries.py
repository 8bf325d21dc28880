"""What known users ask for is kept in the artefact, and found again by their histories."""

from dataclasses import replace

import numpy as np
import pytest

from recsys.models.artifacts import load_artifact, write_without
from recsys.models.histories import joined, keep_entries, take_users
from recsys.models.hybrid import Hybrid
from recsys.models.known_queries import KnownQueries
from recsys.models.self_attention import SelfAttention
from recsys.models.storage import ArtifactError
from tests.models.shop import DAY, ITEMS, START, USERS, taste_histories
from tests.models.test_artifacts import USER_IDS, save

READER = {"dimensions": 16, "epochs": 2}
CHANGES = {
    "items": lambda values: (values + 1) % ITEMS,
    "times": lambda values: values + 1,
    "confidence": lambda values: values - 1,
    "weight": lambda values: values / 2,
    "kinds": lambda values: values + 1,
}


@pytest.fixture(scope="module")
def reader() -> SelfAttention:
    return SelfAttention.create(READER, 1).fit(taste_histories(), ITEMS)


@pytest.fixture(scope="module")
def blend(reader) -> Hybrid:
    weights = {"item_knn": 0.0, "als": 0.0, "recent_popularity": 1.0, "self_attention": 2.0}
    blend = Hybrid.create({"weights": weights, "self_attention": READER}, 1)
    return blend.fit(taste_histories(), ITEMS)


def numbered(histories) -> KnownQueries:
    return KnownQueries(histories, np.arange(histories.users, dtype=np.float32)[:, None])


def test_a_known_history_is_found_in_whatever_order_users_come():
    histories = taste_histories()
    order = np.random.default_rng(3).permutation(USERS)
    assert numbered(histories).rows(take_users(histories, order)).tolist() == order.tolist()


@pytest.mark.parametrize("name", CHANGES)
def test_a_history_that_differs_in_one_entry_is_another_one(name):
    histories = taste_histories()
    values = np.array(getattr(histories, name))
    values[histories.indptr[:-1]] = CHANGES[name](values[histories.indptr[:-1]])
    assert (numbered(histories).rows(replace(histories, **{name: values})) == -1).all()


def test_a_longer_and_a_shorter_history_are_others():
    histories = taste_histories()
    first = take_users(histories, np.array([0]))
    twice = joined([first, take_users(histories, np.array([1]))])
    longer = replace(twice, indptr=twice.indptr[[0, 2]])
    shorter = keep_entries(first, np.arange(len(first.items)) > 0)
    for other in (longer, shorter):
        assert numbered(histories).rows(other).tolist() == [-1]


def test_one_more_purchase_counts_beside_what_is_known(reader):
    histories = taste_histories()
    known = SelfAttention.create(READER, 1).fit(histories, ITEMS)
    known.remember(histories, known.slow_queries(histories))
    later = replace(histories, times=histories.times + DAY * (np.arange(len(histories.items)) == 2))
    assert np.allclose(known.score(later, START), reader.score(later, START), atol=1e-5)


@pytest.mark.parametrize("of", ["reader", "blend"])
def test_a_loaded_artefact_knows_what_its_users_ask_for(of, request, tmp_path):
    model, histories = request.getfixturevalue(of), taste_histories()
    folder = save(tmp_path / "m", model=model, manifest={"model_id": "m", "data_version": "v1"})
    loaded = load_artifact(folder)
    assert np.array_equal(loaded.model.score(histories, START), model.score(histories, START))
    # Seen to be read from there: other vectors give other scores.
    loaded.model.remember(histories, -model.slow_queries(histories))
    assert not np.allclose(loaded.model.score(histories, START), model.score(histories, START))


def test_who_is_forgotten_leaves_no_query(reader, tmp_path):
    folder = save(tmp_path / "m", model=reader, manifest={"model_id": "m", "data_version": "v1"})
    without = tmp_path / "without"
    write_without(load_artifact(folder), [USER_IDS[3], USER_IDS[9]], without)
    kept = np.delete(np.arange(USERS), [3, 9])
    before = np.load(folder / "users" / "queries.npy")
    assert np.array_equal(np.load(without / "users" / "queries.npy"), before[kept])
    left = take_users(taste_histories(), kept)
    assert np.array_equal(
        load_artifact(without).model.score(left, START), before[kept] @ reader.item_vectors.T
    )


def test_queries_of_another_shape_are_refused_by_name(reader, tmp_path):
    with pytest.raises(ArtifactError, match=r"users/queries\.npy.*expected \(240, 17\)"):
        save(tmp_path / "m", model=_Narrow.create(READER, 1).fit(taste_histories(), ITEMS))
    assert not (tmp_path / "m").exists()


class _Narrow(SelfAttention):
    def slow_queries(self, histories):
        return super().slow_queries(histories)[:, :-1]
