"""Hyperparameters of a family: a frozen dataclass, made from what a file or a search says."""

import dataclasses
from collections.abc import Mapping
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
