import unicodedata

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.columns import fold_series, normalise_series
from recsys.text import fold, normalise, without_markup

VIETNAMESE = "aàảãáạăằẳẵắặâầẩẫấậeẻẽéẹêềểễếệoòỏõóọôồổỗốộơờởỡớợuùủũúụưừửữứựyỳỷỹýỵđĐðÐ"
texts = st.text(
    st.one_of(
        st.sampled_from(VIETNAMESE + VIETNAMESE.upper() + "hqngtk \u0301\u0323\u200b\u00a0\n"),
        st.characters(codec="utf-8", exclude_categories=("Cn", "Co")),
    ),
    max_size=40,
)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("lão hóa", "lão hoá"),
        ("khỏe", "khoẻ"),
        ("thủy", "thuỷ"),
        ("hòan tòan ngòai", "hoàn toàn ngoài"),
        ("qúy", "quý"),
        ("HÒA", "HOÀ"),
        ("lóăt", "loắt"),
        ("của mùa múa", "của mùa múa"),
        ("Ðẹp ðẹp", "Đẹp đẹp"),
        ("  kem\u00a0\u3000dưỡng\t\nẩm ", "kem dưỡng ẩm"),
        ("k\u200be\ufeffm", "kem"),
        ("a\x00b", "a b"),
        ("\ud83d kem", "kem"),
        ("", ""),
    ],
)
def test_variants_of_one_word_get_one_spelling(written: str, expected: str) -> None:
    assert normalise(written) == expected


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_composition_does_not_matter(form: str) -> None:
    text = "Kem Dưỡng Ẩm Phục Hồi, Ngừa Lão Hóa Ban Đêm Thuỵ Sĩ"
    assert normalise(unicodedata.normalize(form, text)) == normalise(text)


def test_code_page_1258_text_is_composed() -> None:
    raw = b"d\xfd\xf2\xde\xf2\xf0 \xec"  # base letters followed by combining tones
    assert unicodedata.is_normalized("NFC", normalise(raw.decode("cp1258")))
    assert normalise("duo\u031bng\u0300") != ""
    assert normalise("ê\u0323") == "ệ"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Kem Dưỡng Ẩm ĐÊM", "kem duong am dem"),
        ("lão hóa lão hoá", "lao hoa lao hoa"),
        ("𝐊𝐞𝐦", "kem"),
        ("SPF50+ 50ml", "spf50+ 50ml"),
        ("에센스", "에센스"),
    ],
)
def test_fold_drops_accents_and_case(written: str, expected: str) -> None:
    assert fold(written) == expected


@given(texts)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
    assert fold(fold(text)) == fold(text)


@given(texts)
def test_folding_ignores_prior_normalisation(text: str) -> None:
    assert fold(normalise(text)) == fold(text)


@given(st.lists(texts, max_size=8))
def test_columns_get_what_single_texts_get(column: list[str]) -> None:
    series = pd.Series(column, dtype="str")
    assert normalise_series(series).tolist() == [normalise(text) for text in column]
    assert fold_series(series).tolist() == [fold(text) for text in column]


@pytest.mark.parametrize("dtype", ["object", "string", "str", "category"])
def test_missing_texts_become_empty_and_the_index_stays(dtype: str) -> None:
    series = pd.Series(["Hóa", None, "Hóa"], index=[3, 3, 1], name="comment", dtype=dtype)
    expected = pd.Series(["hoa", "", "hoa"], index=[3, 3, 1], name="comment", dtype="str")
    pd.testing.assert_series_equal(fold_series(series), expected)


def test_a_column_with_broken_escapes_is_cleaned() -> None:
    series = pd.Series(["\ud83d kem", "kem"], dtype=object)
    assert normalise_series(series).tolist() == ["kem", "kem"]


def test_an_empty_column_stays_empty() -> None:
    assert normalise_series(pd.Series([], dtype=object)).empty


def test_a_hostile_text_is_looked_at_once() -> None:
    """With a pattern that looks again from every sign, these took minutes."""
    for hostile in (
        "<p " + "=" * 200_000 + "<",
        "<p " * 50_000,
        "<!--" * 50_000,
        "<a:" + "a" * 200_000,
    ):
        without_markup(hostile)
