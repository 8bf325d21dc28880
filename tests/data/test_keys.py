"""Keys, duplicates and events."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys import schema
from recsys.data.keys import (
    ARRIVAL,
    EVENT_KEY,
    KEY,
    USER_KEY,
    USER_NUMBER,
    add_keys,
    event_ids,
    event_weights,
    hash_texts,
    latest_rows,
    ordered_by,
)


def frame(*rows: tuple[str, str, float, str, str]) -> pd.DataFrame:
    table = pd.DataFrame(
        rows,
        columns=[schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP, schema.COMMENT],
    )
    table[schema.TIMESTAMP] = pd.to_datetime(table[schema.TIMESTAMP], utc=True).dt.as_unit("us")
    text = [schema.USER, schema.PRODUCT, schema.COMMENT]
    table = table.astype({schema.RATING: "float32", **dict.fromkeys(text, "str")})
    texts = (schema.USER, schema.PRODUCT, schema.COMMENT)
    add_keys(table, *(hash_texts(table[name]) for name in texts))
    return table


def test_rows_of_one_user_time_and_text_are_one_event():
    table = frame(
        ("u", "1", 5, "2025-01-01", "tốt"),
        ("u", "2", 5, "2025-01-01", "tốt"),
        ("u", "1", 5, "2025-01-02", "tốt"),
        ("u", "1", 5, "2025-01-01", "tệ"),
        ("v", "1", 5, "2025-01-01", "tốt"),
    )
    keys = table[EVENT_KEY].tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
    assert table[KEY].is_unique


def test_fields_do_not_run_into_each_other():
    table = frame(("ab", "c", 5, "2025-01-01", ""), ("a", "bc", 5, "2025-01-01", ""))
    assert table[KEY].is_unique


def test_the_latest_row_of_a_pair_stays_and_of_one_time_the_better_rating():
    latest = latest_rows(
        frame(
            ("u", "1", 5, "2025-01-01", "a"),
            ("u", "1", 2, "2025-01-03", "b"),
            ("u", "1", 4, "2025-01-03", "c"),
            ("t", "2", 1, "2025-01-02", "d"),
        )
    )
    assert sorted(latest[schema.COMMENT]) == ["c", "d"]
    assert latest[USER_NUMBER].tolist() == [0, 1]


def test_rows_are_those_that_sorting_all_of_them_leaves():
    rng = np.random.default_rng(0)
    columns = [rng.integers(size, size=2000) for size in (300, 4, 5, 6, 2)]
    rows = frame(
        *(
            (f"u{user}", f"p{product}", 1 + rating, f"2025-01-0{1 + day}", f"text {text}")
            for user, product, rating, day, text in zip(*columns, strict=True)
        )
    )
    pairs = [schema.USER, schema.PRODUCT]
    rows[ARRIVAL] = rng.integers(3, size=len(rows)).astype("int32")
    by_age = rows.sort_values([*pairs, schema.TIMESTAMP, ARRIVAL, schema.RATING, KEY])
    expected = by_age.drop_duplicates(pairs, keep="last").sort_values(
        [USER_KEY, schema.TIMESTAMP, EVENT_KEY, schema.PRODUCT], ignore_index=True
    )
    latest = latest_rows(rows)
    pd.testing.assert_frame_equal(
        latest.drop(columns=USER_NUMBER), expected.drop(columns=[USER_KEY, KEY, ARRIVAL])
    )
    assert (latest[USER_NUMBER] == pd.factorize(expected[schema.USER])[0]).all()


def test_ids_of_events_are_hexadecimal_digits():
    keys = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    ids = event_ids(keys)
    assert ids.tolist() == ["0" * 16, "0" * 15 + "1", "f" * 16]
    assert len(event_ids(keys[:0])) == 0


def test_copies_weigh_less():
    keys = np.array([7, 7, 7, 7, 9], dtype=np.uint64)
    assert event_weights(keys) == pytest.approx([0.5, 0.5, 0.5, 0.5, 1])


def test_ties_are_broken_like_a_lexicographic_sort():
    rng = np.random.default_rng(0)
    first, second, third = rng.integers(20, size=(3, 500))
    expected = np.lexsort((third, second, first))
    found = ordered_by(first, second, third)
    for column in (first, second, third):
        assert (column[found] == column[expected]).all()


def column(texts: list[str]) -> pd.Series:
    return pd.Series(texts, dtype="str")


@hypothesis_settings(max_examples=200)
@given(st.lists(st.text(max_size=6), max_size=40), st.integers(0, 40))
def test_hashes_are_equal_exactly_where_texts_are(texts, start):
    hashes = hash_texts(column(texts))
    assert len(set(zip(texts, hashes.tolist(), strict=True))) == len(set(texts))
    assert len(set(hashes.tolist())) == len(set(texts))
    assert (hash_texts(column(texts)[start:]) == hashes[start:]).all()


def test_neither_neighbours_nor_the_size_of_the_column_matter():
    texts = ["", "", "tốt", "x" * 3_000_000, "", *(str(n) for n in range(200_000)), "tốt", ""]
    hashes = hash_texts(column(texts))
    assert hashes[2] == hashes[-2] == hash_texts(column(["tốt"]))[0]
    assert len(np.unique(hashes[[0, 1, 4, -1]])) == 1
    assert len(np.unique(hashes)) == len(set(texts))


def test_parts_of_a_chunked_column_hash_like_the_whole():
    texts = column(["a", "b"])
    both = pd.concat([texts, texts], ignore_index=True)
    assert hash_texts(both).tolist() == hash_texts(texts).tolist() * 2
