"""The list of trained models and which of them is to be served: ``artifacts/cf/registry.json``.

Two writers never lose each other's entry, and readers see the old file or the new one
(`recsys.storage.Document`). Every change is a line in ``logs/registry_audit.log``."""

import contextlib
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from recsys.config import parse_json
from recsys.data.versions import manifest_of
from recsys.errors import InputError, UnknownError
from recsys.evaluation import MOST_LOST, MOST_SLICE_LOSS
from recsys.evaluation.slices import slice_loss
from recsys.logs import fields, file_logger
from recsys.models.artifacts import verify_artifact
from recsys.schedule import load_zone
from recsys.settings import REGISTRY_KEY, Settings
from recsys.storage import Document, open_store

SELECTION_METRIC = "recall_at_10"
ARTIFACTS_KEY = "artifacts/cf"
_OVERLAP = "newcomer_overlap"
_LAST_GOOD_KEY = f"{ARTIFACTS_KEY}/registry.last_good.json"


class RegistryError(InputError):
    """The registry does not hold what was asked for, or refuses what was asked."""


class UnknownModelError(RegistryError, UnknownError):
    """No model of this id is registered."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Entry(_Record):
    """One registered model; `path` is relative to the state root."""

    model_id: str = Field(exclude=True)
    model_type: str
    path: str
    created_at: str
    data_version: str
    git_commit: str | None
    hyperparameters: dict[str, Any]
    metrics: dict[str, float | None]
    baseline_comparison: dict[str, Any]
    training_info: dict[str, Any]
    status: Literal["active", "archived", "held"] = "active"
    """``held``: was taken out of service; only a person brings it back (`Registry.release`)."""


class CurrentBest(_Record):
    """Which model was selected, by what, and why."""

    model_id: str
    model_type: str
    path: str
    selection_metric: str
    selection_value: float
    selected_at: str
    selected_by: str
    reason: str = ""


class _Content(_Record):
    current_best: CurrentBest | None = None
    models: dict[str, Entry] = {}
    metadata: dict[str, Any] = {}

    @field_validator("models", mode="before")
    @classmethod
    def _know_their_ids(cls, models: Any) -> Any:
        for model_id, entry in models.items() if isinstance(models, dict) else ():
            if isinstance(entry, dict):
                entry["model_id"] = model_id
        return models

    @model_validator(mode="after")
    def _best_is_registered(self) -> Self:
        best = self.current_best
        if best is not None and best.model_id not in self.models:
            raise ValueError(f"current_best: model {best.model_id!r} is not registered")
        return self

    def entry(self, model_id: str) -> Entry:
        try:
            return self.models[model_id]
        except KeyError:
            raise UnknownModelError(f"{model_id!r}: no model of this id is registered") from None

    def dispensable(self, model_id: str, action: str) -> Entry:
        """The entry of a model that is not the current best, so that it can be `action`."""
        entry = self.entry(model_id)
        if self.current_best is not None and self.current_best.model_id == model_id:
            raise RegistryError(
                f"{model_id}: is the current best; it cannot be {action} before another is selected"
            )
        return entry


class Selection(_Record):
    """What `Registry.select_best` decided. `model_id` is the best after it, None without one."""

    model_id: str | None
    changed: bool
    reason: str
    refused: dict[str, str]


class Registry:
    """The registry of `settings`: ``Registry(load_settings()).current_best()``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = open_store(settings)
        audit = settings.logs / "registry_audit.log"
        self._audit = file_logger("registry", audit, load_zone(settings))
        self._document = Document(
            self._store,
            REGISTRY_KEY,
            parse=self._parse,
            dump=_dump,
            on_damage=lambda name, problem: self._audit.error(
                "registry set aside%s", fields(file=name, problem=problem)
            ),
            last_good=_LAST_GOOD_KEY,
        )

    def current_best(self) -> Entry | None:
        """The entry of the selected model, None as long as none was selected."""
        content = self._document.read()
        best = content.current_best
        return None if best is None else content.models[best.model_id]

    def selection(self) -> CurrentBest | None:
        """How the current best was selected."""
        return self._document.read().current_best

    def get(self, model_id: str) -> Entry:
        """Raises `RegistryError` for a model that is not registered."""
        return self._document.read().entry(model_id)

    def list(self) -> list[Entry]:
        """All entries, newest first."""
        entries = self._document.read().models.values()
        return sorted(entries, key=lambda entry: (entry.created_at, entry.model_id), reverse=True)

    def source_of(self, model_id: str) -> str | None:
        """The source of the data that a model was trained on, None where nobody knows."""
        try:
            version_id = self.get(model_id).data_version
            return str(manifest_of(self._settings, version_id)["source"]["name"])
        except (InputError, FileNotFoundError, KeyError, TypeError):
            return None

    def folder(self, entry: Entry) -> Path:
        """Where the model's artefact lies, fetched from the store if this machine has not used it.
        Raises `RegistryError` for a path that is not ours."""
        path = self.place(entry)
        with contextlib.suppress(FileNotFoundError):  # its reader says which file is missing
            self._store.fetch(entry.path)
        return path

    def place(self, entry: Entry) -> Path:
        """Like `folder`, without fetching it."""
        path = (self._settings.home / entry.path).resolve()
        ours = path.is_relative_to(self._settings.artifacts.resolve())
        if not ours or not re.fullmatch(rf"{re.escape(entry.model_id)}(\.\d+)?", path.name):
            raise RegistryError(f"{entry.model_id}: its path {entry.path!r} is no artefact of ours")
        return path

    def next_place(self, entry: Entry) -> Path:
        """Where the model can be written anew: ``ID.1``, ``ID.2``, ..."""
        taken = self._store.names(PurePosixPath(entry.path).parent.as_posix())
        rewritten = [re.fullmatch(rf"{re.escape(entry.model_id)}\.(\d+)", name) for name in taken]
        number = 1 + max((int(one[1]) for one in rewritten if one), default=0)
        return self.place(entry).with_name(f"{entry.model_id}.{number}")

    def move(self, model_id: str, folder: Path) -> None:
        """Let the entry lead to `folder`, where the same model is written anew; where it lay before
        stays, for who still reads it. Raises `ArtifactError` if the artefact is not sound,
        `RegistryError` for an unknown model."""
        verify_artifact(folder)
        path = folder.relative_to(self._settings.home).as_posix()
        self._store.publish(path)

        def move(content: _Content) -> None:
            content.entry(model_id).path = path
            best = content.current_best
            if best is not None and best.model_id == model_id:
                best.path = path

        self._document.change(move)
        self._note("move", model_id, path=path)

    def problem(self) -> str | None:
        """What is wrong with the file, None when it is sound or does not exist yet."""
        return self._document.problem()

    def register(
        self,
        model_id: str,
        *,
        data_version: str,
        model_type: str,
        hyperparameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        baseline_comparison: Mapping[str, Any],
        training_info: Mapping[str, Any],
        git_commit: str | None = None,
    ) -> Entry:
        """Add the artefact ``artifacts/cf/<model_type>/<model_id>``, without selecting it. A metric
        that is not finite is stored as null. Raises `ArtifactError` if the artefact is missing or
        does not match its hashes, `RegistryError` if the id is taken."""
        folder = self._settings.artifacts / model_type / model_id
        verify_artifact(folder)
        finite = {name: float(one) if math.isfinite(one) else None for name, one in metrics.items()}
        entry = Entry(
            model_id=model_id,
            model_type=model_type,
            path=folder.relative_to(self._settings.home).as_posix(),
            created_at=_now(),
            data_version=data_version,
            git_commit=git_commit,
            hyperparameters=dict(hyperparameters),
            metrics=finite,
            baseline_comparison=dict(baseline_comparison),
            training_info=dict(training_info),
        )
        self._store.publish(entry.path)

        def add(content: _Content) -> None:
            if model_id in content.models:
                raise RegistryError(f"{model_id}: a model of this id is registered already")
            content.models[model_id] = entry

        self._document.change(add)
        value = entry.metrics.get(SELECTION_METRIC)
        self._note("register", model_id, model_type=model_type, **{SELECTION_METRIC: value})
        return entry

    def select_best(
        self,
        data_version: str,
        *,
        metric: str = SELECTION_METRIC,
        selected_by: str,
        most_slice_loss: float = MOST_SLICE_LOSS,
    ) -> Selection:
        """Select among the active models of `data_version`. The best has the highest lower bound of
        `metric`; of those whose `metric` lies within its interval the most personal one is taken,
        see `_most_personal`. One stands only if its metric is finite, it passed its gates
        (``baseline_comparison.passes``), its artefact is intact, and in no segment it loses more
        than the share `most_slice_loss` to what it would take the place of, see `stand_in`. When
        none stands, the current best stays as it is."""
        selection = self._document.change(
            lambda content: self._select_best(
                content, data_version, metric, selected_by, most_slice_loss
            )
        )
        why = {"selected_by": selected_by, "reason": selection.reason}
        self._note("select_best", selection.model_id, changed=selection.changed, **why)
        return selection

    def archive(self, model_id: str) -> None:
        """Take the model out of every later selection; its artefact stays. Raises `RegistryError`
        for the current best."""

        def archive(content: _Content) -> None:
            content.dispensable(model_id, "archived").status = "archived"

        self._document.change(archive)
        self._note("archive", model_id)

    def hold(self, model_id: str) -> None:
        """Keep a model that was taken out of service from being selected or deployed by itself. An
        archived model stays archived. Raises `RegistryError` for an unknown model."""

        def hold(content: _Content) -> bool:
            entry = content.entry(model_id)
            if entry.status != "active":
                return False
            entry.status = "held"
            return True

        if self._document.change(hold):
            self._note("hold", model_id)

    def release(self, model_id: str) -> None:
        """Let a model be selected and deployed again. Raises `RegistryError` if it is not held."""

        def release(content: _Content) -> None:
            entry = content.entry(model_id)
            if entry.status != "held":
                raise RegistryError(f"{model_id}: is not held")
            entry.status = "active"

        self._document.change(release)
        self._note("release", model_id)

    def stand_in(self, replaced: Entry, data_version: str) -> Entry | None:
        """With which model of `data_version` one is compared that takes the place of `replaced`:
        itself, else the best of its type, None if there is none."""
        entries = self._document.read().models.values()
        same = (one for one in entries if one.data_version == data_version)
        return _stand_in(replaced, same, SELECTION_METRIC)

    def repair(self) -> str | None:
        """Write the registry from its last good copy if it is damaged or gone; what it was."""
        return self._document.repair()

    def delete(self, model_id: str, *, serving: str | None = None) -> None:
        """Remove the entry and the artefact. Raises `RegistryError` for the current best, and for
        the model that is `serving`."""

        def delete(content: _Content) -> str:
            entry = content.dispensable(model_id, "deleted")
            if model_id == serving:
                raise RegistryError(f"{model_id}: the service serves this model; not deleted")
            self.place(entry)
            del content.models[model_id]
            return entry.path

        self._store.remove(self._document.change(delete))
        self._note("delete", model_id)

    def _select_best(
        self,
        content: _Content,
        data_version: str,
        metric: str,
        selected_by: str,
        most_slice_loss: float,
    ) -> Selection:
        problems = {
            name: self._refusal(entry, metric)
            for name, entry in content.models.items()
            if entry.data_version == data_version and entry.status != "archived"
        }
        refused = {name: problem for name, problem in problems.items() if problem is not None}
        standing = [content.models[name] for name in problems.keys() - refused]
        if content.current_best is not None:
            replaced = content.models[content.current_best.model_id]
            standing, lost = _without_losses(
                standing, _stand_in(replaced, standing, metric), most_slice_loss
            )
            refused |= lost
        accurate = _most_accurate(standing, metric)
        before = content.current_best.model_id if content.current_best else None
        if accurate is None:
            why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
            reason = f"no model of data version {data_version} can be selected"
            if why:
                reason = f"no model of data version {data_version} can be selected ({why})"
            return Selection(model_id=before, changed=False, reason=reason, refused=refused)
        low = f"{metric}_low"
        unharmed, _ = _without_losses(standing, accurate, most_slice_loss)
        best = _most_personal(accurate, unharmed, metric)
        least, value = accurate.metrics[low], best.metrics[metric]
        reasons = [f"highest lower bound of {metric}: {least} (value {value})"]
        if best is not accurate:
            reasons = [
                f"most personal of those within the interval of {accurate.model_id}, which has the "
                f"highest lower bound of {metric}: {least} (value {value})",
                f"{best.metrics[_OVERLAP]} products in ten are those of newcomers, not "
                f"{accurate.metrics[_OVERLAP]}",
            ]
        if verdict := best.baseline_comparison.get("reason"):
            reasons.append(str(verdict))
        reason = "; ".join(reasons)
        content.current_best = CurrentBest(
            model_id=best.model_id,
            model_type=best.model_type,
            path=best.path,
            selection_metric=metric,
            selection_value=best.metrics[metric] or 0.0,
            selected_at=_now(),
            selected_by=selected_by,
            reason=reason,
        )
        changed = before != best.model_id
        return Selection(model_id=best.model_id, changed=changed, reason=reason, refused=refused)

    def _refusal(self, entry: Entry, metric: str) -> str | None:
        """Why `entry` must not be selected, None when it may."""
        if entry.status == "held":
            return "it was taken out of service, and nobody has released it"
        for name in (metric, f"{metric}_low"):
            if entry.metrics.get(name) is None:
                return f"{name} is not a finite number"
        if entry.baseline_comparison.get("passes") is not True:
            return str(entry.baseline_comparison.get("reason") or "it did not pass its gates")
        try:
            verify_artifact(self.folder(entry))
        except InputError as error:
            return str(error)
        return None

    def _parse(self, content: bytes | None) -> _Content:
        text = "{}" if content is None else content.decode("utf-8", errors="replace")
        try:
            return _Content.model_validate(parse_json(text))
        except ValidationError as error:  # its own text is for programmers
            first = error.errors()[0]
            problem = first["msg"].removeprefix("Value error, ")
            if first["type"] == "model_type":
                problem = f"expected an object, not a {type(first['input']).__name__}"
            problem = f"{'.'.join(map(str, first['loc'])) or 'the whole file'}: {problem}"
        except ValueError as error:
            problem = str(error)
        raise RegistryError(f"{self._settings.registry}: is not a sound registry: {problem}")

    def _note(self, operation: str, model_id: str | None, **values: Any) -> None:
        self._audit.info("%s%s", operation, fields(model_id=model_id, **values))


