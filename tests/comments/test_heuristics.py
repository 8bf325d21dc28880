import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.comments import CommentConfig, score_comments
from recsys.comments.features import describe, plain_words

CONFIG = CommentConfig()
PRAISE = "kem dưỡng ẩm tốt lắm da mềm mịn hẳn ra"


def quality(view):
    return score_comments(view, CONFIG).quality


def test_no_comment_adds_nothing_and_length_adds_more_and_more(make_view):
    texts = ["", "  \u200b", "tốt", "kem này tốt", PRAISE, " ".join(f"từ{n}" for n in range(40))]
    scores = quality(make_view([("u", text, 5, "2024-01-01") for text in texts])).tolist()
    assert scores[:2] == [0.0, 0.0]
    assert scores[1:] == sorted(scores[1:])
    assert scores[-1] == 1.0


def test_texts_of_more_than_two_gigabytes_fit_one_column():
    plain = plain_words(pd.Series(["Kem tốt", "ổn"], dtype="str"))
    assert plain.type == pa.large_string()  # the offsets of pa.string() end at 2 GB
    assert describe(pd.Series(["Kem tốt", "kem tot!"], dtype="str")).key.tolist() == [
        *describe(pd.Series(["kem tot", "kem tot"], dtype="str")).key
    ]


@pytest.mark.parametrize(
    "filler",
    ["tốt tốt tốt tốt tốt tốt tốt tốt tốt tốt", "kem dưỡng ẩm tốtttttttttttttttttttttttttttttttt"],
)
def test_repetition_scores_below_a_text_of_the_same_length(make_view, filler):
    plain = " ".join(PRAISE.split()[: len(filler.split())])
    repeated, normal = quality(
        make_view([("a", filler, 5, "2024-01-01"), ("b", plain, 5, "2024-01-01")])
    )
    assert repeated < 0.6 * normal


def test_the_key_ignores_case_accents_punctuation_and_unicode_form():
    import unicodedata

    variants = [
        "Sử dụng dễ dàng, rất thoải mái!",
        "SỬ DỤNG DỄ DÀNG RẤT THOẢI MÁI",
        "su dung de dang rat thoai mai",
        unicodedata.normalize("NFD", "Sử  dụng dễ dàng: rất thoải mái"),
    ]
    keys = describe(pd.Series([*variants, "khác hẳn", "", "!!!"], dtype="str")).key
    assert len(set(keys[:4])) == 1
    assert keys[4] != keys[0]
    assert keys[5] == keys[6] == 0


def test_one_text_from_many_users_within_weeks_scores_low(make_view):
    text = "dùng thích lắm sẽ mua thêm nhiều lần nữa"
    burst = [(f"u{n}", text, 5, f"2023-04-{1 + n % 10:02d}") for n in range(50)]
    alone = [("x", "kem này dưỡng ẩm vừa đủ, mùi hơi nồng", 5, "2023-04-05")]
    scores = quality(make_view(burst + alone))
    assert scores[:-1].max() < 0.1
    assert scores.iloc[-1] > 0.5


def test_the_same_text_long_before_a_campaign_is_not_punished(make_view):
    text = "dùng thích lắm sẽ mua thêm nhiều lần nữa"
    rows = [(f"u{n}", text, 5, "2023-04-05") for n in range(20)] + [("x", text, 5, "2019-01-01")]
    scores = quality(make_view(rows))
    assert scores.iloc[-1] > 5 * scores.iloc[0]


def test_copies_by_one_user_and_short_praise_are_no_campaign(make_view):
    copied = [("u", PRAISE, 5, "2023-04-05")] * 30
    short = [(f"u{n}", "giao hàng nhanh", 5, "2023-04-05") for n in range(30)]
    assert score_comments(make_view(copied + short), CONFIG).campaign_users.max() == 0


def test_a_burst_across_the_border_of_two_spans_is_found(make_view):
    rows = [
        (f"u{n}", PRAISE, 5, str(pd.Timestamp(0, tz="UTC") + pd.Timedelta(days=28 * 700 - 4 + n)))
        for n in range(8)
    ]
    assert (score_comments(make_view(rows), CONFIG).campaign_users == 8).all()


@settings(max_examples=50)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"),
            st.sampled_from([PRAISE, PRAISE.upper(), "ổn", "", "❤️❤️", "x\ny\x00z"]) | st.text(),
            st.sampled_from([1.0, 3.0, 5.0]),
            st.sampled_from(["2023-04-05", "2023-04-09", "2020-01-01"]),
        ),
        max_size=30,
    ),
    seed=st.integers(0, 1000),
)
def test_scores_are_in_range_and_do_not_depend_on_the_order_of_rows(make_view, rows, seed):
    view = make_view(rows)
    scores = quality(view)
    assert scores.between(0, 1).all()
    assert scores.dtype == np.float32
    shuffled = view.sample(frac=1, random_state=seed)
    pd.testing.assert_series_equal(quality(shuffled).sort_index(), scores)


def test_words_are_compared_folded():
    assert plain_words(pd.Series(["Rất  THÍCH!!!", "đẹp❤️xinh"])).to_pylist() == [
        "rat thich",
        "dep xinh",
    ]


def test_in_hasaki_the_copied_sentence_of_spring_2023_scores_low(hasaki_view):
    scores = score_comments(hasaki_view, CONFIG)
    copied = plain_words(hasaki_view["comment"]).to_pandas() == (
        "su dung de dang rat thoai mai thu gian tot do"
    )
    assert copied.sum() == 1254
    assert hasaki_view.loc[copied.to_numpy(), "user_id"].nunique() == 114
    assert scores.quality[copied.to_numpy()].max() < 0.05
    assert scores.quality[~copied.to_numpy()].mean() > 0.6
