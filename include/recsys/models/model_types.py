"""The model types by name."""

from collections.abc import Mapping
from typing import Any

from recsys.errors import InputError
from recsys.models.als import Als, Trainer
from recsys.models.base import Model
from recsys.models.bpr import Bpr
from recsys.models.hybrid import Hybrid
from recsys.models.item_knn import ItemKnn
from recsys.models.linear import Linear
from recsys.models.popularity import Popularity, RecentPopularity
from recsys.models.self_attention import SelfAttention

MODEL_TYPES: dict[str, type[Model]] = {
    one.model_type: one
    for one in (Als, Bpr, ItemKnn, Linear, SelfAttention, RecentPopularity, Popularity, Hybrid)
}

IMPERSONAL = (RecentPopularity.model_type, Popularity.model_type)
"""Types of which every model gives everybody what is popular."""


def model_class(model_type: str) -> type[Model]:
    """The class of `model_type`. Raises `InputError` for a name that is none of ours."""
    try:
        return MODEL_TYPES[model_type]
    except KeyError:
        raise InputError(
            f"unknown model type {model_type!r}; expected one of {', '.join(sorted(MODEL_TYPES))}"
        ) from None


def ranks_alike(model_id: str) -> bool:
    """Whether the model of this id gives everybody what is popular; an id begins with the type."""
    return model_id.rsplit("_", 2)[0] in IMPERSONAL


def create_model(
    model_type: str, parameters: Mapping[str, Any], seed: int, trainer: Trainer | None = None
) -> Model:
    """An unfitted model; its ALS, if it has one, is trained by `trainer` (None: `implicit`)."""
    model = model_class(model_type).create(parameters, seed)
    if isinstance(model, Als | Hybrid):
        model.trained_by(trainer)
    return model
