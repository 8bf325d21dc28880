"""``artifacts/experiments.json``: which experiments run, and which did. All machines read it; who
changes it never loses another's change (`recsys.storage.Document`), and every change is a line in
``logs/experiment_audit.log``."""

import contextlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from recsys.config import ConfigModel, parse_json
from recsys.errors import InputError, UnknownError
from recsys.experiments.definitions import CANARY, RESERVED, Definition, Experiment, Variant
from recsys.logs import fields, file_logger
from recsys.models.artifacts import verify_artifact
from recsys.registry import Entry, Registry, RegistryError
from recsys.schedule import load_zone
from recsys.settings import EXPERIMENTS_KEY, Settings
from recsys.storage import Document, open_store

if TYPE_CHECKING:  # pandas is not for the service
    from recsys.experiments.planning import Plan

_LAST_GOOD_KEY = "artifacts/experiments.last_good.json"
REPORTS = "experiments"
"""Below ``reports``."""
BY = "outcomes"
"""Who ended what no person did."""
MOMENT = "%Y-%m-%d %H:%M %Z"
"""How moments are shown, in the time zone of the schedule."""
_NAME = re.compile(r"[\w.@:+-]*")
_KEPT = 200  # ended ones; the newest

Result = TypeVar("Result")


class ExperimentError(InputError):
    """There is no such experiment, or it must not begin; the text says why."""


class UnknownExperimentError(ExperimentError, UnknownError):
    """There is no experiment of this name."""


class Content(ConfigModel):
    """All experiments, in the order of their starts."""

    experiments: tuple[Experiment, ...] = Field(default=())

    @model_validator(mode="after")
    def _are_possible(self) -> "Content":
        names = [one.name for one in self.experiments if one.name != CANARY]
        if len(set(names)) < len(names):
            raise ValueError("experiments: expected each name once")
        running = [one.definition for one in self.experiments if one.running]
        for number, one in enumerate(running):
            for other in running[:number]:
                if one.meets(other):
                    raise ValueError(_meeting(one, other))
        return self

    @property
    def running(self) -> tuple[Experiment, ...]:
        return tuple(one for one in self.experiments if one.running)


