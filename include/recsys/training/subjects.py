"""A family on a data version: its fits, and the parameters that are chosen for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from recsys.evaluation.leave_one_out import LeaveOneOut
from recsys.models.als import Trainer
from recsys.models.base import Histories, Model, Progress
from recsys.models.families import create_model
from recsys.models.hybrid import COMPONENTS, Hybrid
from recsys.settings import Settings
from recsys.training.config import TrainingConfig
from recsys.training.content_vectors import ContentVectors, content_vectors
from recsys.training.tuned_parameters import TunedParameters, read_tuned, write_tuned
from recsys.training.tuning import SPACES, Problem, tune


@dataclass(frozen=True)
class Subject:
    """One family that is trained on one data version, its ALS by `trainer` (None: `implicit`)."""

    settings: Settings
    config: TrainingConfig
    version_id: str
    model_type: str
    data: LeaveOneOut
    trainer: Trainer | None = None

    @cached_property
    def content(self) -> ContentVectors | None:
        """Text vectors, for the family that uses them."""
        if self.model_type != Hybrid.model_type:
            return None
        return content_vectors(self.settings, self.data.item_ids)

    def fit(
        self,
        parameters: Mapping[str, Any],
        histories: Histories,
        progress: Progress | None = None,
    ) -> Model:
        """A new model with `parameters`, fitted on `histories`."""
        model = create_model(self.model_type, parameters, self.config.seed, self.trainer)
        if isinstance(model, Hybrid) and self.content is not None:
            model.use_content(self.content.vectors)
        return model.fit(histories, len(self.data.item_ids), progress)

    @property
    def tuning_key(self) -> dict[str, Any]:
        """What a search depends on: with an equal key there is nothing new to find."""
        return {
            "data_version": self.version_id,
            "embeddings": self.content.set_id if self.content else None,
            "seed": self.config.seed,
            "engine": self.config.engine,
            "tuning": self.config.tuning.model_dump(),
            "parameters": self.config.parameters.get(self.model_type, {}),
        }


@dataclass(frozen=True)
class Chosen:
    """Parameters for `Model.create`; `reused` when a search of the same data found them before.

    `history` holds the best score after each trial of this search.
    """

    parameters: dict[str, Any]
    score: float
    trials: int
    reused: bool
    history: list[float] = field(default_factory=list)


def choose_parameters(subject: Subject) -> Chosen:
    """Tune the family on validation, from the last result or else the configured parameters.

    A result that was found on the same data with the same settings is taken as it is, so a
    training that is repeated gives the same model.
    """
    last = read_tuned(subject.settings, subject.model_type)
    if last is not None and last.key == subject.tuning_key:
        return Chosen(last.parameters, last.score, last.trials, reused=True)
    configured = subject.config.parameters.get(subject.model_type, {})
    problem = Problem(
        training=subject.data.training,
        validation=subject.data.validation,
        items=len(subject.data.item_ids),
        seed=subject.config.seed,
        content=subject.content.vectors if subject.content else None,
        trainer=subject.trainer,
    )
    budget = subject.config.tuning
    found = tune(
        subject.model_type,
        problem,
        last.parameters if last is not None else configured,
        seconds=budget.seconds,
        trials=budget.trials,
        tuned_components=_tuned_components(subject),
    )
    write_tuned(
        subject.settings,
        subject.model_type,
        TunedParameters(found.parameters, subject.tuning_key, found.score, found.trials),
    )
    return Chosen(found.parameters, found.score, found.trials, False, found.history)


def _tuned_components(subject: Subject) -> dict[str, dict[str, Any]]:
    """Parameters of a hybrid's components that were tuned by themselves on the same data."""
    result = {}
    if subject.model_type == Hybrid.model_type:
        for name in set(COMPONENTS) & set(SPACES):
            own = Subject(subject.settings, subject.config, subject.version_id, name, subject.data)
            last = read_tuned(subject.settings, name)
            if last is not None and last.key == own.tuning_key:
                result[name] = last.parameters
    return result
