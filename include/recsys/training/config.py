"""``config/training.yaml``."""

from typing import Any, ClassVar

from pydantic import Field, field_validator

from recsys.config import ConfigModel
from recsys.data.config import Engine
from recsys.evaluation import MOST_SLICE_LOSS, RankingMetric
from recsys.models.kinds import SIGNAL_WEIGHTS
from recsys.models.model_types import MODEL_TYPES, model_class
from recsys.schema import Kind


class TuningConfig(ConfigModel):
    """How long parameters of a model type are searched for: whichever ends first."""

    seconds: float = Field(default=30, ge=0)
    trials: int = Field(default=25, ge=1)


class SignalWeights(ConfigModel):
    """What one event of each kind counts beside a five-star review."""

    purchase: float = Field(default=SIGNAL_WEIGHTS[Kind.PURCHASE], ge=0, le=1)
    cart: float = Field(default=SIGNAL_WEIGHTS[Kind.CART], ge=0, le=1)
    click: float = Field(default=SIGNAL_WEIGHTS[Kind.CLICK], ge=0, le=1)
    view: float = Field(default=SIGNAL_WEIGHTS[Kind.VIEW], ge=0, le=1)


class TrainingConfig(ConfigModel):
    """See the comments in the file."""

    FILE = "training.yaml"
    ENTRIES: ClassVar = {
        "parameters": {
            "als": {"factors": 16, "regularization": 10.0, "fold_in_decay": 0.8},
            "hybrid": {
                "weights": {"item_knn": 1.0, "als": 0.5, "recent_popularity": 1.0, "content": 0.2}
            },
        }
    }

    model_types: list[str] = Field(
        default=["item_knn", "linear", "als", "bpr", "recent_popularity", "hybrid"], min_length=1
    )
    engine: Engine = Engine.PANDAS
    seed: int = 42
    selection_metric: RankingMetric = "recall_at_10"
    most_slice_loss: float = Field(default=MOST_SLICE_LOSS, ge=0, le=1)
    tuning: TuningConfig = TuningConfig()
    signals: SignalWeights = SignalWeights()
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("model_types")
    @classmethod
    def _types_exist(cls, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - set(MODEL_TYPES))
        if unknown:
            raise ValueError(f"unknown types {unknown}; expected some of {sorted(MODEL_TYPES)}")
        return value

    @field_validator("parameters")
    @classmethod
    def _parameters_exist(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for model_type, parameters in value.items():
            model_class(model_type).create(parameters)
        return value
