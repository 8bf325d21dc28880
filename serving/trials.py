"""Which models answer beside the one in service, and whom: experiments that run, and the canary.

One worker follows the state; all take over what it read, in two steps (`serving.coordination`)."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from recsys.errors import InputError
from recsys.experiments.definitions import CANARY, Assignment, Experiment, Side
from recsys.experiments.state import Experiments, model_of
from recsys.merchandising.recommending import Snapshot
from recsys.publishing import write_json
from recsys.registry import Registry, RegistryError
from recsys.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trials:
    """The experiments that are to run, and the id of the model of each side that has its own."""

    experiments: tuple[Experiment, ...] = ()
    models: Mapping[Side, str] = field(default_factory=dict)

    @property
    def canary(self) -> tuple[str, float] | None:
        """Model and share of the canary."""
        for experiment in self.experiments:
            if experiment.name == CANARY:
                share = experiment.definition.control.share
                return self.models[Side(CANARY, experiment.definition.control.name)], share
        return None

    def as_message(self) -> dict[str, Any]:
        """For JSON; `of_message` reads it."""
        return {
            "experiments": [one.model_dump(mode="json") for one in self.experiments],
            "models": [[*side, model_id] for side, model_id in self.models.items()],
        }

    @classmethod
    def of_message(cls, message: Mapping[str, Any]) -> Self:
        return cls(
            tuple(Experiment.model_validate(one) for one in message["experiments"]),
            {Side(name, variant): model_id for name, variant, model_id in message["models"]},
        )


def read_trials(settings: Settings) -> Trials:
    """What the state says at the moment; of a damaged one what its last good copy says. Raises
    `InputError` without one, `OSError` if the store cannot be read."""
    running = tuple(Experiments(settings).running())
    registry, models = Registry(settings), {}
    for experiment in running:
        for variant in experiment.definition.variants:
            named = variant.model_id or variant.model_type
            if named is None:
                continue
            try:
                entry = model_of(registry, variant)
            except RegistryError:
                entry = None  # whoever loads it will say what is wrong
            side = Side(experiment.name, variant.name)
            models[side] = named if entry is None else entry.model_id
    return Trials(running, models)


def remember_trials(settings: Settings, trials: Trials) -> None:
    """Write down what a service runs that starts later and cannot read the state."""
    note = _note(settings)
    if trials.experiments or note.exists():
        write_json(note, trials.as_message())


def trials_at_start(settings: Settings) -> Trials:
    """What the state says, else what was in service last, else none."""
    try:
        trials = read_trials(settings)
        remember_trials(settings, trials)
        return trials
    except (InputError, OSError) as error:
        logger.error("The experiments cannot be read, those of before go on | reason=%s", error)
    try:
        return Trials.of_message(json.loads(_note(settings).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Trials()
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The note of the last experiments is damaged | error=%r", error)
        return Trials()


def _note(settings: Settings) -> Path:
    return settings.artifacts / "served_experiments.json"


class InTrial(NamedTuple):
    """What a worker has in service beside its model. `assignment` is None where nobody is in an
    experiment or the holdout; `broken` are models that could not be loaded, and why: their sides
    get what is deployed."""

    trials: Trials
    assignment: Assignment | None
    snapshots: Mapping[Side, Snapshot]
    broken: Mapping[str, str]


def put_in_trial(
    trials: Trials,
    loaded: Mapping[str, Snapshot],
    broken: Mapping[str, str],
    holdout_share: float,
) -> InTrial:
    """The `trials` with the snapshots `loaded`, by model id, but for those that are `broken`."""
    snapshots = {
        side: loaded[model_id]
        for side, model_id in trials.models.items()
        if model_id in loaded and model_id not in broken
    }
    assignment = Assignment(trials.experiments, holdout_share)
    return InTrial(trials, assignment or None, snapshots, broken)
