"""A sequence model: what a customer asks for next, by attention over what they did before.

The transformer of SASRec, with positions that are distances. It is trained by
`recsys.models.self_attention_training`, with torch, which is imported there alone; NumPy scores."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Int32Array, Int64Array
from recsys.errors import InputError
from recsys.models import storage
from recsys.models.attention_layers import (
    OUTER_NORMS,
    WIDENING,
    SelfAttentionParameters,
    Weights,
    latest_entries,
    readable,
    seen_at,
    shapes_of,
)
from recsys.models.base import Histories, ParametrisedModel, Progress
from recsys.models.histories import steps_from_end, strength, take_users
from recsys.models.known_queries import KnownQueries

_EPSILON = np.float32(1e-5)
_CELLS_AT_ONCE = 1 << 21
"""Largest number of cells of a temporary array: 8 MB."""
_GELU = np.float32(math.sqrt(2 / math.pi))


class SelfAttention(ParametrisedModel[SelfAttentionParameters]):
    """Causal self-attention over the latest entries of a history; an inner-product model.

    An entry sees what is no later than itself: entries of one time are one moment, and see each
    other. How strong an entry is says how much it is looked at; what was disliked is not there. The
    position of an entry is how many moments ago it was for the one that looks, so that what is
    learned of each prefix of a history needs one pass over the history, and not one a prefix.

    Who has no history is answered by what was bought most: the last column of the vectors."""

    model_type = "self_attention"
    parameters_type = SelfAttentionParameters
    slow = True
    """A fit takes minutes: what was fitted is kept, and `fit` goes on from a checkpoint."""

    def __init__(self, parameters: SelfAttentionParameters | None = None, seed: int = 0) -> None:
        super().__init__(parameters, seed)
        self._known: KnownQueries | None = None
        wide = self._parameters.dimensions
        self._set(np.zeros((0, wide + 1), dtype=np.float32), self._untrained())

    @property
    def item_vectors(self) -> Float32Array:
        return self._items

    def fit(
        self,
        histories: Histories,
        items: int,
        progress: Progress | None = None,
        *,
        checkpoint: Path | None = None,
    ) -> Self:
        """As `Model.fit`. In the folder `checkpoint` the training leaves how far it is, and goes on
        from there if it was ended in the middle; the result is the same. The caller removes it.

        Raises `InputError` if torch does not import, or if the first pass already ends in no
        finite loss; with a later one the passes before it are what is learned."""
        for number, measured in enumerate(self.passes(histories, items, checkpoint), start=1):
            if progress is not None:
                progress(number, measured)
        return self

    def passes(
        self, histories: Histories, items: int, checkpoint: Path | None = None
    ) -> Iterator[dict[str, float]]:
        """`fit` pass by pass: yields what each measured, when the model is as good as that. Whoever
        stops asking has a model of fewer passes."""
        entries = readable(histories)
        counts = np.bincount(entries.items, weights=strength(entries), minlength=items)
        popularity = np.log1p(counts).astype(np.float32)[:, None]
        nothing = np.zeros((items, self._parameters.dimensions), dtype=np.float32)
        self._set(np.hstack([nothing, popularity]), self._untrained())
        from recsys.models.self_attention_training import train

        for measured, vectors, weights in train(
            entries, items, self._parameters, self._seed, checkpoint
        ):
            self._set(np.hstack([vectors, popularity]), weights)
            yield measured

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        return self.query_vectors(histories, now) @ self._items.T

    def query_vectors(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        if self._known is None:
            return self.slow_queries(histories)
        rows = self._known.rows(histories)
        queries = self._known.queries[rows]
        others = np.flatnonzero(rows < 0)
        if len(others):
            queries[others] = self.slow_queries(take_users(histories, others))
        return queries

    def remember(self, histories: Histories, queries: Float32Array) -> None:
        expected = (histories.users, self._items.shape[1])
        if queries.shape != expected:
            raise InputError(f"queries of {self.model_type}: {queries.shape}, expected {expected}")
        self._known = KnownQueries(histories, queries)

    def slow_queries(self, histories: Histories) -> Float32Array:
        latest = latest_entries(readable(histories), self._parameters.length)
        lengths = np.diff(latest.indptr)
        queries = np.zeros((histories.users, self._items.shape[1]), dtype=np.float32)
        queries[:, -1] = (lengths == 0) | (not self._learned)
        if not self._learned:
            return queries
        strengths, steps = strength(latest), steps_from_end(latest)
        for length in np.unique(lengths[lengths > 0]).tolist():
            group = np.flatnonzero(lengths == length)
            at_once = max(1, _CELLS_AT_ONCE // (length * self._cells_an_entry(length)))
            for first in range(0, len(group), at_once):
                users = group[first : first + at_once]
                entry = latest.indptr[users][:, None] + np.arange(length)
                seen, distance = seen_at(latest.times[entry], steps[entry], self._parameters.length)
                read = (latest.items[entry], strengths[entry], seen, distance)
                queries[users, :-1] = self._read(*read)
        return queries

    def similar(self, item: int) -> Float32Array:
        vectors = self._items[:, :-1]
        products = vectors @ vectors[item]
        lengths = self._norms * self._norms[item]
        return np.asarray(products / np.maximum(lengths, np.float32(1e-12)), dtype=np.float32)

    def save(self, folder: Path) -> None:
        storage.write_array(folder, "item_vectors", self._items)
        for name, array in self._weights.items():
            storage.write_array(folder, name, array)
        storage.write_parameters(folder, self.hyperparameters)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls.create(storage.read_parameters(folder))
        chosen = model._parameters
        items = storage.read_array(folder, "item_vectors", np.float32, 2)
        weights = {
            name: storage.read_array(folder, name, np.float32, len(shape))
            for name, shape in shapes_of(chosen).items()
        }
        expected = {"item_vectors": (len(items), chosen.dimensions + 1), **shapes_of(chosen)}
        for name, array in {"item_vectors": items, **weights}.items():
            if array.shape != expected[name]:
                problem = f"is {array.shape}, the parameters say {expected[name]}"
                raise storage.ArtifactError(f"{folder}: {name}.npy {problem}")
        model._set(items, weights)
        return model

    def _untrained(self) -> Weights:
        shapes = shapes_of(self._parameters).items()
        return {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes}

    def _set(self, items: Float32Array, weights: Weights) -> None:
        self._items, self._weights = items, weights
        self._known = None
        self._norms = np.linalg.norm(items[:, :-1], axis=1)
        self._learned = bool(self._norms.any())
        self._of_layers = [name for name in weights if name not in OUTER_NORMS]

    def _cells_an_entry(self, length: int) -> int:
        chosen = self._parameters
        seen = chosen.heads * max(length, chosen.length)
        return max(seen, (1 + WIDENING) * chosen.dimensions)

    def _read(
        self, items: Int32Array, strengths: Float32Array, seen: BoolArray, distance: Int64Array
    ) -> Float32Array:
        """``(users, dimensions)`` what users of ``(users, length)`` `items` ask for. ``seen[u, i,
        j]`` says whether entry `i` of user `u` sees entry `j`, which is ``distance[u, i, j]``
        moments before it."""
        inputs = _even(self._items[items, :-1], self._weights["first_norm"])
        inputs *= np.minimum(strengths, 1)[:, :, None]
        looked_at = np.where(seen, np.log(strengths)[:, None, :], np.float32(-np.inf))[:, None]
        last = self._parameters.layers - 1
        for layer in range(last + 1):
            weights = {name: self._weights[name][layer] for name in self._of_layers}
            # Of the last layer nothing but the answer of the latest entry is asked for.
            asking = slice(-1, None) if layer == last else slice(None)
            inputs = self._attend(
                weights, inputs, asking, looked_at[:, :, asking], distance[:, None, asking]
            )
            wide = _even(inputs, weights["hidden_norm"]) @ weights["up"] + weights["up_bias"]
            inputs = inputs + _gelu(wide) @ weights["down"] + weights["down_bias"]
        return _even(inputs[:, -1], self._weights["last_norm"])

    def _attend(
        self,
        weights: Weights,
        inputs: Float32Array,
        asking: slice,
        looked_at: Float32Array,
        distance: Int64Array,
    ) -> Float32Array:
        """``(users, asking, dimensions)`` of the entries `asking` with what they look at."""
        users, length, wide = inputs.shape
        heads = self._parameters.heads
        each = wide // heads
        even = _even(inputs, weights["attention_norm"])
        projected = even @ weights["projection"] + weights["projection_bias"]
        parts = projected.reshape(users, length, 3, heads, each).transpose(2, 0, 3, 1, 4)
        query, key, value = parts[0][:, :, asking], parts[1], parts[2]
        by_distance = query @ weights["distance_keys"].T
        by_distance /= np.float32(math.sqrt(each))
        by_distance += weights["distance_bias"][:, None, :]
        shape = (users, heads, query.shape[2])
        distance = np.broadcast_to(distance, (*shape, length))
        looks: Float32Array = query @ key.transpose(0, 1, 3, 2)
        looks /= np.float32(math.sqrt(each))
        looks += np.take_along_axis(by_distance, distance, axis=-1)
        looks += looked_at
        looks -= looks.max(axis=-1, keepdims=True)
        np.exp(looks, out=looks)
        looks /= looks.sum(axis=-1, keepdims=True)
        # How much is looked at from each distance, whatever lies there.
        far = self._parameters.length
        place = np.arange(distance.size // length)[:, None] * far + distance.reshape(-1, length)
        sums = np.bincount(place.ravel(), looks.ravel(), minlength=len(place) * far)
        from_distance = sums.astype(np.float32).reshape(*shape, far)
        found = looks @ value + from_distance @ weights["distance_values"]
        found = found.transpose(0, 2, 1, 3).reshape(users, -1, wide)
        return inputs[:, asking] + found @ weights["output"] + weights["output_bias"]


def _even(values: Float32Array, norm: Float32Array) -> Float32Array:
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = np.einsum("...d,...d->...", centred, centred)[..., None] / values.shape[-1]
    return centred / np.sqrt(spread + _EPSILON) * norm[0] + norm[1]


def _gelu(values: Float32Array) -> Float32Array:
    cubic = values * values * values * np.float32(0.044715)
    return np.float32(0.5) * values * (1 + np.tanh(_GELU * (values + cubic)))
