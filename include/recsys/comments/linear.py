"""The default sentiment scorer: a linear model over n-grams, cross-fitted and calibrated.

The scorer holds one model a fold. A text it was trained on is scored by the one model that
never saw it; any other text by the mean of all, none of which saw it either."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit

from recsys.arrays import AnyArray, BoolArray, Float32Array, Float64Array, Int64Array, UInt64Array
from recsys.comments import ngrams
from recsys.errors import InputError
from recsys.publishing import atomic_folder
from recsys.storage.bundle import Bundle, write_manifest

_MODEL_FILE = "model.npz"
_ARRAYS = {
    "columns": np.int32,  # n-grams with a weight, ascending
    "idf": np.float32,  # columns
    "weights": np.float32,  # columns x folds
    "intercepts": np.float64,  # folds
    "calibration": np.float64,  # slope, offset of the log-odds
    "keys": np.uint64,  # texts of the training data, ascending
    "folds": np.int8,  # the fold whose model did not see the key
    "positive": np.bool_,  # the key's label
}


@dataclass(frozen=True)
class NgramScorer:
    """Scores texts by the shop's own stars: the probability that the author gave 4 or more.

    Equal versions give equal scores. It has seen nothing written at `as_of` or later. `metrics`,
    JSON-able, say how good it was on texts it had not seen; `arrays` are those of `_ARRAYS`."""

    kind: ClassVar[str] = "ngrams"

    version: str
    as_of: datetime
    metrics: dict[str, Any]
    arrays: dict[str, AnyArray]

    def score(self, texts: pd.Series, keys: UInt64Array) -> Float32Array:
        """Sentiment in [0, 1] of each text. `keys`: the texts' `TextFeatures.key`."""
        idf, weights = self._dense("idf"), self._dense("weights")

        def decide(counts: sparse.csr_matrix) -> Float64Array:
            return weigh(counts, idf) @ weights + self.arrays["intercepts"]

        fold = self._folds(keys)
        scores = np.empty(len(texts), dtype=np.float32)
        for rows, decisions in ngrams.in_counts(texts, decide):
            scores[rows] = self._calibrated(decisions, fold[rows])
        return scores

    def _dense(self, name: str) -> Float32Array:
        values = self.arrays[name]
        dense = np.zeros((ngrams.WIDTH, *values.shape[1:]), dtype=np.float32)
        dense[self.arrays["columns"]] = values
        return dense

    def _folds(self, keys: UInt64Array) -> Int64Array:
        """The fold that may score each key; -1: all of them."""
        known = self.arrays["keys"]
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.where(known[at] == keys, self.arrays["folds"][at], -1).astype(np.int64)

    def _calibrated(self, decisions: Float64Array, fold: Int64Array) -> Float64Array:
        slope, offset = self.arrays["calibration"]
        unseen = np.take_along_axis(decisions, np.maximum(fold, 0)[:, None], axis=1)[:, 0]
        return expit(slope * np.where(fold >= 0, unseen, decisions.mean(axis=1)) + offset)


def weigh(counts: sparse.csr_matrix, idf: Float32Array) -> sparse.csr_matrix:
    """Dampened counts times `idf`, each block of a row scaled to length 1."""
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    data = (1.0 + np.log(counts.data)) * idf[counts.indices]
    cell = rows * ngrams.BLOCKS + counts.indices // ngrams.BUCKETS
    squares = np.bincount(cell, weights=data * data, minlength=counts.shape[0] * ngrams.BLOCKS)
    lengths = np.sqrt(np.where(squares > 0, squares, 1.0)).astype(np.float32)
    return sparse.csr_matrix((data / lengths[cell], counts.indices, counts.indptr), counts.shape)


def labelled(keys: UInt64Array, positive: BoolArray) -> UInt64Array:
    """One number for each pair of a text and its label, ascending, for comparing data sets."""
    return np.sort((keys & ~np.uint64(1)) | positive.astype(np.uint64))


def version_of(as_of: datetime, arrays: dict[str, AnyArray]) -> str:
    """A name for a scorer that says when it was trained and changes with its content."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return f"{NgramScorer.kind}-{as_of:%Y%m%d}-{digest.hexdigest()[:12]}"


def save_scorer(scorer: NgramScorer, folder: Path) -> None:
    """Publish `scorer` as ``<folder>/<version>``; nothing happens if it is there already."""
    target = folder / scorer.version
    if target.exists():
        return
    with atomic_folder(target) as temporary:
        np.savez_compressed(temporary / _MODEL_FILE, **cast(Any, scorer.arrays))
        facts = {"version": scorer.version, "kind": scorer.kind, "metrics": scorer.metrics}
        write_manifest(temporary, {**facts, "as_of": scorer.as_of.isoformat()})


class ScorerFolder(Bundle):
    """The folder of a published scorer, pinned."""

    error = InputError

    @property
    def as_of(self) -> datetime:
        """When it was trained. Raises `InputError` if the manifest does not say."""
        try:
            return datetime.fromisoformat(self.manifest["as_of"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.path}: its manifest has no as_of, or no time there") from error

    def load(self) -> NgramScorer:
        """The scorer. Raises `InputError` if a file is not what was published, or an array is
        missing or of another type than it must be."""
        try:
            self.verify()
        except InputError as error:
            advice = f"remove {self.path}, the next full refresh trains a new scorer"
            raise InputError(f"{error}: changed since it was written; {advice}") from error
        with np.load(self.path / _MODEL_FILE, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _ARRAYS if name in stored}
        kinds = {name: array.dtype for name, array in arrays.items()}
        if wrong := [name for name, kind in _ARRAYS.items() if kinds.get(name) != kind]:
            raise InputError(f"{self.path}: arrays missing or of a wrong type: {', '.join(wrong)}")
        version, metrics = self.manifest["version"], self.manifest["metrics"]
        return NgramScorer(version, self.as_of, metrics, arrays)
