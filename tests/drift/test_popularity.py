import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.drift import detect_popularity_drift
from recsys.drift.popularity import gini, jaccard, rank_biased_overlap, top_members
from recsys.errors import InputError

PRODUCTS = [f"P{place:03d}" for place in range(1000)]


def zipf_sample(size: int, seed: int, order: np.ndarray | None = None) -> pd.Series:
    demand = 1 / np.arange(1, 1001)
    if order is not None:
        demand = demand[order]
    counts = np.random.default_rng(seed).multinomial(size, demand / demand.sum())
    return pd.Series(counts, index=PRODUCTS)


def test_the_documented_keys_are_there() -> None:
    result = detect_popularity_drift(zipf_sample(2000, 1), zipf_sample(2000, 2))
    keys = {"shift_detected", "jaccard_similarity", "new_trending", "dropped_out"}
    assert keys <= set(result)


def test_equal_data_are_no_shift() -> None:
    popularity = zipf_sample(5000, 1)
    result = detect_popularity_drift(popularity, popularity)
    assert result["jaccard_similarity"] == 1
    assert result["shift_detected"] is False
    assert result["new_trending"] == result["dropped_out"] == []


@pytest.mark.parametrize("size", [2_000, 10_000])
def test_the_null_distribution_is_that_of_two_samples_of_an_unchanged_shop(size: int) -> None:
    order = np.random.default_rng(0).permutation(1000)
    results = [
        detect_popularity_drift(
            zipf_sample(size, 2 * pair + 1, order), zipf_sample(size, 2 * pair + 2, order), top_k=50
        )
        for pair in range(20)
    ]
    observed = [result["jaccard_similarity"] for result in results]
    expected = [result["expected_jaccard"] for result in results]
    assert np.mean(observed) < 0.9  # it is far from 1 although nothing changed
    assert np.mean(expected) == pytest.approx(np.mean(observed), abs=0.025)
    assert not any(result["shift_detected"] for result in results)


def test_unequal_sample_sizes_are_no_shift() -> None:
    result = detect_popularity_drift(zipf_sample(100_000, 1), zipf_sample(1000, 2))
    assert result["shift_detected"] is False
    assert result["gini"]["old"] == pytest.approx(result["gini"]["new"], abs=0.05)


def test_a_turnover_of_thirty_of_the_top_hundred_is_a_shift() -> None:
    order = np.arange(1000)
    rng = np.random.default_rng(3)
    leaving, entering = rng.choice(100, 30, replace=False), rng.choice(900, 30, replace=False) + 100
    order[leaving], order[entering] = entering, leaving
    result = detect_popularity_drift(zipf_sample(60_000, 1), zipf_sample(5000, 2, order))
    assert result["shift_detected"] is True
    assert result["severity"] in ("medium", "high")
    assert set(result["new_trending"]) & {PRODUCTS[place] for place in entering}


def test_disjoint_products_are_a_high_shift() -> None:
    old, new = pd.Series({"A": 500, "B": 100}), pd.Series({"C": 500, "D": 100})
    result = detect_popularity_drift(old, new, top_k=2)
    assert result["jaccard_similarity"] == 0
    assert (result["shift_detected"], result["severity"]) == (True, "high")
    assert result["new_trending"] == ["C", "D"]
    assert result["dropped_out"] == ["A", "B"]


def test_one_product_cannot_shift() -> None:
    result = detect_popularity_drift(pd.Series({"A": 500}), pd.Series({"A": 700}))
    assert result["jaccard_similarity"] == 1
    assert result["shift_detected"] is False


def test_few_interactions_are_not_enough() -> None:
    result = detect_popularity_drift(pd.Series({"A": 9}), pd.Series({"B": 9}))
    assert result["status"] == "insufficient_data"
    assert result["shift_detected"] is False
    assert result["jaccard_similarity"] == 0


def test_empty_series_are_said_to_be_empty() -> None:
    empty = pd.Series(dtype=float)
    result = detect_popularity_drift(empty, empty)
    assert result["status"] == "insufficient_data"
    assert result["jaccard_similarity"] is None


@pytest.mark.parametrize("value", [-1, 0.5, np.inf])
def test_what_is_no_count_is_an_error(value: float) -> None:
    with pytest.raises(InputError, match="new_popularity: product 'B'"):
        detect_popularity_drift(pd.Series({"A": 1}), pd.Series({"A": 1, "B": value}))


def test_a_missing_count_is_none_sold() -> None:
    result = detect_popularity_drift(pd.Series({"A": 500}), pd.Series({"A": 500, "B": np.nan}))
    assert result["sample_sizes"] == {"old": 500, "new": 500}


def test_a_product_named_twice_is_an_error() -> None:
    with pytest.raises(InputError, match="'A' appears more than once"):
        detect_popularity_drift(pd.Series([1, 2], index=["A", "A"]), pd.Series({"A": 1}))


def test_ids_of_mixed_types_are_compared() -> None:
    result = detect_popularity_drift(pd.Series({1: 400, "B": 5}), pd.Series({"B": 400, 1: 5}), 1)
    assert result["new_trending"] == ["B"]


@pytest.mark.parametrize("top_k", [0, -3, 1.5, True, None])
def test_a_senseless_top_k_is_an_error(top_k: object) -> None:
    with pytest.raises(InputError, match="top_k"):
        detect_popularity_drift(pd.Series({"A": 1}), pd.Series({"A": 1}), top_k=top_k)


def test_the_answer_does_not_depend_on_the_order_of_the_rows() -> None:
    old, new = zipf_sample(3000, 1), zipf_sample(3000, 2)
    shuffled = detect_popularity_drift(old.sample(frac=1, random_state=1), new[::-1])
    assert shuffled == detect_popularity_drift(old, new)


counts = st.dictionaries(st.sampled_from("ABCDEFGH"), st.integers(0, 900), max_size=8)


@settings(max_examples=40)
@given(counts, counts, st.integers(1, 10))
def test_any_counts_give_a_defined_answer(
    old: dict[str, int], new: dict[str, int], top_k: int
) -> None:
    result = detect_popularity_drift(
        pd.Series(old, dtype=float), pd.Series(new, dtype=float), top_k=top_k
    )
    json.dumps(result, allow_nan=False)
    assert result["shift_detected"] in (True, False)


def test_ties_go_to_the_first_products_and_unsold_ones_never_belong() -> None:
    members = top_members(np.array([[5, 5, 5, 0], [0, 0, 1, 0]]), 2)
    assert members.tolist() == [[True, True, False, False], [False, False, True, False]]


def test_measures_of_agreement_on_known_cases() -> None:
    ranking = np.array([4, 3, 2, 1])
    assert rank_biased_overlap(ranking, ranking, 4) == pytest.approx(1)
    assert rank_biased_overlap(np.array([2, 1, 0, 0]), np.array([0, 0, 2, 1]), 2) == 0
    assert jaccard(np.array([True, True]), np.array([True, False])) == 0.5
    assert gini(np.array([1, 1, 1, 1])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 9])) == pytest.approx(0.75)
