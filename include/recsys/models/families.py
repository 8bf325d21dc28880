"""The model families by name."""

from collections.abc import Mapping
from typing import Any

from recsys.errors import InputError
from recsys.models.als import Als, Trainer
from recsys.models.base import Model
from recsys.models.bpr import Bpr
from recsys.models.hybrid import Hybrid
from recsys.models.item_knn import ItemKnn
from recsys.models.popularity import Popularity, RecentPopularity

FAMILIES: dict[str, type[Model]] = {
    family.model_type: family
    for family in (Als, Bpr, ItemKnn, RecentPopularity, Popularity, Hybrid)
}


def family_of(model_type: str) -> type[Model]:
    """The class of `model_type`. Raises `InputError` for a name that is none of ours."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise InputError(
            f"unknown model type {model_type!r}; expected one of {', '.join(sorted(FAMILIES))}"
        ) from None


def create_model(
    model_type: str, parameters: Mapping[str, Any], seed: int, trainer: Trainer | None = None
) -> Model:
    """An unfitted model; its ALS, if it has one, is trained by `trainer` (None: `implicit`)."""
    model = family_of(model_type).create(parameters, seed)
    if isinstance(model, Als | Hybrid):
        model.trained_by(trainer)
    return model
