"""One spelling for the ids of customers and products, and what is no id.

The same id arrives as text, as a number that was a float on its way, padded, or in decomposed
letters. The refresh asks about whole columns and the service about one id at a time: both get the
same answers, so that what the service acknowledges is what the refresh counts. Arrow is imported by
what works on columns only: the service must not carry it.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.arrays import BoolArray
from recsys.errors import InputError
from recsys.text import contains_byte

if TYPE_CHECKING:
    import pyarrow as pa

MAX_LENGTH = 128

MISSING = (
    r"\n",  # \N, as MySQL writes it
    *("", "nan", "null", "none", "nil", "na", "n/a", "#n/a", "<na>", "nat"),
    *("undefined", "[object object]"),
)
"""What programs and spreadsheets write where there is nothing; in any case."""

PLACEHOLDERS = ("0", "-1", "guest", "anonymous", "unknown", "khách", "khách lẻ", "khách vãng lai")
"""Ids that shops give to everybody without an account, unless the source names others."""

MASKED = "**"
"""Marketplaces show a customer as ``n*****a``: many customers by one name."""

STANDS_FOR_MANY = "the user is a placeholder that stands for many people"
"""Nothing is wrong with such a row, except that it tells nothing about anybody."""

_BLANKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# Blanks inside, controls, invisible marks, private and unassigned characters, in a notation that
# Python's and Arrow's expressions share.
_ODD = (
    "[\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u1680\u180e\u2000-\u200f"
    "\u2028-\u202f\u205f-\u206f\u3000\ue000-\uf8ff\ufeff\ufff0-\uffff\U000e0000-\U0010ffff]"
)
_ODD_CHARACTER = re.compile(_ODD + "|[\ud800-\udfff]")
_WHOLE_FLOAT = r"^(\d+)\.0+$"
_FLOAT = re.compile(_WHOLE_FLOAT, re.ASCII)
# As spreadsheets and Python write large numbers; an article number such as 12E5 has no sign.
_PLUS, _DOT = ord("+"), ord(".")
_SCIENTIFIC = r"^\d([.,]\d+)?[eE]\+\d+$"
_POWER = re.compile(r"^(\d)(?:[.,](\d+))?[eE]\+(\d+)$", re.ASCII)


@dataclass(frozen=True)
class IdRules:
    """What a shop's ids mean beyond their spelling.

    `placeholders` are ids of customers that stand for many people, in any case; `aliases` are the
    products that got another id, old -> new.
    """

    placeholders: tuple[str, ...] = PLACEHOLDERS
    aliases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, placeholders: Sequence[str | int], aliases: Mapping[Any, str | int]) -> "IdRules":
        """Rules in normal form, with aliases of aliases followed to the end. Raises `InputError`
        for an alias that leads back to itself."""
        direct = {normalise_id(old): normalise_id(new) for old, new in aliases.items()}
        resolved = {}
        for old, new in direct.items():
            seen = {old}
            while new in direct:
                if new in seen:
                    raise InputError(f"aliases: {old!r} leads back to itself")
                seen.add(new)
                new = direct[new]
            resolved[old] = new
        return cls(tuple(normalise_id(text) for text in placeholders), resolved)

    def product(self, product_id: str) -> str:
        """The id that the product has today."""
        return self.aliases.get(product_id, product_id)

    def user_fault(self, user_id: str) -> str | None:
        """Why a normalised id names no customer, None if it does."""
        fault = id_fault(user_id, "user")
        if fault is None and (user_id.lower() in self._lower or MASKED in user_id):
            return STANDS_FOR_MANY
        return fault

    @property
    def _lower(self) -> frozenset[str]:
        return frozenset(text.lower() for text in self.placeholders)


def normalise_id(value: str | int) -> str:
    """The one spelling of an id.

    >>> normalise_id(" 443.0 "), normalise_id("4.43E+02"), normalise_id("0443"), normalise_id(443)
    ('443', '443', '0443', '443')
    """
    text = str(value).strip(_BLANKS)
    if not text.isascii():
        return unicodedata.normalize("NFC", text)
    return _FLOAT.sub(r"\1", _written_out(text))


def id_fault(text: str, what: str) -> str | None:
    """Why a normalised id names no `what` (user, product), None if it may.

    >>> id_fault("undefined", "user")
    'there is no user'
    """
    if text.lower() in MISSING:
        return f"there is no {what}"
    if _ODD_CHARACTER.search(text) or len(text) > MAX_LENGTH:
        return f"the {what} is not an id"
    if _POWER.match(text):
        return f"the {what} is a number that a spreadsheet has cut short"
    return None


def normalise_ids(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """`normalise_id` of each text (large_string)."""
    import pyarrow.compute as pc

    ids = pc.utf8_trim(column, characters=_BLANKS)
    is_ascii = pc.string_is_ascii(ids)
    if not _all(is_ascii):
        ids = _one_by_one(ids, pc.invert(is_ascii))
    if contains_byte(ids, _PLUS):
        ids = _one_by_one(ids, pc.match_substring_regex(ids, _SCIENTIFIC))
    if contains_byte(ids, _DOT):
        ids = pc.replace_substring_regex(ids, _WHOLE_FLOAT, r"\1")
    return ids


def id_faults(
    ids: "pa.ChunkedArray", what: str, rules: IdRules | None = None
) -> list[tuple[BoolArray, str]]:
    """Which of the normalised `ids` name no `what`, and why; the first reason of an id counts. With
    `rules`, also which customers stand for many."""
    import pyarrow as pa
    import pyarrow.compute as pc

    none = np.zeros(len(ids), dtype=np.bool_)
    is_ascii = _all(pc.string_is_ascii(ids))
    lower = pc.ascii_lower(ids) if is_ascii else pc.utf8_lower(ids)

    def named(names: Iterable[str]) -> BoolArray:
        return _mask(pc.is_in(lower, value_set=pa.array(sorted(names), lower.type)))

    placeholders = rules._lower if rules is not None else frozenset()
    suspicious = named(placeholders.union(MISSING)).any()
    if is_ascii:
        odd, length = pc.invert(pc.ascii_is_printable(ids)), pc.binary_length(ids)
    else:
        odd, length = pc.match_substring_regex(ids, _ODD), pc.utf8_length(ids)
    short = many = none
    if contains_byte(ids, _PLUS):
        short = _mask(pc.match_substring_regex(ids, _SCIENTIFIC))
    if rules is not None and contains_byte(ids, ord(MASKED[0])):
        many = _mask(pc.match_substring(ids, MASKED))
    return [
        (named(MISSING) if suspicious else none, f"there is no {what}"),
        (_mask(pc.or_(odd, pc.greater(length, MAX_LENGTH))), f"the {what} is not an id"),
        (short, f"the {what} is a number that a spreadsheet has cut short"),
        (many | named(placeholders) if suspicious else many, STANDS_FOR_MANY),
    ]


def rename_ids(ids: "pa.ChunkedArray", aliases: Mapping[str, str]) -> "pa.ChunkedArray":
    """`ids` with those that are keys of `aliases` replaced."""
    import pyarrow as pa
    import pyarrow.compute as pc

    place = pc.index_in(ids, value_set=pa.array(list(aliases), ids.type))
    renamed = pc.take(pa.array(list(aliases.values()), ids.type), place)
    return pc.if_else(pc.is_valid(place), renamed, ids)


def _written_out(text: str) -> str:
    """The number that scientific notation stands for, if it says all of its digits."""
    found = _POWER.match(text)
    if found is None or len(text) > MAX_LENGTH:  # the latter is no id at all
        return text
    first, decimals, power = found[1], found[2] or "", int(found[3])
    cut_short = len(decimals) < power or decimals[power:].strip("0")
    return text if cut_short else first + decimals[:power]


def _one_by_one(ids: "pa.ChunkedArray", chosen: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """`ids` with `normalise_id` of each distinct text where `chosen` holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    encoded = ids.filter(chosen).combine_chunks().dictionary_encode()
    distinct = [normalise_id(text) for text in encoded.dictionary.to_pylist()]
    done = pa.array(distinct, ids.type).take(encoded.indices)
    return pa.chunked_array(
        [pc.replace_with_mask(ids.combine_chunks(), chosen.combine_chunks(), done)]
    )


def _all(mask: "pa.ChunkedArray") -> bool:
    import pyarrow.compute as pc

    return bool(pc.all(mask).as_py() is not False)


def _mask(column: "pa.ChunkedArray") -> BoolArray:
    return np.asarray(column.to_numpy(), dtype=np.bool_)
