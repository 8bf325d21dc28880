"""What the last search found for each family: ``artifacts/cf/tuning/<type>.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys.errors import InputError
from recsys.models.families import family_of
from recsys.publishing import write_json
from recsys.settings import Settings


@dataclass(frozen=True)
class TunedParameters:
    """`parameters` that were found on `key`, which names data and settings of the search."""

    parameters: dict[str, Any]
    key: dict[str, Any]
    score: float
    trials: int


def read_tuned(settings: Settings, model_type: str) -> TunedParameters | None:
    """None when there are none, or when they cannot be used with the families as they are."""
    path = settings.artifacts / "tuning" / f"{model_type}.json"
    try:
        tuned = TunedParameters(**json.loads(path.read_text(encoding="utf-8")))
        family_of(model_type).create(tuned.parameters)
    except (OSError, ValueError, TypeError, InputError):
        return None
    return tuned


def write_tuned(settings: Settings, model_type: str, tuned: TunedParameters) -> None:
    content: Mapping[str, Any] = {
        "parameters": tuned.parameters,
        "key": tuned.key,
        "score": tuned.score,
        "trials": tuned.trials,
    }
    write_json(settings.artifacts / "tuning" / f"{model_type}.json", content)
