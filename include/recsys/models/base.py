"""What every model family offers, and the arrays they are fitted on.

A model scores *histories*, not user numbers: a customer who bought something a minute ago, or
whom the model has never seen, is scored like anybody else. Users are therefore no part of a
model; the artefact stores the known users' histories beside it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from recsys.arrays import Float32Array, Int32Array, Int64Array

Progress = Callable[[int, dict[str, float]], None]
"""Called after each pass over the data with its number (from 1) and what was measured."""


@dataclass(frozen=True)
class Histories:
    """What users did, oldest first, one run of entries a user (CSR layout).

    Attributes
    ----------
    indptr
        ``(users + 1,)`` int64: entries of user ``u`` are ``indptr[u]:indptr[u + 1]``.
    items
        ``(entries,)`` int32 column numbers of the products.
    confidence
        ``(entries,)`` float32 in [1, 6], see `recsys.schema.CONFIDENCE`.
    weight
        ``(entries,)`` float32 in (0, 1], see `recsys.schema.WEIGHT`.
    times
        ``(entries,)`` int64, seconds since 1970 UTC.
    """

    indptr: Int64Array
    items: Int32Array
    confidence: Float32Array
    weight: Float32Array
    times: Int64Array

    @property
    def users(self) -> int:
        return len(self.indptr) - 1


class Model(Protocol):
    """One model family. Scores of different users are comparable only by their order."""

    model_type: ClassVar[str]

    @classmethod
    def create(cls, parameters: Mapping[str, Any], seed: int = 0) -> Self:
        """An unfitted model; parameters that are not named keep their defaults.

        Raises `recsys.errors.InputError` for a name that the family does not have.
        """

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All parameters as JSON-able values: ``create(model.hyperparameters)`` is the same."""

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        """Learn from `histories` over `items` products; a second call starts afresh."""

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        """``(users, items)`` scores at the time `now` (seconds since 1970), higher is better.

        `now` is one time for all, or ``(users,)`` one for each, as evaluation needs it.
        Seen items are scored like all others: leaving them out is the caller's business.
        """

    def similar(self, item: int) -> Float32Array:
        """``(items,)`` similarity of every product to product `item`."""

    def save(self, folder: Path) -> None:
        """Write the parameters into the existing `folder` as npy, npz and JSON files."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote, memory-mapped. Raises `ArtifactError` if it is not sound."""


@runtime_checkable
class InnerProductModel(Protocol):
    """A model whose score is an inner product, so that an index can find the best items."""

    @property
    def item_vectors(self) -> Float32Array:
        """``(items, factors)``."""

    def query_vectors(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        """``(users, factors)``; ``query @ item_vectors.T`` is `Model.score`."""