class Experiments:
    """The experiments of `settings`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._place = settings.home / EXPERIMENTS_KEY
        self._registry = Registry(settings)
        audit = settings.logs / "experiment_audit.log"
        self._audit = file_logger("experiments", audit, load_zone(settings))
        self._document: Document[list[Experiment]] = Document(
            open_store(settings),
            EXPERIMENTS_KEY,
            parse=self._parse,
            dump=_dump,
            on_damage=lambda name, problem: self._audit.error(
                "experiments set aside%s", fields(file=name, problem=_quoted(problem))
            ),
            last_good=_LAST_GOOD_KEY,
        )

    def all(self) -> list[Experiment]:
        """Every experiment, the oldest first. Raises `InputError` if the file is damaged and there
        is no good copy."""
        return self._document.read()

    def running(self) -> list[Experiment]:
        """Those that run."""
        return [one for one in self.all() if one.running]

    def get(self, name: str) -> Experiment:
        """The (last) experiment of this name. Raises `ExperimentError` if there is none."""
        for experiment in reversed(self.all()):
            if experiment.name == name:
                return experiment
        raise UnknownExperimentError(f"{name}: there is no experiment of this name")

    def problem(self) -> str | None:
        """What is wrong with the file, None when it is sound or does not exist yet."""
        return self._document.problem()

    def check(self, definition: Definition) -> None:
        """Raises `ExperimentError` if `start` would refuse the experiment as things stand."""
        name = definition.name
        if name in RESERVED:
            raise ExperimentError(f"{name}: this name is the service's own; choose another")
        if definition.primary_metric is None:
            raise ExperimentError(f"{name}: primary_metric: expected a metric to decide by")
        for variant in definition.variants:
            self._check(definition, variant)
        self._check_beside(definition, self.all())

    def start(
        self,
        definition: Definition,
        by: str,
        planned: "Plan | None" = None,
        now: datetime | None = None,
    ) -> Experiment:
        """Begin an experiment. Raises `ExperimentError` if a model is missing, archived, held or
        damaged, or was trained on another source, if the name is taken, or another experiment runs
        on one of its placements."""
        self.check(definition)
        name, now = definition.name, now or datetime.now(UTC)
        started = Experiment(
            definition=definition,
            salt=f"{name}:{now.isoformat()}",
            started_at=now,
            started_by=by,
            planned_days=planned.days if planned else None,
            information=planned.information if planned else None,
        )

        def start(experiments: list[Experiment]) -> None:
            self._check_beside(definition, experiments)
            experiments.append(started)

        self._document.change(start)
        models = {one.name: one.model_id or one.model_type for one in definition.variants}
        self._note("start", name, by=by, variants=models, planned_days=started.planned_days)
        return started

    def start_canary(self, model_id: str, share: float, by: str) -> None:
        """Give `model_id` to a share of the users who are in no measured experiment, instead of a
        canary that runs. The same model again changes the share, and nobody who has it loses it.
        Raises `RegistryError` if it is not registered."""
        definition = Definition(
            name=CANARY,
            question=f"Does {model_id} answer as {CANARY} without errors, fallbacks or delay?",
            variants=(Variant(name=CANARY, share=share, model_id=model_id),),
            longest_days=1,
        )
        self._registry.get(model_id)
        # Without the moment: replicas that share no state have to draw the same users.
        started = Experiment(
            definition=definition,
            salt=f"{CANARY}:{model_id}",
            started_at=datetime.now(UTC),
            started_by=by,
        )

        def start(experiments: list[Experiment]) -> bool:
            before = [one for one in experiments if one.name == CANARY]
            if any(one.running and one.definition == definition for one in before):
                return False  # another replica was told before
            experiments[:] = [one for one in experiments if one.name != CANARY]
            experiments.append(started)
            return True

        if self._document.change(start):
            self._note("start", CANARY, by=by, model_id=model_id, share=share)

    def stop(self, name: str, by: str, because: str, now: datetime | None = None) -> bool:
        """End an experiment: everybody gets what is deployed. Returns whether it ran. Raises
        `ExperimentError` if there is none of this name."""
        moment = now or datetime.now(UTC)

        def end(one: Experiment) -> Experiment:
            ended = {"ended_at": moment, "ended_by": by, "ended_because": because}
            return one.model_copy(update=ended) if one.running else one

        if changed := self._replace(name, end):
            self._note("stop", name, by=by, because=because)
        return changed

    def end_canary(self, by: str) -> bool:
        """End the canary, if there is one; whether there was."""
        with contextlib.suppress(ExperimentError):
            return self.stop(CANARY, by, "the trial is over")
        return False

    def remember_information(self, name: str, information: float) -> None:
        """What the sequence is planned for, if the plan could not say it; the first one stays."""
        self._replace(
            name,
            lambda one: one.model_copy(update={"information": one.information or information}),
        )

    def note(self, operation: str, name: str, **values: object) -> None:
        """A line in the audit log about something that the state does not show."""
        self._note(operation, name, **values)

    def _replace(self, name: str, change: Callable[[Experiment], Experiment]) -> bool:
        """Change the last experiment of this name; whether it is another one now."""

        def apply(experiments: list[Experiment]) -> bool:
            for number in range(len(experiments) - 1, -1, -1):
                if experiments[number].name == name:
                    before, after = experiments[number], change(experiments[number])
                    experiments[number] = after
                    return after != before
            raise ExperimentError(f"{name}: there is no experiment of this name")

        return self._document.change(apply)

    def _check_beside(self, definition: Definition, experiments: list[Experiment]) -> None:
        for other in experiments:
            if other.name == definition.name:
                moment = other.started_at.astimezone(load_zone(self._settings))
                raise ExperimentError(
                    f"{definition.name}: an experiment of this name was started at "
                    f"{moment:{MOMENT}}; its lists bear the name: take another"
                )
            if other.running and definition.meets(other.definition):
                raise ExperimentError(_meeting(definition, other.definition))

    def _check(self, definition: Definition, variant: Variant) -> None:
        """Raises `ExperimentError` if the variant's model cannot be served beside what is."""
        where = f"{definition.name}: variant {variant.name}"
        try:
            entry = model_of(self._registry, variant)
            if entry is None:
                return
            if entry.status != "active":
                raise ExperimentError(f"{where}: model {entry.model_id} is {entry.status}")
            verify_artifact(self._registry.folder(entry))
        except ExperimentError:
            raise
        except InputError as error:
            raise ExperimentError(f"{where}: {error}") from error
        best = self._registry.current_best()
        ours = self._registry.source_of(best.model_id) if best else None
        theirs = self._registry.source_of(entry.model_id)
        if None not in (ours, theirs) and ours != theirs:
            raise ExperimentError(
                f"{where}: model {entry.model_id} was trained on source {theirs}, the shop's is "
                f"{ours}: it would recommend what this shop does not sell"
            )

    def _parse(self, content: bytes | None) -> list[Experiment]:
        text = "{}" if content is None else content.decode("utf-8", errors="replace")
        try:
            return list(Content.model_validate(parse_json(text)).experiments)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(map(str, first["loc"])) or "the whole file"
            problem = f"{at}: {first['msg'].removeprefix('Value error, ')}"
        except ValueError as error:
            problem = str(error)
        raise ExperimentError(f"{self._place}: is no sound list of experiments: {problem}")

    def _note(self, operation: str, name: str, **values: object) -> None:
        said = {key: _quoted(value) for key, value in values.items()}
        self._audit.info("%s%s", operation, fields(name=name, **said))


