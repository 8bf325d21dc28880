"""Hashes of columns of text."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.data.hashing import hash_texts


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
