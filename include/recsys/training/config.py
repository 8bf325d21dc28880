"""``config/training.yaml``."""

from typing import Any

from pydantic import Field, field_validator

from recsys.data.config import Engine
from recsys.models.families import FAMILIES
from recsys.settings import ConfigModel, Settings

CONFIG_NAME = "training.yaml"


class TuningConfig(ConfigModel):
    """How long parameters of a family are searched for: whichever ends first."""

    seconds: float = Field(default=60.0, ge=0)
    trials: int = Field(default=60, ge=1)


class TrainingConfig(ConfigModel):
    """See the comments in the file."""

    model_types: list[str] = Field(min_length=1)
    engine: Engine = Engine.PANDAS
    seed: int = 42
    selection_metric: str = "recall_at_10"
    sample_users: int = Field(default=10, ge=1)
    tuning: TuningConfig = TuningConfig()
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("model_types")
    @classmethod
    def _types_exist(cls, value: list[str]) -> list[str]:
        unknown = sorted(set(value) - set(FAMILIES))
        if unknown:
            raise ValueError(f"unknown types {unknown}; expected some of {sorted(FAMILIES)}")
        return value


def load_training_config(settings: Settings) -> TrainingConfig:
    """Raises `ConfigError` that names the key."""
    return settings.read_config(CONFIG_NAME, TrainingConfig)
