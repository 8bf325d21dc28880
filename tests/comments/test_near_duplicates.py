import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.comments import CommentConfig, score_comments
from recsys.comments.features import describe
from recsys.comments.near_copies import SIMILARITY, are_similar
from recsys.comments.scoring import group_texts, similar_among

CONFIG = CommentConfig()
ORIGINAL = "Sử dụng dễ dàng, rất thoải mái, thư giãn tột độ"


def groups(texts, copies=None):
    texts = pd.Series(texts, dtype="str")
    rows = np.repeat(np.arange(len(texts)), copies if copies is not None else 1)
    return group_texts(rows, describe(texts), CONFIG, similar_among(texts))


def test_typing_mistakes_and_added_words_do_not_hide_a_copy():
    variants = [
        ORIGINAL,
        ORIGINAL.upper() + "!!!",
        "sử dụng dễ giàng rất thoải mái thư giãn tột độ",
        "su dung de dang rat thoai mai thu gian tot do nhe",
        "Sử dụng dễ dàng , rất thoải mai, thư dãn tột độ",
    ]
    assert len(set(groups(variants, copies=[50, 3, 1, 1, 1]))) == 1


def test_different_texts_stay_apart():
    texts = [
        ORIGINAL,
        "Mùi hương dễ chịu, làm mát nhanh, giá thành ổn",
        "Sản phẩm rất thơm, giao hàng nhanh, đóng gói cẩn thận",
        "Da mình khô nên dùng thấy hơi rát một chút, mong là hợp",
    ]
    assert len(set(groups(texts))) == len(texts)


def test_copies_of_copies_are_not_followed():
    steps = [" ".join(f"t{n}" for n in range(start, start + 12)) for start in range(0, 24, 1)]
    assert len(set(groups(steps))) > 3


def test_short_texts_join_their_equals_only():
    assert len(set(groups(["rất tốt", "Rất Tốt!", "rất tốtt", "rat tot"]))) == 2


def test_a_campaign_in_many_spellings_scores_low(make_view):
    rows = []
    for number in range(40):
        words = ORIGINAL.split()
        if number % 2:
            at = number % len(words)
            words[at] = words[at][:-1] + "z"
        rows.append((f"u{number}", " ".join(words), 5, "2023-04-29"))
    assert score_comments(make_view(rows), CONFIG).quality.max() < 0.1


@settings(max_examples=25)
@given(
    texts=st.lists(
        st.sampled_from([ORIGINAL, ORIGINAL + " nhé", "x" + ORIGINAL, "khác hẳn nhau hoàn toàn đó"])
        | st.text(max_size=40),
        unique=True,
        max_size=12,
    ),
    seed=st.integers(0, 100),
)
def test_groups_do_not_depend_on_the_order_of_texts(texts, seed):
    order = np.random.default_rng(seed).permutation(len(texts))
    straight = groups(texts)
    shuffled = groups([texts[at] for at in order])
    together = straight[:, None] == straight[None, :]
    back = np.empty(len(texts), dtype=int)
    back[order] = shuffled
    assert np.array_equal(together, back[:, None] == back[None, :])


def shingles(text):
    data = text.encode()
    return {data[at : at + 5] for at in range(len(data) - 4)}


@pytest.mark.parametrize("words", [8, 200])  # a long text fills its sketch
def test_pairs_are_similar_exactly_when_they_share_so_many_shingles(words):
    rng = np.random.default_rng(words)
    texts = []
    for _ in range(300):
        original = [f"tu{n}" for n in rng.integers(1_000, size=words)]
        texts.append(" ".join(original))
        for at in rng.choice(words, size=rng.integers(words // 2 + 1), replace=False):
            original[at] = f"kh{at}"
        texts.append(" ".join(original))
    pairs = np.arange(len(texts)).reshape(-1, 2)
    pairs = np.concatenate([pairs, rng.integers(len(texts), size=(300, 2))])
    expected = []
    for left, right in pairs:
        one, other = shingles(texts[left]), shingles(texts[right])
        expected.append(len(one & other) >= SIMILARITY * len(one | other))
    found = are_similar(pa.array(texts, pa.large_string()), pairs)
    assert found.tolist() == expected
    assert 30 < sum(expected[:300]) < 270
