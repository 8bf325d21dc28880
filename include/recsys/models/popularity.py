"""The two baselines: what everybody bought, ever and lately."""

from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from recsys.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from recsys.models import storage
from recsys.models.base import Histories, Parameters, ParametrisedModel, Progress
from recsys.models.histories import worth

DAY = 86_400
_LARGEST_EXPONENT = 900.0


class Popularity(ParametrisedModel[Parameters]):
    """Number of interactions over all time, signals by their weight: the documented baseline."""

    model_type = "popularity"
    personal = False

    def __init__(self, parameters: Parameters | None = None, seed: int = 0) -> None:
        super().__init__(parameters, seed)
        self._counts: Float32Array = np.zeros(0, dtype=np.float32)

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        counts = np.bincount(histories.items, weights=worth(histories), minlength=items)
        self._counts = counts.astype(np.float32)
        return self

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        return np.tile(self._counts, (histories.users, 1))

    def similar(self, item: int) -> Float32Array:
        return self._counts.copy()

    def save(self, folder: Path) -> None:
        storage.write_array(folder, "counts", self._counts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls()
        model._counts = storage.read_array(folder, "counts", np.float32, 1)
        return model


class RecentPopularityParameters(Parameters):
    half_life_days: float = Field(default=30.0, gt=0)


class RecentPopularity(ParametrisedModel[RecentPopularityParameters]):
    """Weights of all interactions before the asking time, halved every 30 days. The weight of an
    entry is its copy weight: one review on ten sibling pages does not count ten times. That of a
    signal is the weight of its kind."""

    model_type = "recent_popularity"
    personal = False
    parameters_type = RecentPopularityParameters

    def __init__(self, parameters: RecentPopularityParameters | None = None, seed: int = 0) -> None:
        super().__init__(parameters, seed)
        self._set(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float32), 0)

    def fit(self, histories: Histories, items: int, progress: Progress | None = None) -> Self:
        order = np.argsort(histories.times, kind="stable")
        self._set(histories.items[order], histories.times[order], histories.weight[order], items)
        return self

    def score(self, histories: Histories, now: int | Int64Array) -> Float32Array:
        if np.ndim(now) == 0:
            return np.tile(self.at(int(now)), (histories.users, 1))
        return self._at_each(np.asarray(now, dtype=np.int64))

    def at(self, now: int) -> Float32Array:
        """``(items,)`` popularity at the time `now`, of what happened before it."""
        if self._latest is not None and now > self._latest[0]:
            # Later than everything known: only the scale changes, and the order does not.
            return self._latest[1]
        upto = int(np.searchsorted(self._times, now, side="left"))
        age = (now - self._times[:upto]) / (DAY * self._parameters.half_life_days)
        return np.bincount(
            self._items[:upto], weights=self._weight[:upto] * np.exp2(-age), minlength=self._count
        ).astype(np.float32)

    def similar(self, item: int) -> Float32Array:
        last = int(self._times[-1]) + 1 if len(self._times) else 0
        return self.at(last).copy()

    def save(self, folder: Path) -> None:
        storage.write_array(folder, "items", self._items)
        storage.write_array(folder, "times", self._times)
        storage.write_array(folder, "weight", self._weight)
        storage.write_parameters(folder, {**self.hyperparameters, "items": self._count})

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = storage.read_parameters(folder)
        count = stored.pop("items", None)
        items = storage.read_array(folder, "items", np.int32, 1)
        if not isinstance(count, int) or (len(items) and int(items.max()) >= count):
            raise storage.ArtifactError(f"{folder}: items.npy does not fit the number of products")
        model = cls.create(stored)
        times = storage.read_array(folder, "times", np.int64, 1)
        model._set(items, times, storage.read_array(folder, "weight", np.float32, 1), count)
        return model

    def _set(self, items: Int32Array, times: Int64Array, weight: Float32Array, count: int) -> None:
        self._items, self._times, self._weight, self._count = items, times, weight, count
        self._latest: tuple[int, Float32Array] | None = None
        if len(times):
            last = int(times[-1])
            self._latest = (last, self.at(last + 1))

    def _at_each(self, now: Int64Array) -> Float32Array:
        """``(users, items)``: a running sum over time, read off at each user's moment."""
        order = np.argsort(now, kind="stable")
        half_life = DAY * self._parameters.half_life_days
        start = float(max(now.max(), self._times[-1]) if len(self._times) else now.max())
        # exp2 of the whole span would overflow: what is 900 half-lives old counts nothing.
        growth = np.exp2(np.maximum((self._times - start) / half_life, -_LARGEST_EXPONENT))
        slot = np.searchsorted(now[order], self._times, side="right")
        used = slot < len(now)
        cells = slot[used] * self._count + self._items[used]
        sums: Float64Array = np.bincount(
            cells, weights=(self._weight * growth)[used], minlength=len(now) * self._count
        ).astype(np.float64)
        sums = sums.reshape(len(now), self._count)
        np.cumsum(sums, axis=0, out=sums)
        sums *= np.exp2(np.minimum((start - now[order]) / half_life, _LARGEST_EXPONENT))[:, None]
        scores = np.empty(sums.shape, dtype=np.float32)
        scores[order] = sums
        return scores
