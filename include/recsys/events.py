"""One reading of what an event says beside its time and its stars.

The service asks about one at a time, here, and the refresh about whole columns, by
`recsys.columns.read_events`: what the one acknowledges is what the other counts, and what is
refused is refused for the same reason."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from recsys import schema
from recsys.ids import (
    BLANKS,
    MISSING,
    ODD_CHARACTER,
    STANDS_FOR_MANY,
    IdRules,
    id_fault,
    normalise_id,
)
from recsys.schema import Kind

KINDS: Final = tuple(kind.value for kind in Kind)
LEAST_QUANTITY, MOST_QUANTITY = 0.001, 10_000.0
VALUE_LIMIT = 1e12
LONGEST_RECOMMENDATION = 64

# In a notation that Python's and Arrow's expressions share.
PLACEMENT = "^[A-Za-z0-9_.-]{1,64}$"
UUID = "^" + "-?".join(f"([0-9a-f]{{{digits}}})" for digits in (8, 4, 4, 4, 12)) + "$"

NO_KIND = f"the kind is none of {', '.join(KINDS)}"
NO_USER = "there is no user"
NOBODY = "there is neither a user nor a session"
BAD_QUANTITY = f"the quantity is not {LEAST_QUANTITY} to {MOST_QUANTITY:.0f} pieces"
BAD_VALUE = "the value is not 0 dong to a million million"
BAD_RECOMMENDATION = f"the recommendation is no id of {LONGEST_RECOMMENDATION} characters or fewer"
BAD_PLACEMENT = "the placement is no name of 1 to 64 letters (A-Z), digits, dots, dashes and _"

_PLACEMENT = re.compile(PLACEMENT)
_UUID = re.compile(UUID, re.IGNORECASE | re.ASCII)


class Said(NamedTuple):
    """An event in the one spelling; texts are "" where there is nothing. `user` is "" for a guest,
    who has a `session`. `quantity` counts pieces; `value` is dong, of all of them, NaN if unknown.
    A `recommendation` that is a UUID is written in its usual form, any other as it came."""

    kind: str
    user: str
    product: str
    session: str
    quantity: float
    value: float
    recommendation: str
    placement: str


def read_event(sent: Mapping[str, Any], rules: IdRules) -> tuple[Said, dict[str, str]]:
    """What `sent` says, and what is wrong with it: a sentence each for the names of
    `recsys.schema`. Ids are text or whole numbers, quantity and value numbers, the rest text. What
    is missing may be None, or a text such as ``"null"``. Without a kind it is a rating, which needs
    a user; what is of another kind may be a guest's, whom the session tells from others.

    >>> guest = {"user_id": "guest", "session_id": "s-1", "product_id": 443.0, "kind": "view"}
    >>> read_event(guest, IdRules())[0][:4]
    ('view', '', '443', 's-1')
    """
    kind = _text(sent.get(schema.KIND)).strip(BLANKS) or Kind.RATING.value
    session, product = _id(sent.get(schema.SESSION)), _id(sent.get(schema.PRODUCT))
    session = "" if session.lower() in MISSING else session
    user, user_fault = _customer(_id(sent.get(schema.USER)), kind, session, rules)
    quantity, value = _number(sent.get(schema.QUANTITY), 1.0), _number(sent.get(schema.VALUE))
    recommendation = _present(sent.get(schema.RECOMMENDATION))
    placement = _present(sent.get(schema.PLACEMENT))
    if found := _UUID.match(recommendation):
        recommendation = "-".join(found.groups()).lower()
    faults = {
        schema.KIND: None if kind in KINDS else NO_KIND,
        schema.USER: user_fault,
        schema.PRODUCT: id_fault(product, "product"),
        schema.SESSION: id_fault(session, "session") if session else None,
        schema.QUANTITY: None if LEAST_QUANTITY <= quantity <= MOST_QUANTITY else BAD_QUANTITY,
        schema.VALUE: None if 0 <= value < VALUE_LIMIT or math.isnan(value) else BAD_VALUE,
        schema.RECOMMENDATION: _recommendation_fault(recommendation),
        schema.PLACEMENT: BAD_PLACEMENT if placement and not _PLACEMENT.match(placement) else None,
    }
    ids = (kind, user, rules.product(product), session)
    said = Said(*ids, quantity, value, recommendation, placement)
    return said, {name: fault for name, fault in faults.items() if fault}


def _customer(user: str, kind: str, session: str, rules: IdRules) -> tuple[str, str | None]:
    """The customer, "" for a guest, and why there is none."""
    fault = rules.user_fault(user)
    if fault is None or kind == Kind.RATING or fault not in (NO_USER, STANDS_FOR_MANY):
        return user, fault
    if session:
        return "", None
    return user, NOBODY if fault == NO_USER else fault


def _recommendation_fault(text: str) -> str | None:
    bad = len(text) > LONGEST_RECOMMENDATION or ODD_CHARACTER.search(text)
    return BAD_RECOMMENDATION if bad else None


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _present(value: Any) -> str:
    text = _text(value).strip(BLANKS)
    return "" if text.lower() in MISSING else text


def _id(value: Any) -> str:
    return "" if value is None else normalise_id(value)


def _number(value: float | None, missing: float = math.nan) -> float:
    return missing if value is None else float(value)
