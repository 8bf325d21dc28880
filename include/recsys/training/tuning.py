"""Choosing the parameters of a model type on validation, within a time budget.

What the last search found is kept in ``artifacts/cf/tuning/<type>.json``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import InputError
from recsys.models.hybrid import COMPONENTS, Hybrid
from recsys.models.model_types import model_class
from recsys.models.self_attention import SelfAttention
from recsys.publishing import write_json
from recsys.settings import Settings
from recsys.training.blending import HYBRID_SHARE, JOINING, tune_hybrid
from recsys.training.config import TrainingConfig
from recsys.training.family_tuning import SPACES, tune_alone, tune_passes
from recsys.training.search import Found, Trial
from recsys.training.subject import Subject, objective, sample_of

# A family whose fit takes minutes is searched for so many times as long as the others.
_SLOW = 10


def choose_parameters(
    settings: Settings, config: TrainingConfig, version_id: str, model_type: str, subject: Subject
) -> Found:
    """Tune on validation, from the last result or else the configured parameters.

    A result that was found on the same data with the same settings is taken as it is, so a
    training that is repeated gives the same model."""

    def key_of(name: str) -> dict[str, Any]:
        """What a search depends on: with an equal key there is nothing new to find."""
        texts = subject.content if name == Hybrid.model_type else None
        return {
            "data_version": version_id,
            "embeddings": texts.set_id if texts else None,
            "seed": config.seed,
            "engine": config.engine,
            "tuning": config.tuning.model_dump(),
            "parameters": config.parameters.get(name, {}),
            **({"signals": subject.weights} if subject.weights else {}),
            **({"joining": joining} if name == Hybrid.model_type and joining else {}),
        }

    found = {name: _read_last(settings, name) for name in {model_type, *COMPONENTS}}
    joining: dict[str, Any] = {}
    for name in JOINING:
        key, last = found[name]
        if last and (name in config.model_types or key == key_of(name)):
            joining[name] = last.parameters
    same = {name: last for name, (key, last) in found.items() if last and key == key_of(name)}
    if model_type in same:
        return same[model_type]
    _, last = found[model_type]
    best = tune(
        model_type,
        subject,
        last.parameters if last else config.parameters.get(model_type, {}),
        seconds=config.tuning.seconds * (_SLOW if model_class(model_type).slow else 1),
        trials=config.tuning.trials,
        tuned_components={
            **{name: same[name].parameters for name in same if name in HYBRID_SHARE},
            **joining,
        },
    )
    content = {"parameters": best.parameters, "score": best.score, "trials": best.trials}
    content["tried"] = [one._asdict() for one in best.tried]
    write_json(_file(settings, model_type), {**content, "key": key_of(model_type)})
    return best


def _file(settings: Settings, model_type: str) -> Path:
    return settings.artifacts / "tuning" / f"{model_type}.json"


def _read_last(settings: Settings, model_type: str) -> tuple[Any, Found | None]:
    """The key of the last search and what it found. Nothing when there was none, or when it cannot
    be used with the model types as they are."""
    try:
        stored = json.loads(_file(settings, model_type).read_text(encoding="utf-8"))
        key = stored.pop("key")
        tried = [Trial(**one) for one in stored.pop("tried", ())]
        found = Found(**stored, tried=tried, reused=True)
        model_class(model_type).create(found.parameters)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, InputError):
        return None, None
    return key, found


def tune(
    model_type: str,
    subject: Subject,
    start: Mapping[str, Any],
    *,
    seconds: float,
    trials: int,
    tuned_components: Mapping[str, Mapping[str, Any]] | None = None,
) -> Found:
    """Search from `start`, for at most `seconds` (a trial is never cut off, but for the passes of
    `self_attention`) and `trials`.

    The objective is the mean of recall@10 and NDCG@10 on at most 25,000 validation users. Of a
    hybrid, the components in `tuned_components` are taken as they are; those that are `JOINING` and
    not among them are left out."""
    if model_type == Hybrid.model_type:
        return tune_hybrid(subject, start, tuned_components or {}, seconds, trials)
    if model_type in SPACES:
        return tune_alone(model_type, subject, start, seconds, trials)[0]
    if model_type == SelfAttention.model_type:
        return tune_passes(subject, start, seconds, trials)
    model = subject.fit(model_type, start)
    score = objective(model, sample_of(subject))
    tried = [Trial(model.hyperparameters, score)]
    return Found(model.hyperparameters, score, trials=1, history=[score], tried=tried)
