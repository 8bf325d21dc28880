import itertools
import re

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys.comments.features import describe, plain_words
from recsys.comments.pieces import in_parts, pieces_of
from recsys.text import fold

TEXT = st.text("aăÂđo ơƯ,.\n\u00a0\u200b\u0301\u0323´½ςﬁ①가😍\u200d12", max_size=30)


@given(st.lists(TEXT, max_size=8))
def test_words_folded_piece_by_piece_are_those_of_the_whole_text(texts):
    plain = plain_words(pd.Series(texts, dtype="str")).to_pylist()
    assert plain == [" ".join(re.findall(r"[^\W_]+", fold(text))) for text in texts]


@given(st.lists(TEXT, min_size=1, max_size=8))
def test_variety_counts_each_pair_of_neighbours_once(texts):
    features = describe(pd.Series(texts, dtype="str"))
    for at, text in enumerate(texts):
        words = re.findall(r"[^\W_]+", fold(text))
        pairs = list(itertools.pairwise(words))
        assert features.words[at] == len(words)
        assert features.variety[at] <= len(set(pairs)) / max(len(pairs), 1) or not pairs


def test_pieces_are_told_apart_by_blanks_and_each_stands_once():
    found = pieces_of(pa.array(["a b", "", "b a a"], pa.large_string()))
    assert found.owner.tolist() == [0, 0, 1, 2, 2, 2]
    assert sorted(found.vocabulary.to_pylist()) == ["", "a", "b"]
    assert found.joined(3).to_pylist() == ["a b", "", "b a a"]


def test_a_part_is_small_or_one_text():
    long = "x" * 3_000_000
    texts = pa.array([long, "a", long, long, *"b" * 40_000], pa.large_string())
    parts = list(in_parts(texts, lambda part: (len(part), part.nbytes)))
    assert [rows.start for rows, _ in parts] == [0, *np.cumsum([one for _, (one, _) in parts])[:-1]]
    assert sum(size for _, (size, _) in parts) == len(texts)
    assert all(size == 1 or part_bytes < 5_000_000 for _, (size, part_bytes) in parts)
    assert max(size for _, (size, _) in parts) < 20_000
