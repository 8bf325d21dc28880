"""What one event of each kind weighs, and what each kind added to a model.

The weights belong to the shop and not to a model type: they are chosen once a data version, with
the type that is fitted soonest, and kept in ``artifacts/cf/tuning/signals.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys.evaluation.leave_one_out import LeaveOneOut
from recsys.evaluation.metrics import PerUser, metrics_per_user, resampled_means
from recsys.evaluation.ranking import rank_targets
from recsys.models.item_knn import ItemKnn
from recsys.models.kinds import SIGNAL_WEIGHTS, weight_of_codes
from recsys.publishing import write_json
from recsys.schema import Kind
from recsys.settings import Settings
from recsys.training.config import TrainingConfig
from recsys.training.family_tuning import LONG_MEMORY, SPACES
from recsys.training.search import Point, Range, search
from recsys.training.subject import Subject, objective, sample_of

FILE = "signals.json"
LEAST_EVENTS = 1000
"""Of a kind with fewer events in training the configured weight is kept: what is found among few is
chance. `benchmarks/quality/signals.py`: .04 to 1 for 300 clicks of one shop, .66 to 1 for 1,000."""
SHARE = 0.25
"""Of the seconds for a model type, so many are for the weights."""

_RANGE = Range(0.01, 1, log=True)
_MEMORY = "history_decay"
_ADDED = ("recall_at_10", "ndcg_at_10")


@dataclass(frozen=True)
class Weights:
    """What one event of each kind weighs, and which of these were searched for."""

    weights: dict[str, float]
    tuned: list[str]
    trials: int = 0
    reused: bool = False  # an earlier training on the same data found them

    def rest_of(self, config: TrainingConfig) -> TrainingConfig:
        """`config` with the seconds that are left for parameters. They do not depend on how long
        the search took, nor on which training made it."""
        left = (1 - SHARE) * config.tuning.seconds if self.tuned else config.tuning.seconds
        tuning = config.tuning.model_copy(update={"seconds": left})
        return config.model_copy(update={"tuning": tuning})


def choose_weights(
    settings: Settings, config: TrainingConfig, version_id: str, data: LeaveOneOut
) -> Weights:
    """The configured weights, searched from there for kinds with enough events in `data`. What was
    found on the same data with the same settings is taken as it is."""
    configured = config.signals.model_dump()
    enough = [kind for kind in SIGNAL_WEIGHTS if data.events.get(kind, 0) >= LEAST_EVENTS]
    if not enough:
        return Weights(configured, [])
    key = {
        "data_version": version_id,
        "seed": config.seed,
        "tuning": config.tuning.model_dump(),
        "parameters": config.parameters.get(ItemKnn.model_type, {}),
        "signals": configured,
        "kinds": enough,
    }
    path = settings.artifacts / "tuning" / FILE
    if (last := _read_last(path, key)) is not None:
        return last
    found = _search(config, data, configured, enough)
    content = {"weights": found.weights, "tuned": found.tuned, "trials": found.trials}
    write_json(path, {**content, "key": key})
    return found


def _read_last(path: Path, key: Mapping[str, Any]) -> Weights | None:
    """What a search with this `key` found, None if there was none or it cannot be used."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        same = stored.pop("key") == key
        return Weights(**stored, reused=True) if same else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _search(
    config: TrainingConfig, data: LeaveOneOut, configured: dict[str, float], kinds: list[Kind]
) -> Weights:
    configured_model = config.parameters.get(ItemKnn.model_type, {})
    parameters = ItemKnn.create(configured_model).hyperparameters

    def score(point: Point) -> float:
        subject = _subject(data.weighed(weight_of_codes(point)), config)
        model = subject.fit(ItemKnn.model_type, {**parameters, _MEMORY: point[_MEMORY]})
        return objective(model, sample_of(subject))

    usual = {**configured, _MEMORY: parameters[_MEMORY]}
    # Where looking says nothing, it is best to hear nothing of it.
    quiet = {kind.value: _RANGE.low for kind in kinds if kind is not Kind.PURCHASE}
    # Weighed at a memory so short that signals only drive ratings out, all would seem worthless.
    space = {kind.value: _RANGE for kind in kinds}
    found = search(
        score,
        {**space, _MEMORY: SPACES[ItemKnn.model_type][_MEMORY]},
        [usual, {**usual, **LONG_MEMORY[ItemKnn.model_type]}, {**usual, **quiet}],
        seconds=SHARE * config.tuning.seconds,
        trials=config.tuning.trials,
        seed=config.seed,
    )
    weights = {kind: found.parameters[kind] for kind in configured}
    return Weights(weights, [kind.value for kind in kinds], found.trials)


def _subject(data: LeaveOneOut, config: TrainingConfig) -> Subject:
    return Subject(data.training, data.validation, len(data.item_ids), config.seed)


def report_on_signals(
    model_type: str,
    parameters: Mapping[str, Any],
    subject: Subject,
    data: LeaveOneOut,
    chosen: Weights,
) -> dict[str, Any]:
    """The `chosen` weights, and what each kind added: recall and NDCG at 10 on validation with all
    events, without those of each kind, and with ratings alone ("signals" are left out). The same
    users are asked for the same products. Empty without signals.

    ``{"weights", "tuned", "events": {kind: int}, "users", "recall_at_10", "ndcg_at_10", "without":
    {kind or "signals": {"recall_at_10", "recall_at_10_added", "recall_at_10_added_low",
    "recall_at_10_added_high", ...}}}``: what was added is the mean of the differences user by user,
    with its 95 % interval."""
    if not data.has_signals:
        return {}
    kinds: list[Kind] = [kind for kind in data.events if kind is not Kind.RATING]

    def asked(without: list[Kind]) -> PerUser:
        training, validation = data.without(without)
        part = replace(subject, training=training, validation=validation)
        return metrics_per_user(rank_targets(part.fit(model_type, parameters), sample_of(part)))

    everything = asked([])
    left_out = {kind.value: [kind] for kind in kinds} if len(kinds) > 1 else {}
    left_out["signals"] = kinds
    return {
        "weights": chosen.weights,
        "tuned": chosen.tuned,
        "events": {kind.value: count for kind, count in data.events.items()},
        "users": len(everything[_ADDED[0]]),
        **{name: _rounded(everything[name].mean()) for name in _ADDED},
        "without": {name: _added(everything, asked(those)) for name, those in left_out.items()},
    }


def _added(everything: PerUser, without: PerUser) -> dict[str, float]:
    result: dict[str, float] = {}
    for name in _ADDED:
        difference = everything[name] - without[name]
        low, high = np.quantile(resampled_means(difference[:, None]), [0.025, 0.975])
        result |= {
            name: _rounded(without[name].mean()),
            f"{name}_added": _rounded(difference.mean()),
            f"{name}_added_low": _rounded(low),
            f"{name}_added_high": _rounded(high),
        }
    return result


def _rounded(value: Any) -> float:
    return round(float(value), 6)
