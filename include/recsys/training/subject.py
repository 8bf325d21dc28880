"""What a model is trained on: data, text vectors, and how it is fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recsys.arrays import Float32Array
from recsys.content.embeddings import current_embeddings
from recsys.evaluation.ranking import HeldOut
from recsys.models.als import Trainer
from recsys.models.base import Histories, Model, Progress
from recsys.models.hybrid import Hybrid
from recsys.models.model_types import create_model
from recsys.settings import Settings


@dataclass(frozen=True)
class ContentVectors:
    """``(items, dimensions)`` vectors, zeros for a product without, and the set they are of."""

    set_id: str
    vectors: Float32Array


@dataclass(frozen=True)
class Subject:
    """A shop as trainings see it: parameters are chosen by fits on `training` that answer
    `validation`.

    Attributes
    ----------
    items
        Number of products.
    content
        Text vectors, for the model type that uses them.
    trainer
        What trains ALS; None is `implicit`.
    """

    training: Histories
    validation: HeldOut
    items: int
    seed: int
    content: ContentVectors | None = None
    trainer: Trainer | None = None

    def fit(
        self,
        model_type: str,
        parameters: Mapping[str, Any],
        histories: Histories | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """A new model with `parameters`, fitted on `histories`, or else on `training`."""
        model = create_model(model_type, parameters, self.seed, self.trainer)
        if isinstance(model, Hybrid) and self.content is not None:
            model.use_content(self.content.vectors)
        return model.fit(histories or self.training, self.items, progress)


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