def _most_accurate(entries: Iterable[Entry], metric: str) -> Entry | None:
    """The one with the highest lower bound of `metric`."""
    low = f"{metric}_low"
    measured = [one for one in entries if one.metrics.get(low) is not None]
    return max(measured, key=lambda one: (one.metrics[low], one.model_id), default=None)


def _stand_in(replaced: Entry, entries: Iterable[Entry], metric: str) -> Entry | None:
    """Which of `entries`, all of one data version, `replaced` can be compared by: itself, else the
    best of its type. Figures on the questions of another version say nothing of these."""
    found = [one for one in entries if one.model_type == replaced.model_type]
    itself = (one for one in found if one.model_id == replaced.model_id)
    return next(itself, None) or _most_accurate(found, metric)


def _without_losses(
    entries: list[Entry], reference: Entry | None, most: float
) -> tuple[list[Entry], dict[str, str]]:
    """Those that lose no segment to the `reference`, and of the others why they are refused."""
    lost = {one.model_id: loss for one in entries if (loss := segment_loss(one, reference, most))}
    return [one for one in entries if one.model_id not in lost], lost


def segment_loss(entry: Entry, reference: Entry | None, most: float) -> str | None:
    """A sentence, if `entry` loses more than the share `most` in a segment to the `reference`,
    which answered the same questions; None if not."""
    if reference is None or reference.model_id == entry.model_id:
        return None
    ours, theirs = (one.training_info.get("segments") or {} for one in (entry, reference))
    loss = slice_loss(ours, theirs, most)
    return loss and f"it loses more than {most:.0%} against {reference.model_id} in {loss}"


def _most_personal(accurate: Entry, standing: list[Entry], metric: str) -> Entry:
    """The one of `standing` that shares least with what newcomers get, of all whose `metric` lies
    within the interval of the `accurate` one's, and not more than `MOST_LOST` below it; itself, if
    none shares less beyond doubt (decision 161). Models of which nobody measured that are left."""
    shared = _figure(accurate, f"{_OVERLAP}_low")
    least = (1 - MOST_LOST) * _figure(accurate, metric)
    least = max(least, _figure(accurate, f"{metric}_low"))
    as_good = [
        one
        for one in standing
        if _figure(one, metric) >= least and _figure(one, f"{_OVERLAP}_high") < shared
    ]
    return min(as_good, key=lambda one: (_figure(one, _OVERLAP), one.model_id), default=accurate)


def _figure(entry: Entry, name: str) -> float:
    """NaN, which is neither more nor less than anything, where the registry does not have it."""
    value = entry.metrics.get(name)
    return math.nan if value is None else value


def _dump(content: _Content) -> bytes:
    content.metadata.update(updated_at=_now(), total_models=len(content.models))
    return f"{content.model_dump_json(indent=2)}\n".encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
