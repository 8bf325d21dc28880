"""One spelling for the ids of customers and products, and what is no id.

The same id arrives as text, as a number that was a float on its way, padded, or in decomposed
letters. The service asks about one at a time and the refresh about whole columns
(`recsys.columns`): what the one acknowledges is what the other counts."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from recsys.errors import InputError

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

NOBODY_BUT_MANY = "there is no user, and the session is a placeholder that stands for many people"
SESSION_STANDS_FOR_MANY = "the session is a placeholder that stands for many people"
STANDS_FOR_MANY = "the user is a placeholder that stands for many people"
"""Nothing is wrong with such a row, except that it tells nothing about anybody."""

BLANKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# Blanks inside, controls, invisible marks, private and unassigned characters, in a notation that
# Python's and Arrow's expressions share.
ODD = (
    "[\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u1680\u180e\u2000-\u200f"
    "\u2028-\u202f\u205f-\u206f\u3000\ue000-\uf8ff\ufeff\ufff0-\uffff\U000e0000-\U0010ffff]"
)
_ODD_CHARACTER = re.compile(ODD + "|[\ud800-\udfff]")
WHOLE_FLOAT = r"^(\d+)\.0+$"
_FLOAT = re.compile(WHOLE_FLOAT, re.ASCII)
# As spreadsheets and Python write large numbers; an article number such as 12E5 has no sign.
_POWER = re.compile(r"^(\d)(?:[.,](\d+))?[eE]\+(\d+)$", re.ASCII)


@dataclass(frozen=True)
class IdRules:
    """What a shop's ids mean beyond their spelling: `placeholders` are customers, and sessions,
    that stand for many people, in any case; `aliases` are the products that got another id, old ->
    new."""

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
        return STANDS_FOR_MANY if fault is None and self.stands_for_many(user_id) else fault

    def session_fault(self, session_id: str) -> str | None:
        """Why a normalised id names no session, None if it does."""
        fault = id_fault(session_id, "session")
        return (
            SESSION_STANDS_FOR_MANY if fault is None and self.stands_for_many(session_id) else fault
        )

    def stands_for_many(self, text: str) -> bool:
        """Whether a normalised id, of a user or a session, is that of many people."""
        return text.lower() in self.lower_placeholders or MASKED in text

    @cached_property
    def lower_placeholders(self) -> frozenset[str]:
        return frozenset(text.lower() for text in self.placeholders)


def normalise_id(value: str | int) -> str:
    """The one spelling of an id.

    >>> normalise_id(" 443.0 "), normalise_id("4.43E+02"), normalise_id("0443"), normalise_id(443)
    ('443', '443', '0443', '443')
    """
    text = str(value).strip(BLANKS)
    if not text.isascii():
        return unicodedata.normalize("NFC", text)
    return _FLOAT.sub(r"\1", _written_out(text)) if "." in text or "+" in text else text


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


def _written_out(text: str) -> str:
    """The number that scientific notation stands for, if it says all of its digits."""
    found = _POWER.match(text)
    if found is None or len(text) > MAX_LENGTH:  # the latter is no id at all
        return text
    first, decimals, power = found[1], found[2] or "", int(found[3])
    cut_short = len(decimals) < power or decimals[power:].strip("0")
    return text if cut_short else first + decimals[:power]