def _quoted(value: object) -> object:
    """Text that somebody wrote as it stands in JSON, so that it cannot be taken for other fields or
    lines; names as they are."""
    plain = not isinstance(value, str) or _NAME.fullmatch(value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def model_of(registry: Registry, variant: Variant) -> Entry | None:
    """The registry's entry of the model that a variant is served by; None for what is deployed. Of
    a type it is the newest active one that passed its gates, so that a training is followed. Raises
    `RegistryError` if there is none."""
    if variant.model_id is not None:
        return registry.get(variant.model_id)
    if variant.model_type is None:
        return None
    for entry in registry.list():
        passed = entry.status == "active" and entry.baseline_comparison.get("passes") is True
        if entry.model_type == variant.model_type and passed:
            return entry
    raise RegistryError(f"no active model of type {variant.model_type} has passed its gates")


def read_report(settings: Settings, name: str) -> dict[str, Any]:
    """What was written last of the experiment `name`; empty if nothing is there or sound."""
    try:
        found = json.loads((settings.reports / REPORTS / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def models_in_experiments(settings: Settings) -> set[str]:
    """Ids of the models that running experiments need. Raises `InputError` if nobody knows."""
    experiments, registry, found = Experiments(settings), Registry(settings), set()
    for experiment in experiments.running():
        for variant in experiment.definition.variants:
            with contextlib.suppress(RegistryError):
                if entry := model_of(registry, variant):
                    found.add(entry.model_id)
    return found


def _meeting(one: Definition, other: Definition) -> str:
    both = sorted(set(one.placements) & set(other.placements))
    where = f"placement {both[0]}" if both else "all placements"
    return (
        f"{one.name}: experiment {other.name} runs on {where}: a list belongs to one experiment; "
        f"stop that one, or name other placements"
    )


def _dump(experiments: list[Experiment]) -> bytes:
    ended = [one for one in experiments if not one.running]
    dropped = {one.name for one in ended[: max(0, len(ended) - _KEPT)]}
    kept = [one for one in experiments if one.running or one.name not in dropped]
    return f"{Content(experiments=tuple(kept)).model_dump_json(indent=2)}\n".encode()
