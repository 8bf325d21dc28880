"""Faster code must give every text the features and n-grams it had: caches hold the ones, scorers
the others, and scores follow from both."""

import hashlib

import numpy as np
import pandas as pd

from recsys.comments import CommentConfig, ngrams
from recsys.comments.features import describe
from recsys.comments.scoring import group_texts, similar_among

_LETTERS = (
    "aăâđeêoôơuưkcht ,.!\n\t"
    "ÁẴỒĐðÐ12&<\u00a0\u200b\u200d\u0301\u0323\ufe0f\u2028\x1c\x85´¨½ªßςΣİﬁ\ufdfa가각①😍☺\ufffd"
)
_TEXT = "Kem dưỡng ẩm này dùng rất thích, da mềm mịn hẳn ra! Sẽ mua lại ko sp tốtttt"


def made_texts() -> pd.Series:
    rng = np.random.default_rng(20261128)
    words = _TEXT.split()
    odd = ["".join(rng.choice([*_LETTERS], size=rng.integers(40))) for _ in range(3_000)]
    usual = [" ".join(rng.choice(words, size=rng.integers(1, 60))) for _ in range(3_000)]
    copies = [f"{text[: rng.integers(1, len(text) + 1)]}z" for text in usual[:1_000]]
    return pd.Series([*odd, *usual, *copies], dtype="str").drop_duplicates(ignore_index=True)


def digest(*arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def digests(texts: pd.Series) -> dict[str, str]:
    features = describe(texts)
    rows = np.arange(len(texts))
    group = group_texts(rows, features, CommentConfig(), similar_among(texts))
    counts = ngrams.count(texts)
    return {
        **{name: digest(column) for name, column in vars(features).items()},
        "group": digest(group),
        "ngrams": digest(counts.indices, counts.data, counts.indptr.astype(np.int64)),
    }


def test_made_texts_keep_their_features_and_ngrams():
    assert digests(made_texts()) == {
        "key": "2e1b0555c44eedc9",
        "words": "4bab39ce84727931",
        "variety": "64105c4dd4e829ca",
        "bands": "761cb3412945815a",
        "group": "5e8aab97958c7126",
        "ngrams": "e22568cf1a5e963e",
    }


def test_hasakis_texts_keep_their_features_and_ngrams(hasaki_view):
    assert digests(hasaki_view["comment"].drop_duplicates(ignore_index=True)) == {
        "key": "2fa2dab075e8519e",
        "words": "a939e46ed1b7647b",
        "variety": "a332df0ff39a9872",
        "bands": "e9b1f90d03ca2df0",
        "group": "d9ac23131641f2f6",
        "ngrams": "bba5e1647868b077",
    }
