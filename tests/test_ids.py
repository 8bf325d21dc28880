"""Ids: one spelling for the refresh, which has columns, and the service, which has one each."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from recsys.columns import id_faults, normalise_ids, rename_ids
from recsys.errors import InputError
from recsys.ids import PLACEHOLDERS, STANDS_FOR_MANY, IdRules, id_fault, normalise_id

RULES = IdRules.of(PLACEHOLDERS, {})
PIECES = st.one_of(
    st.text(),
    st.sampled_from(
        [
            *("0", "12", "00", "1.0", ".0", ".00", "E+2", "4.43E+02", "4,43E+02", "1e+400", "-1"),
            *("null", "Guest", "KHÁCH", "undefined", "[Object Object]", "**", "n*a"),
            *(" ", "\u00a0", "\u200b", "\ufeff", "é", "e\u0301", "\x00"),
        ]
    ),
    st.from_regex(r"\A[0-9][.,]?[0-9]{0,12}[eE]\+[0-9]{1,2}\Z"),
)
TEXTS = st.lists(PIECES, max_size=4).map(
    lambda pieces: "".join(pieces).encode("utf-8", "ignore").decode()
)


@examples(max_examples=400, deadline=None)
@given(st.lists(TEXTS, max_size=6))
def test_a_column_of_ids_is_judged_like_each_of_them(texts: list[str]):
    column = pa.chunked_array([pa.array(texts, pa.large_string())])
    ids = normalise_ids(column)
    assert ids.to_pylist() == [normalise_id(text) for text in texts]
    faults = id_faults(ids, "user", RULES)
    found = [next((why for bad, why in faults if bad[row]), None) for row in range(len(texts))]
    assert found == [RULES.user_fault(text) for text in ids.to_pylist()]


@given(TEXTS)
def test_the_normal_form_is_its_own(text: str):
    assert normalise_id(normalise_id(text)) == normalise_id(text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (443, "443"),
        ("443.0", "443"),
        ("443.000", "443"),
        (" 443 ", "443"),
        ("\u00a0443\u3000\t", "443"),
        ("00443", "00443"),
        ("00443.0", "00443"),
        ("4.43E+02", "443"),
        ("4,43e+2", "443"),
        ("4.22220087E+08", "422220087"),
        ("4.430E+02", "443"),
        ("SKU-12", "SKU-12"),
        ("12E5", "12E5"),
        ("1.5", "1.5"),
        ("mã e\u0301 7", "mã é 7"),
    ],
)
def test_one_id_has_one_spelling(written: str | int, meant: str):
    assert normalise_id(written) == meant
    assert id_fault(meant, "product") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no user"),
        ("  ", "there is no user"),
        ("NULL", "there is no user"),
        ("N/A", "there is no user"),
        ("undefined", "there is no user"),
        ("[object Object]", "there is no user"),
        ("\u200b443", "the user is not an id"),
        ("a\x00b", "the user is not an id"),
        ("a\nb", "the user is not an id"),
        ("9" * 129, "the user is not an id"),
        ("\ud800", "the user is not an id"),
        ("4.22E+08", "the user is a number that a spreadsheet has cut short"),
        ("4,2222E+08", "the user is a number that a spreadsheet has cut short"),
        ("0", STANDS_FOR_MANY),
        ("Guest", STANDS_FOR_MANY),
        ("Khách Lẻ", STANDS_FOR_MANY),
        ("n*****a", STANDS_FOR_MANY),
    ],
)
def test_what_is_no_customer_is_said(text: str, why: str):
    assert RULES.user_fault(normalise_id(text)) == why


def test_a_shop_names_its_own_placeholders():
    rules = IdRules.of(["WALK-IN", 999], {})
    assert rules.user_fault("walk-in") == rules.user_fault("999") == STANDS_FOR_MANY
    assert rules.user_fault("0") is None


def test_a_renumbered_product_is_followed_to_its_last_id():
    rules = IdRules.of([], {"1": "2", "2 ": "3.0", "x": "y"})
    assert [rules.product(one) for one in ("1", "2", "3", "x", "z")] == ["3", "3", "3", "y", "z"]
    column = pa.chunked_array([pa.array(["1", "2", "3", "x", "z"], pa.large_string())])
    assert rename_ids(column, rules.aliases).to_pylist() == ["3", "3", "3", "y", "z"]


def test_an_alias_that_leads_back_to_itself_is_an_error():
    with pytest.raises(InputError, match="'1' leads back to itself"):
        IdRules.of([], {"1": "2", "2": "1"})


def test_a_number_of_absurd_length_is_no_id_and_stops_nothing() -> None:
    absurd = "1E+" + "9" * 5000
    assert normalise_id(absurd) == absurd
    assert id_fault(absurd, "user")
    assert normalise_ids(pa.chunked_array([[absurd]], pa.large_string())).to_pylist() == [absurd]
