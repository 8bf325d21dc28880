"""An approximate index over the item vectors of a very large catalogue.

Looking at a million products for each request takes a core for 75 ms. For models whose score is
an inner product, an HNSW graph (usearch) finds nearly the same products in a small part of that.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from recsys.models.base import FloatArray, Histories, InnerProductModel
from recsys.publishing import atomic_path
from serving.ranking import Ranked, top_items
from serving.recommending import Wanted
from serving.snapshot import Catalogue

logger = logging.getLogger(__name__)

_CONNECTIVITY = 32
_EXPANSION_ADD = 64
_EXPANSION_SEARCH = 512
_LOCK_SECONDS = 3600


class NearestItems:
    """The index of one model, in a file that all workers map."""

    def __init__(self, model: InnerProductModel, path: Path) -> None:
        self._model = model
        self._vectors = model.item_vectors
        # One worker builds, the others wait and map what it wrote.
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            if not path.exists():
                _build(self._vectors, path)
        self._index = _empty(self._vectors.shape[1])
        self._index.view(str(path))
        self._index.expansion_search = _EXPANSION_SEARCH

    def recommend(
        self, catalogue: Catalogue, history: Histories, wanted: Wanted, now: int
    ) -> Ranked | None:
        """The list for one user; None when too little is left after filtering, so that somebody
        has to look at all products."""
        query = self._model.query_vectors(history, now)[0]
        if not query.any():
            return None
        take = min(4 * wanted.topk + 2 * len(history.items) + 16, len(self._vectors))
        found = np.asarray(self._index.search(query, take).keys, dtype=np.int64)
        excluded = wanted.excluded
        if wanted.exclude_seen:
            excluded = np.concatenate([excluded, history.items])
        allowed = wanted.allowed[found] & ~np.isin(found, excluded)
        scores = self._vectors[found] @ query
        nothing = np.zeros(0, dtype=np.int32)
        best = top_items(scores, allowed, nothing, catalogue.families[found], wanted.topk)
        if len(best.items) < wanted.topk:
            return None
        return Ranked(found[best.items].tolist(), best.scores)


def _build(vectors: FloatArray, path: Path) -> None:
    logger.info("Building an index | items=%d, file=%s", len(vectors), path)
    index = _empty(vectors.shape[1])
    index.add(np.arange(len(vectors)), np.asarray(vectors))
    with atomic_path(path) as temporary:
        index.save(str(temporary))


def _empty(dimensions: int) -> Any:
    from usearch.index import Index

    return Index(
        ndim=dimensions,
        metric="ip",
        dtype="f16",
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION_ADD,
        expansion_search=_EXPANSION_SEARCH,
    )
