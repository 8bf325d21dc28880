import unicodedata

import numpy as np
import pandas as pd
import pytest

from recsys.comments import ngrams


def counts(*texts):
    return ngrams.count(pd.Series(texts, dtype="str"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ko thích sp này", "không thích sản phẩm này"),
        ("dc shop tặng, đc lắm", "được shop tặng, được lắm"),
        ("K mua nx", "không mua nx"),
        ("tốtttttt quáááá", "tốt quá"),
        ("hoà, thuỷ", "hòa, thủy"),
        ("thích 😍", "thích ❤️"),
        ("mn nên mua vs mk", "mọi người nên mua với mình"),
        (unicodedata.normalize("NFD", "Dưỡng ẩm ổn"), "Dưỡng ẩm ổn"),
        ("RẤT TỐT", "rất   tốt"),
    ],
)
def test_spellings_of_one_meaning_look_the_same(typed, meant):
    left, right = counts(typed, meant)
    assert (left != right).nnz == 0


def test_without_accents_the_folded_blocks_stay_the_same():
    left, right = counts("da mịn và thơm lắm", "da min va thom lam")
    difference = (left != right).tocoo().col
    assert len(difference)
    assert (difference < ngrams.BUCKETS).all()  # in the block of accented words only


def test_numbers_are_not_shortened():
    left, right = counts("giá 1000", "giá 10")
    assert (left != right).nnz > 0


def test_odd_texts_have_a_row_each():
    texts = ["", " ", "a", "\n\n b \t", "👩‍👩‍👧", "." * 50, "\x00", "한국어"]
    assert counts(*texts).shape == (len(texts), ngrams.WIDTH)
    assert counts("", " ").nnz <= 2


def test_parts_give_what_the_whole_gives():
    texts = pd.Series([f"kem số {n} dùng tốt" for n in range(20_000)], dtype="str")
    whole = ngrams.count(texts)
    covered = 0
    for rows, part in ngrams.in_counts(texts, lambda counts: counts):
        assert rows.start == covered
        assert (whole[rows] != part).nnz == 0
        covered += part.shape[0]
    assert covered == len(texts)
    assert np.isfinite(whole.data).all()


def test_what_is_counted_twice_is_one_column():
    (row,) = counts("kem kem kem")
    assert sorted(row.data[row.indices < 2 * ngrams.BUCKETS]) == [2, 2, 3, 3]
