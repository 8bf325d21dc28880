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
    NOBODY_BUT_MANY,
    STANDS_FOR_MANY,
    IdRules,
    id_fault,
    normalise_id,
)
from recsys.schema import Kind

KINDS: Final = tuple(kind.value for kind in Kind)
MOST_PIECES = 10_000.0
VALUE_LIMIT = 1e12
LONGEST_RECOMMENDATION = 64
"""Characters; the rest is cut off. What is no list of ours is counted as such, and no fault."""

# In a notation that Python's and Arrow's expressions share.
PLACEMENT = "^[A-Za-z0-9_.-]{1,64}$"
UUID = "^" + "-?".join(f"([0-9a-f]{{{digits}}})" for digits in (8, 4, 4, 4, 12)) + "$"

NO_KIND = f"the kind is none of {', '.join(KINDS)}"
NO_USER = "there is no user"
NOBODY = "there is neither a user nor a session"
BAD_QUANTITY = f"the quantity is not above 0 and up to {MOST_PIECES:,.0f}"
BAD_VALUE = "the value is not 0 dong to a million million"
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
    a user; what is of another kind may be a guest's, whom the session tells from others. A session
    that stands for many, such as ``"0"``, is none.

    >>> guest = {"user_id": "guest", "session_id": "s-1", "product_id": 443.0, "kind": "view"}
    >>> read_event(guest, IdRules())[0][:4]
    ('view', '', '443', 's-1')
    """
    kind = (sent.get(schema.KIND) or "").strip(BLANKS) or Kind.RATING.value
    session, product = _id(sent.get(schema.SESSION)), _id(sent.get(schema.PRODUCT))
    many = rules.stands_for_many(session)
    session = "" if many or session.lower() in MISSING else session
    user, fault = _customer(_id(sent.get(schema.USER)), kind, session, rules)
    fault = NOBODY_BUT_MANY if many and fault == NOBODY else fault
    faults = {} if kind in KINDS else {schema.KIND: NO_KIND}
    if fault:
        faults[schema.USER] = fault
    if fault := id_fault(product, "product"):
        faults[schema.PRODUCT] = fault
    if session and (fault := id_fault(session, "session")):
        faults[schema.SESSION] = fault
    quantity, value = sent.get(schema.QUANTITY), sent.get(schema.VALUE)
    if quantity is not None and not 0 < quantity <= MOST_PIECES:
        faults[schema.QUANTITY] = BAD_QUANTITY
    worth = math.nan if value is None else value
    if not (0 <= worth < VALUE_LIMIT or math.isnan(worth)):
        faults[schema.VALUE] = BAD_VALUE
    recommendation = _list_id(_present(sent.get(schema.RECOMMENDATION)))
    placement = _present(sent.get(schema.PLACEMENT))
    if placement and not _PLACEMENT.match(placement):
        faults[schema.PLACEMENT] = BAD_PLACEMENT
    pieces = 1.0 if quantity is None else quantity
    ids = (kind, user, rules.product(product), session)
    return Said(*ids, pieces, worth, recommendation, placement), faults


def _customer(user: str, kind: str, session: str, rules: IdRules) -> tuple[str, str | None]:
    """The customer, "" for a guest, and why there is none."""
    fault = rules.user_fault(user)
    if fault is None or kind == Kind.RATING or fault not in (NO_USER, STANDS_FOR_MANY):
        return user, fault
    if session:
        return "", None
    return user, NOBODY if fault == NO_USER else fault


def _list_id(text: str) -> str:
    found = _UUID.match(text)
    return "-".join(found.groups()).lower() if found else text[:LONGEST_RECOMMENDATION]


def _present(text: str | None) -> str:
    text = text.strip(BLANKS) if text else ""
    return "" if text.lower() in MISSING else text


def _id(value: str | int | None) -> str:
    return "" if value is None else normalise_id(value)
