"""An approximate index over the item vectors of a very large catalogue.

Looking at a million products for each request takes a core for 50 ms. For models whose score is an
inner product, faiss holds each vector in 4 bits for every two numbers, looks at all of these in a
fraction of the time, and the best thousand are scored exactly.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from recsys.arrays import Float32Array
from recsys.models.base import Histories, InnerProductModel
from recsys.models.storage import ArtifactError
from recsys.publishing import atomic_path
from serving.catalogue import Catalogue
from serving.ranking import Ranked, Wanted, top_items

logger = logging.getLogger(__name__)

_BITS = 4  # what faiss can look up in the processor's registers
_TRAINING_VECTORS = 50_000  # also how many are added at a time
_SCORED_EXACTLY = 1_000
_LOCK_SECONDS = 3600


class NearestItems:
    """The index of one model, kept in a file for all workers: 32 MB for a million products."""

    def __init__(self, model: InnerProductModel, path: Path) -> None:
        self._model = model
        self._vectors = model.item_vectors
        # One worker builds, the others wait and read what it wrote.
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            if not path.exists():
                _build(self._vectors, path)
        self._index = _read(path)

    def recommend(
        self, catalogue: Catalogue, history: Histories, wanted: Wanted, now: int
    ) -> Ranked | None:
        """The list for one user; None when too little is left after filtering, so that somebody
        has to look at all products."""
        query = self._model.query_vectors(history, now)[0]
        if not query.any():
            return None
        excluded = wanted.excluded
        if wanted.exclude_seen:
            excluded = np.concatenate([excluded, catalogue.listings(history.items)[0]])
        take = max(_SCORED_EXACTLY, 4 * wanted.topk + 2 * len(excluded))
        take = min(take, len(self._vectors))
        found = self._index.search(_even(query[None]), take)[1][0]
        found = found[found >= 0]
        allowed = wanted.allowed[found] & ~np.isin(found, excluded)
        scores = self._vectors[found] @ query
        nothing = np.zeros(0, dtype=np.int32)
        best = top_items(scores, allowed, nothing, catalogue.families[found], wanted.topk)
        if len(best.items) < wanted.topk:
            return None
        return Ranked(found[best.items].tolist(), best.scores)


def _build(vectors: Float32Array, path: Path) -> None:
    import faiss

    logger.info("Building an index | items=%d, file=%s", len(vectors), path)
    # Requests are answered meanwhile: more threads would take their core.
    faiss.omp_set_num_threads(1)
    dimensions = _even(vectors[:1]).shape[1]
    index = faiss.IndexPQFastScan(dimensions, dimensions // 2, _BITS, faiss.METRIC_INNER_PRODUCT)
    chosen = np.linspace(0, len(vectors) - 1, min(len(vectors), _TRAINING_VECTORS)).astype(int)
    index.train(_even(vectors[chosen]))
    for start in range(0, len(vectors), _TRAINING_VECTORS):
        index.add(_even(vectors[start : start + _TRAINING_VECTORS]))
    with atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))


def _read(path: Path) -> Any:
    import faiss

    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        path.unlink(missing_ok=True)
        raise ArtifactError(
            f"{path}: the index cannot be read; it was removed and is built at the next try"
        ) from error


def _even(vectors: Float32Array) -> Float32Array:
    """`vectors` with a column of zeros if the number of columns is odd."""
    return np.pad(vectors, ((0, 0), (0, vectors.shape[1] % 2)))
