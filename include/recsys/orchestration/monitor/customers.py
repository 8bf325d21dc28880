"""What the pages say of customers' requests, and the form that asks to forget some of them."""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from recsys.data.sources import id_rules
from recsys.errors import InputError
from recsys.privacy import (
    MOST_OF_A_NAME,
    NOT_IN_NAMES,
    Kind,
    Request,
    ask_to_forget,
    overdue,
    read_requests,
)
from recsys.settings import Settings

SHOWN: Final = 100
STATES: Final = ("open", "late", "done")
MOST_AT_ONCE: Final = 500
LONGEST: Final = 100_000
"""Characters of a form."""
_NOT_WRITTEN: Final = re.compile(NOT_IN_NAMES)


class Requests(NamedTuple):
    """The newest requests first as `rows` of text; how many of all are `open`, and how many of
    these `late`; how many there are in each state by kind. `problem` is what is wrong with the
    register: they are then of its last good copy."""

    rows: list[dict[str, Any]]
    open: int
    late: int
    counts: Mapping[str, Mapping[str, int]]
    problem: str | None


def gather_requests(settings: Settings, now: datetime) -> Requests:
    """Raises `InputError` or `OSError` if there is no register to be read."""
    requests, problem = read_requests(settings)
    late = {one.number for one in overdue(requests, now)}
    rows = [_row(one, late) for one in requests[: -SHOWN - 1 : -1]]
    counted = Counter((one.kind.value, _state(one, late)) for one in requests)
    counts = {kind.value: {name: counted[kind.value, name] for name in STATES} for kind in Kind}
    unfinished = sum(one.done_at is None for one in requests)
    return Requests(rows, unfinished, len(late), counts, problem)


def ask(settings: Settings, text: str, asked_by: str) -> tuple[list[int], str | None]:
    """Ask to forget the customers of `text`, an id a line: the numbers of the requests, or the
    sentence why there are none. A login that cannot be written down as it is (a provider's
    ``saml|lan``) loses what cannot."""
    ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(ids) <= MOST_AT_ONCE:
        return [], f"expected 1 to {MOST_AT_ONCE} customers, an id a line; got {len(ids)}"
    try:
        who = _NOT_WRITTEN.sub(" ", asked_by)[:MOST_OF_A_NAME]
        requests = ask_to_forget(settings, ids, who, id_rules(settings))
    except (InputError, OSError) as error:
        return [], str(error)
    return [one.number for one in requests], None


def _state(one: Request, late: set[int]) -> str:
    return "done" if one.done_at is not None else "late" if one.number in late else "open"


def _row(one: Request, late: set[int]) -> dict[str, Any]:
    return {
        "number": one.number,
        "kind": one.kind.value,
        "who": one.pseudonym[:9],
        "by": one.asked_by,
        "asked_at": one.asked_at.isoformat(),
        "due_at": None if one.kind is Kind.READMIT else one.due_at.isoformat(),
        "done_at": one.done_at and one.done_at.isoformat(),
        "state": _state(one, late),
        "left": one.proof.get("left") or [],
    }
