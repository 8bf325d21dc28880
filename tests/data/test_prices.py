"""How shops write prices."""

import math

import pytest

from recsys.data.prices import PriceFormat, parse_prices

DOTS = {"189.000": 189_000, "1.250.000": 1_250_000, "95.000": 95_000, "459000": 459_000}


def prices(*texts: str, **style: str) -> list[float]:
    found, _ = parse_prices(texts, PriceFormat(**style))
    return found.tolist()


def test_a_dong_has_no_decimals():
    assert prices(*DOTS) == list(DOTS.values())
    assert prices("189.000") == [189_000]  # with nothing else to go by
    assert prices("189,000", "1,250,000") == [189_000, 1_250_000]


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("209.000 ₫", 209_000),
        ("209.000đ", 209_000),
        ("VNĐ 150.000", 150_000),
        ("₫95,000", 95_000),
        ("Giá: 189.000 đ / hộp 100ml", 189_000),
        ("từ 189.000đ", 189_000),
        ("150.000đ/100ml", 150_000),
        ("189.000 - 259.000", 189_000),
        ("189.000đ – 259.000đ", 189_000),
        ("189000 đến 259000 VND", 189_000),
        ("189k", 189_000),
        ("189-259k", 189_000),
        ("500k - 1tr", 500_000),
        ("900k đến 1,2 triệu", 900_000),
        ("1,5 triệu", 1_500_000),
        ("189 000", 189_000),
        ("189\u00a0000 ₫", 189_000),
        ("1.250.000,00", 1_250_000),
        ("1,250,000.00", 1_250_000),
        ("209000.0", 209_000),
        ("1.89E+05", 189_000),
        ("0", 0),
    ],
)
def test_a_price_is_found_in_what_stands_around_it(text, price):
    assert prices(text) == [price]


@pytest.mark.parametrize(
    "text",
    ["liên hệ", "-5000", "$12.99", "189.000 (giá gốc 259.000)", "1.89.000", "12,34,567", "9" * 20],
)
def test_what_is_unclear_is_missing_and_counted(text):
    found, unclear = parse_prices([text, "189.000"])
    assert math.isnan(found[0])
    assert found[1] == 189_000
    assert unclear == 1


@pytest.mark.parametrize("text", ["", " ", "nan", "NULL", "-", "\\N"])
def test_no_price_is_missing_and_not_unclear(text):
    found, unclear = parse_prices([text])
    assert math.isnan(found[0])
    assert unclear == 0


def test_the_column_decides_what_a_number_does_not_say():
    assert prices("12.50", "1.250", currency="USD") == [12.5, 1.25]
    assert prices("1.250,50", "2.500", currency="EUR") == [1250.5, 2500]
    assert prices("1.250.000,50", "2.500", currency="EUR") == [1_250_000.5, 2500]
    found, unclear = parse_prices(["1.250", "2.500"], PriceFormat("EUR"))
    assert unclear == 2
    assert all(math.isnan(price) for price in found)


def test_the_description_decides_before_the_column():
    assert prices("1.250", "2.500", currency="EUR", thousands=".") == [1250, 2500]
    assert prices("189.000", decimal=".") == [189]
    assert prices("€ 12,50", "3,999", currency="EUR", decimal=",") == [12.5, 3.999]


def test_an_empty_column_is_one():
    assert prices() == []


def test_a_page_in_the_place_of_a_price_is_unclear_at_once():
    found, unclear = parse_prices(["1 " * 200_000, "189.000"])
    assert math.isnan(found[0])
    assert (found[1], unclear) == (189_000, 1)


def test_what_stands_for_nothing_is_no_unclear_price():
    found, unclear = parse_prices(["#N/A", "undefined", r"\N", "-", ""])
    assert all(map(math.isnan, found))
    assert unclear == 0
