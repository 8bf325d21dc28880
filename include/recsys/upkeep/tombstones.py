"""Customers who are forgotten, in a state root of before: a backup knows nothing of it.

The register has pseudonyms alone, so the ids that stand in the data are looked up in it, one by
one; where an id stands nowhere, its pseudonym still leads to what logs have."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from recsys.personal import Record, Unread
from recsys.privacy import FORGETTING_KEY, Forgotten, ids_to_forget, load_forgotten
from recsys.pseudonyms import load_pseudonyms
from recsys.settings import Settings
from recsys.upkeep.forgetting import erase
from recsys.upkeep.personal import find, named_ids, sought

_TOLD: Final = 20


def erase_forgotten(settings: Settings) -> dict[str, Any]:
    """Remove what is kept of all who are forgotten by the register of this state root, while nobody
    else works in it. Returns ``{customers, left}``: of how many there was something under their
    ids, and the places that a person has to look at. Raises `InputError` if the register cannot be
    read."""
    forgotten = load_forgotten(settings)
    if not forgotten:
        return {"customers": 0, "left": []}
    known = set(ids_to_forget(settings).read()).union(*named_ids(settings))
    theirs = sorted(one for one in known if one in forgotten)
    names = _names_of_others(settings, forgotten, known)
    customers = sought(settings, theirs)
    customers = replace(customers, pseudonyms=names | dict(customers.pseudonyms))
    left = {one.place for one in erase(settings, customers, [datetime.now(UTC)])}
    left |= {one.place for _, one in find(settings, customers) if isinstance(one, Record | Unread)}
    told = sorted({customers.nameless(place) for place in left - {FORGETTING_KEY}})
    return {"customers": len(theirs), "left": told[:_TOLD]}


def _names_of_others(
    settings: Settings, forgotten: Forgotten, known: Iterable[str]
) -> dict[str, str]:
    """Pseudonyms of the forgotten whose ids stand nowhere, each as a customer of that name."""
    names = load_pseudonyms(settings)
    readmitted = {name for one in known if one not in forgotten for name in names.all_of(one)}
    return {name: name for name in forgotten.by_name().keys() - readmitted}
