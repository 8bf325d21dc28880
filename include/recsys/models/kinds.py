"""Kinds of events as the codes that histories hold, and what each kind says. NumPy alone."""

from collections.abc import Mapping

import numpy as np

from recsys.arrays import BoolArray, Float32Array
from recsys.models.base import Histories
from recsys.schema import Kind

CODE_OF: dict[str, int] = {kind.value: code for code, kind in enumerate(Kind)}
"""What `Histories.kinds` holds of each kind, and artefacts: a new kind comes last."""
RATING, DISMISS = CODE_OF[Kind.RATING], CODE_OF[Kind.DISMISS]
_LAST_HAD = CODE_OF[Kind.PURCHASE]

SIGNAL_WEIGHTS: dict[Kind, float] = {
    Kind.PURCHASE: 1.0,
    Kind.CART: 0.5,
    Kind.CLICK: 0.2,
    Kind.VIEW: 0.05,
}
"""What one of each kind counts beside a five-star review, where nothing else was chosen."""


def weight_of_codes(weights: Mapping[str, float]) -> Float32Array:
    """``(kinds,)`` what an entry of each code weighs: a rating 1, a dismissal 0, the others what
    `weights` says, or `SIGNAL_WEIGHTS` where it is silent."""
    table = np.zeros(len(CODE_OF), dtype=np.float32)
    table[RATING] = 1
    for kind, usual in SIGNAL_WEIGHTS.items():
        table[CODE_OF[kind]] = weights.get(kind, usual)
    return table


def had(histories: Histories) -> BoolArray:
    """``(entries,)`` whether the customer has or had the product: bought or rated it."""
    return np.asarray(histories.kinds <= _LAST_HAD)


def dismissed(histories: Histories) -> BoolArray:
    """``(entries,)`` whether the customer does not want to be shown the product again."""
    return np.asarray(histories.kinds == DISMISS)


def not_offered(histories: Histories) -> BoolArray:
    """``(entries,)`` whether the product is no candidate for the customer: had or dismissed."""
    return had(histories) | dismissed(histories)


def weak(histories: Histories) -> BoolArray:
    """``(entries,)`` whether the customer only looked at the product, or put it into a cart."""
    return ~not_offered(histories)
