"""Prices as shops write them: ``189.000``, ``1,250,000.00 ₫``, ``từ 189k``, ``189.000 - 259.000``.

Whether a dot or a comma groups thousands or begins decimals is decided by the whole column and by
the currency, not by the single cell. What stays unclear is missing, and counted.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from recsys.arrays import BoolArray, Float64Array
from recsys.ids import MISSING

DONG = "VND"
WITHOUT_DECIMALS = frozenset({DONG, "IDR", "JPY", "KHR", "KRW", "LAK", "MMK"})
"""Currencies whose prices are whole numbers: three digits behind a separator are thousands."""

LOW_PRICE, HIGH_PRICE = 1_000, 50_000_000
"""In dong: less than a sachet, more than any cosmetics cost. Others are read, and doubted."""

HIGHEST = 1e12
LONGEST = 300
"""Characters of a price with all that may stand around it; a longer text is none."""

_NONE = frozenset({*MISSING, "-"})
_SIGNS = {
    **dict.fromkeys(("₫", "đ", "d", "vnd", "vnđ", "đồng", "dong"), DONG),
    **{"$": "USD", "usd": "USD", "us$": "USD", "€": "EUR", "eur": "EUR", "£": "GBP", "gbp": "GBP"},
    **{"¥": "JPY", "jpy": "JPY", "₩": "KRW", "krw": "KRW", "฿": "THB", "thb": "THB"},
    **{"rp": "IDR", "idr": "IDR", "s$": "SGD", "sgd": "SGD", "rm": "MYR", "myr": "MYR"},
}
_UNITS = {"k": 1e3, "nghìn": 1e3, "ngàn": 1e3, "tr": 1e6, "triệu": 1e6}
_WORDS = sorted((re.escape(word) for word in (*_SIGNS, *_UNITS)), key=len, reverse=True)
_AFTER = rf"(?:{'|'.join(_WORDS)})(?!\w)"
_BEFORE = rf"(?:{'|'.join(re.escape(sign) for sign in sorted(_SIGNS, key=len, reverse=True))})"
_PRICE = re.compile(
    rf"(?<![\w.,])(?P<before>{_BEFORE})?\s?(?P<minus>[-−])?"
    r"(?P<number>\d+(?:[.,'’ \u00a0\u202f]\d+)*)"
    rf"\s?(?P<after>{_AFTER}(?:\s?{_AFTER})?)?(?![\w%])",
    re.IGNORECASE,
)
_SCIENTIFIC = re.compile(r"\d+(?:[.,]\d+)?[eE]\+?\d{1,2}")
_RANGE = re.compile(r"\s*(?:[-–—~]|đến|tới|to)\s*", re.IGNORECASE)
_BLANKS = re.compile(r"[ \u00a0\u202f'’]")


class PriceFormat(NamedTuple):
    """How the prices of a column are written; None: found from the column."""

    currency: str = DONG
    decimal: str | None = None
    thousands: str | None = None


def is_dong(currency: str) -> bool:
    """Whether a currency is the dong, by any of its names: ``VND``, ``đ``, ``đồng``."""
    return _SIGNS.get(currency.strip().lower()) == DONG


def parse_prices(
    texts: Iterable[str], style: PriceFormat = PriceFormat()
) -> tuple[Float64Array, int]:
    """The price of each text, NaN where there is none; and the number of those that are unclear."""
    prices, unclear = read_prices(texts, style)
    return prices, int(unclear.sum())


def read_prices(
    texts: Iterable[str], style: PriceFormat = PriceFormat()
) -> tuple[Float64Array, BoolArray]:
    """The price of each text, NaN where there is none; and which are unclear. Of a range the lower
    end counts. Negative prices and those of `HIGHEST` and more are unclear."""
    import pandas as pd  # the service reads the description of sources and carries no pandas

    codes, distinct = pd.factorize(pd.Series(texts, dtype=object))
    found = [_parts(text, style) for text in distinct]
    decimal = _decimal_mark([number for numbers in found for number, _ in numbers], style)
    prices = np.array([_price(numbers, decimal, style) for numbers in found], np.float64)
    given = [str(text).strip(" \u00a0").lower() not in _NONE for text in distinct]
    unclear = np.isnan(prices) & np.array(given, np.bool_)
    return prices[codes], unclear[codes]


def _parts(text: str, style: PriceFormat) -> list[tuple[str, float]]:
    """The number of the price in `text`, or the two of a range, with their units; else nothing."""
    text = str(text).strip()
    if len(text) > LONGEST:
        return []
    if _SCIENTIFIC.fullmatch(text):
        return [(f"{float(text.replace(',', '.')):.2f}".removesuffix(".00"), 1.0)]
    matches = list(_PRICE.finditer(text))
    signed = [match for match in matches if match["before"] or match["after"]]
    is_range = _is_range(text, matches)
    if len(signed) == 1 and not is_range:
        matches = signed
    if len(matches) != 1 + is_range or matches[0]["minus"]:
        return []
    said = [_words(match) for match in matches]
    if {_SIGNS[word] for words in said for word in words if word in _SIGNS} - {style.currency}:
        return []
    units = [[_UNITS[word] for word in words if word in _UNITS] for words in said]
    last = next((own[0] for own in reversed(units) if own), 1.0)  # 189-259k: of both
    numbers = [_BLANKS.sub("", match["number"]) for match in matches]
    return [(number, own[0] if own else last) for number, own in zip(numbers, units, strict=True)]


def _is_range(text: str, matches: list[re.Match[str]]) -> bool:
    if len(matches) != 2:
        return False
    between = text[matches[0].end() : matches[1].start("number")]
    return _RANGE.fullmatch(between.replace(matches[1]["before"] or " ", " ")) is not None


def _words(match: re.Match[str]) -> list[str]:
    after = re.findall(_AFTER, match["after"] or "", re.IGNORECASE)
    return [word.lower() for word in (match["before"], *after) if word]


def _decimal_mark(numbers: list[str], style: PriceFormat) -> str | None:
    """What begins decimals in this column: a mark, "" for none, None where it cannot be told."""
    if style.decimal is not None:
        return style.decimal
    if style.thousands is not None:
        return {".": ",", ",": "."}.get(style.thousands, "")
    votes = {mark for number in numbers if (mark := _shown_decimal(number)) is not None}
    return votes.pop() if len(votes) == 1 else None


def _shown_decimal(number: str) -> str | None:
    """The decimal mark that this number proves, None if it proves none."""
    marks = re.findall(r"[.,]", number)
    if len(set(marks)) == 2:  # 1.250.000,00
        return marks[-1] if marks.count(marks[-1]) == 1 else None
    if len(marks) > 1:  # 1.250.000
        return "," if marks[0] == "." else "."
    if len(marks) == 1 and len(re.split(r"[.,]", number)[1]) != 3:  # 189000.0, 12,5
        return marks[0]
    return None


def _price(numbers: list[tuple[str, float]], decimal: str | None, style: PriceFormat) -> float:
    values = [_value(number, unit, decimal, style) for number, unit in numbers]
    price = min(values, default=float("nan"))
    return price if 0 <= price < HIGHEST else float("nan")


def _value(number: str, unit: float, decimal: str | None, style: PriceFormat) -> float:
    marks = set(re.findall(r"[.,]", number))
    if not marks:
        return float(number) * unit
    if unit != 1.0 and len(marks) == 1 and re.fullmatch(r"\d+[.,]\d{1,2}", number):  # 1,5 triệu
        return float(number.replace(",", ".")) * unit
    own = _shown_decimal(number)
    mark = own if own is not None else _settled(number, decimal, style)
    if mark is None:
        return float("nan")
    whole, _, rest = number.partition(mark) if mark else (number, "", "")
    grouped = re.fullmatch(r"\d{1,3}(?:[.,]\d{3})+|\d+", whole)
    if not grouped or re.search(r"[.,]", rest):
        return float("nan")
    return float(f"{re.sub(r'[.,]', '', whole)}.{rest or 0}") * unit


def _settled(number: str, decimal: str | None, style: PriceFormat) -> str | None:
    """The decimal mark of a number such as ``189.000``, which says nothing by itself."""
    mark = "." if "." in number else ","
    given = style.decimal is not None or style.thousands is not None
    if given and decimal is not None:
        return decimal
    if style.currency in WITHOUT_DECIMALS:
        return "," if mark == "." else "."
    return decimal
