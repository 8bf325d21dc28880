"""Hyperparameters of a family: a frozen dataclass, made from what a file or a search says."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from recsys.errors import InputError

ParametersT = TypeVar("ParametersT")


def parse_parameters(
    model_type: str, kind: type[ParametersT], values: Mapping[str, Any]
) -> ParametersT:
    """`values` as a `kind`, a dataclass of numbers.

    Raises `InputError` that names an unknown parameter, or one that is no number.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(
                f"{model_type}: unknown parameter {name!r}; expected one of {', '.join(known)}"
            )
        wanted: type[int] | type[float] = int if isinstance(known[name].default, int) else float
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{model_type}: {name}: expected a number, got {value!r}")
        parsed[name] = wanted(value)
    return kind(**parsed)


@dataclass(frozen=True)
class ItemKnnParameters:
    """What can be chosen.

    Attributes
    ----------
    window
        How many moments apart two purchases may lie to be a transition.
    gap_decay
        Each moment further apart makes a transition count this much of the one before.
    together
        Weight of two products bought at one moment, in both directions.
    reverse
        Weight of the transition from the later product back to the earlier one.
    user_norm
        A user with a history of n entries counts ``n ** -user_norm``.
    from_norm, to_norm, shrinkage
        A transition i -> j is divided by ``n_i ** from_norm * n_j ** to_norm + shrinkage``, with
        n the number of purchases.
    history_decay
        When a user is scored, each moment further back counts this much of the one after it.
    """

    window: int = 20
    gap_decay: float = 0.9
    together: float = 0.5
    reverse: float = 0.5
    user_norm: float = 0.1
    from_norm: float = 0.5
    to_norm: float = 0.25
    shrinkage: float = 15.0
    history_decay: float = 0.65
