"""Text vectors in the order of a model's products."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys.arrays import Float32Array
from recsys.content.embeddings import current_embeddings
from recsys.settings import Settings


@dataclass(frozen=True)
class ContentVectors:
    """``(items, dimensions)`` vectors, zeros for a product without, and the set they are of."""

    set_id: str
    vectors: Float32Array


def content_vectors(settings: Settings, item_ids: Sequence[str]) -> ContentVectors | None:
    """The current embeddings of `item_ids`, in their order.

    None when there are no embeddings yet, or when they are of other products altogether.
    """
    embeddings = current_embeddings(settings)
    if embeddings is None:
        return None
    found = pd.Index(embeddings.product_ids).get_indexer(pd.Index(item_ids))
    if not (found >= 0).any():
        return None
    vectors = np.zeros((len(item_ids), embeddings.vectors.shape[1]), dtype=np.float32)
    vectors[found >= 0] = embeddings.vectors[found[found >= 0]]
    return ContentVectors(embeddings.set_id, vectors)
