"""What every model type offers, its parameters, and the arrays that it is fitted on.

A model scores *histories*, not user numbers: a customer who bought something a minute ago, or
whom the model has never seen, is scored like anybody else. Users are therefore no part of a
model; the artefact stores the known users' histories beside it."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from pydantic import BaseModel, ValidationError, field_validator

from recsys.arrays import Float32Array, Int8Array, Int32Array, Int64Array
from recsys.config import ConfigModel, said_of
from recsys.errors import InputError

Progress = Callable[[int, dict[str, float]], None]
"""Called after each pass over the data with its number (from 1) and what was measured."""


class Parameters(ConfigModel):
    """What can be chosen of a model type: numbers with their defaults."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_number(cls, value: Any) -> Any:
        # A quoted number or a yes is a slip of who wrote the file, and pydantic would take it.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("expected a number")
        return value


KindT = TypeVar("KindT", bound=ConfigModel)


def parse_parameters(model_type: str, kind: type[KindT], values: Mapping[str, Any]) -> KindT:
    """`values` as a `kind`, as a file or a search says them. Raises `InputError` that names an
    unknown parameter, or one with a bad value."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        sentences = [_sentence(kind, problem) for problem in error.errors()]
        raise InputError("\n".join(f"{model_type}: {each}" for each in sentences)) from None


def _sentence(kind: type[BaseModel], problem: Any) -> str:
    *path, name = problem["loc"] or ("",)
    if problem["type"] != "extra_forbidden":
        where = ".".join(str(part) for part in problem["loc"])
        said = said_of(problem)
        return f"{where}: {said} (got {problem['input']!r})" if where else said
    for part in path:
        kind = kind.model_fields[part].annotation  # type: ignore[assignment]
    where = "".join(f"{part}: " for part in path)
    return f"{where}unknown parameter {name!r}; expected one of {', '.join(kind.model_fields)}"


@dataclass(frozen=True)
class Histories:
    """What users did, oldest first, one run of entries a user (CSR layout)."""

    indptr: Int64Array  # (users + 1,): entries of user u are indptr[u]:indptr[u + 1]
    items: Int32Array  # (entries,) column numbers of the products
    confidence: Float32Array  # (entries,) in [1, 6]; 0 for what was seen and not liked
    weight: Float32Array  # (entries,) in [0, 1]: `recsys.schema.WEIGHT`, or that of a signal's kind
    times: Int64Array  # (entries,) seconds since 1970 UTC
    kinds: Int8Array = None  # type: ignore[assignment]
    """(entries,) what each was, as codes of `recsys.models.kinds`; ratings where it is not given"""

    def __post_init__(self) -> None:
        if self.kinds is None:
            ratings = np.broadcast_to(np.int8(0), len(self.items))  # takes no memory
            object.__setattr__(self, "kinds", ratings)

    @property
    def users(self) -> int:
        return len(self.indptr) - 1


class Model(Protocol):
    """One model type. Scores of different users are comparable only by their order."""

    model_type: ClassVar[str]
    slow: ClassVar[bool]
    """Whether a fit takes minutes: trainings keep such fits, and give `fit` a ``checkpoint``, a
    folder that it may write into and resume from."""

    @property
    def personal(self) -> bool:
        """Whether different users get different scores."""

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        """An unfitted model; parameters that are not named keep their defaults. Raises
        `recsys.errors.InputError` for a name that the model type does not have."""

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All parameters as JSON-able values: ``create(model.hyperparameters)`` is the same."""

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        """Learn from `histories` over `items` products; a second call starts afresh."""

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        """``(users, items)`` scores at the time `now` (seconds since 1970), higher is better.

        `now` is one time for all, or ``(users,)`` one for each, as evaluation needs it.
        Seen items are scored like all others: leaving them out is the caller's business."""

    def similar(self, item: int) -> Float32Array:
        """``(items,)`` similarity of every product to product `item`."""

    def save(self, folder: Path) -> None:
        """Write the parameters into the existing `folder` as npy, npz and JSON files."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote, memory-mapped. Raises `ArtifactError` if it is not sound."""


ParametersT = TypeVar("ParametersT", bound=Parameters)


class ParametrisedModel(Generic[ParametersT]):
    """What every `Model` with `Parameters` does alike."""

    model_type: ClassVar[str]
    slow: ClassVar[bool] = False
    parameters_type: ClassVar[type[Parameters]] = Parameters
    personal: ClassVar[bool] = True
    score_parameters: ClassVar[tuple[str, ...]] = ()
    """What training does not read: with other values of these a fitted model stays fitted."""

    def __init__(self, parameters: ParametersT | None = None, seed: int = 0) -> None:
        self._parameters: Any = parameters or self.parameters_type()
        self._seed = seed

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        return cls(parse_parameters(cls.model_type, cls.parameters_type, parameters), seed)  # type: ignore[arg-type]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        return self._parameters.model_dump()

    def asked_with(self, changes: Mapping[str, Any]) -> Self:
        """This fitted model with other `score_parameters`; the two share their arrays."""
        changed = copy.copy(self)
        changed._parameters = self._parameters.model_copy(update=dict(changes))
        return changed


@runtime_checkable
class InnerProductModel(Protocol):
    """A model whose score is an inner product, so that an index can find the best items."""

    @property
    def item_vectors(self) -> Float32Array:
        """``(items, factors)``."""

    def query_vectors(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        """``(users, factors)``; ``query @ item_vectors.T`` is `Model.score`."""


@runtime_checkable
class RememberingModel(Protocol):
    """A model that reads a history slowly, and may be told what it read before."""

    def slow_queries(self, histories: Histories) -> Float32Array | None:
        """``(users, factors)`` what takes long of `Model.score`, at whatever time; None where
        nothing does."""

    def remember(self, histories: Histories, queries: Float32Array) -> None:
        """Take `queries` for `slow_queries` of `histories`. Raises `InputError` if the shape is
        another one."""


@runtime_checkable
class BlendedModel(Protocol):
    """A model whose scores are sums of parts, which can be told apart by their names."""

    def parts(self, histories: Histories, now: int | Int64Array) -> dict[str, Float32Array]:
        """``(users, items)`` what each part adds to `Model.score`."""

    def parts_of_similar(self, item: int) -> dict[str, Float32Array]:
        """``(items,)`` what each part adds to `Model.similar`."""
