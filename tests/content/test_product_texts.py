import pandas as pd
import pytest

from recsys.content.product_texts import (
    find_boilerplate,
    hash_texts,
    product_texts,
    split_sentences,
)
from recsys.errors import InputError
from recsys.text import without_markup

FIELDS = ["product_name", "brand", "description"]


def texts(frame: dict[str, list[object]], boilerplate: list[str] | None = None) -> list[str]:
    return product_texts(
        pd.DataFrame(frame), FIELDS, boilerplate or [], max_characters=200
    ).tolist()


def test_a_text_holds_the_fields_one_below_the_other() -> None:
    found = texts({"description": ["Dưỡng ẩm.\nMịn  màng"], "product_name": [" Kem  A "]})
    assert found == ["Kem A\nDưỡng ẩm\nMịn màng"]


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  \u200b\n "])
def test_products_without_words_have_no_text(missing: object) -> None:
    assert texts({"product_name": [missing], "description": [missing]}) == [""]


def test_markup_is_no_text() -> None:
    """A refresh has taken it out, and left the lines."""
    shown = without_markup("<p>Kem<br/>tốt&nbsp;lắm</p>")
    assert texts({"product_name": ["A"], "description": [shown]}) == ["A\nKem\ntốt lắm"]


def test_a_sign_that_is_no_markup_stays() -> None:
    assert texts({"product_name": ["pH < 5 và > 3"]}) == ["pH < 5 và > 3"]


def test_spellings_of_one_text_hash_alike() -> None:
    found = product_texts(
        pd.DataFrame({"product_name": ["Lão hóa", "La\u0303o  hoa\u0301"]}),
        ["product_name"],
        [],
        max_characters=99,
    )
    first, second = hash_texts(found)
    assert first == second
    assert len(first) == 32
    assert hash_texts(pd.Series([""])) == [""]


def test_the_name_can_be_told_twice() -> None:
    frame = pd.DataFrame({"product_name": ["Kem"], "brand": ["B"]})
    found = product_texts(frame, FIELDS, [], max_characters=99, name_repeats=2)
    assert found.tolist() == ["Kem\nKem\nB"]


def test_long_texts_are_cut_off() -> None:
    assert len(texts({"product_name": ["ờ" * 500]})[0]) == 200


def test_what_most_descriptions_say_is_cut(shop: pd.DataFrame) -> None:
    boilerplate = find_boilerplate(split_sentences(shop["description"]), 0.5)
    assert boilerplate == ["Hàng được xuất hoá đơn đỏ cho mọi khách hàng"]
    found = product_texts(shop, FIELDS, boilerplate, max_characters=2000)
    assert not found.str.contains("hoá đơn").any()
    assert found.str.contains("bảo vệ da").sum() == 28


def test_lines_of_a_few_siblings_are_kept() -> None:
    few = pd.Series(["Chung một dòng. Riêng A", "Chung một dòng. Riêng B"])
    assert find_boilerplate(split_sentences(few), 0.2) == []


def test_a_sentence_said_twice_in_one_description_counts_once() -> None:
    descriptions = pd.Series(["Mua ngay. Mua ngay"] * 15 + ["Khác"] * 15)
    assert find_boilerplate(split_sentences(descriptions), 0.4) == []


def test_products_without_any_of_the_columns_are_refused() -> None:
    with pytest.raises(InputError, match=r"text_fields.*'name'"):
        product_texts(pd.DataFrame({"name": ["x"]}), FIELDS, [], max_characters=9)
