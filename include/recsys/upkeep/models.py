"""Which models may go: old, not among the newest of their type, and referred to by nothing."""

import contextlib
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from recsys.config import load_config
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceError, connect_service
from recsys.deployment.history import read_history
from recsys.errors import InputError
from recsys.experiments.state import models_in_experiments
from recsys.models.model_types import MODEL_TYPES
from recsys.registry import ARTIFACTS_KEY, Entry, Registry
from recsys.retention import ABANDONED_AFTER, Removal, Retention, newest_change
from recsys.settings import REGISTRY_KEY, Settings
from recsys.storage import open_store
from recsys.storage.bundle import MANIFEST
from recsys.upkeep import ModelRetention

_DEPLOYMENTS = 10
"""So many of the last deployments name models that somebody may want to go back to."""


def remove_old_models(
    settings: Settings, config: ModelRetention, removal: Removal
) -> dict[str, Any]:
    """Remove models that nobody needs, artefacts that were never registered, and the indexes that
    the service built for them. Returns the summary of `removal`.

    Raises `InputError`, before anything is removed, if the registry, the deployment history or the
    note of the served model cannot be read: then nobody knows what is in use. Raises
    `BoundaryError` if the models lie outside of the state root."""
    registry = Registry(settings)
    if problem := registry.problem():
        raise InputError(f"no model was removed: {problem}")
    in_use = models_in_use(settings)
    if best := registry.current_best():
        in_use.add(best.model_id)
    entries = registry.list()
    old = _old(settings, entries, in_use, config)
    removal.execute([_models(settings, registry, entries, old)])
    store = open_store(settings)
    if store.read(REGISTRY_KEY) is None:
        return removal.execute([])
    registered = {entry.model_id for entry in entries}
    kept = (registered | in_use) - old
    # Of a model that was written anew only the newest folder is known.
    known = {PurePosixPath(entry.path).name for entry in entries} | (in_use - registered)
    if not removal.dry_run:
        kept = {entry.model_id for entry in registry.list()} | in_use
        for family in MODEL_TYPES:
            before = datetime.now(UTC) - ABANDONED_AFTER
            store.remove_unfinished(f"{ARTIFACTS_KEY}/{family}", before)
    return removal.execute([_unregistered(settings, known), _indexes(settings, kept)])


def models_in_use(settings: Settings) -> set[str]:
    """Ids that the service, its note for the next start, the last deployments, or experiments that
    run name.

    Raises `InputError` if one of the files is damaged."""
    found = {
        str(entry[key])
        for entry in read_history(settings)[-_DEPLOYMENTS:]
        for key in ("model_id", "previous_model_id")
        if entry.get(key)
    }
    note = settings.artifacts / "served_model.json"
    try:
        found.add(str(json.loads(note.read_text(encoding="utf-8"))["model_id"]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{note}: expected the id of the served model, got {error!r}; no model was removed"
        ) from error
    found |= models_in_experiments(settings)
    # A service that does not answer will start with the model of its note.
    with contextlib.suppress(ServiceError):
        found.update(connect_service(load_config(settings, DeploymentConfig)).models_in_use())
    return found


def _models(
    settings: Settings, registry: Registry, entries: list[Entry], old: set[str]
) -> Retention:
    places = {registry.place(entry): entry.model_id for entry in entries}

    def remove(path: Path) -> bool:
        registry.delete(places[path])
        return True

    return Retention(
        "models",
        settings.artifacts,
        found=lambda: places,
        kept_by=lambda paths: [path for path in paths if places[path] not in old],
        remove=remove,
    )


def _old(
    settings: Settings, entries: list[Entry], in_use: set[str], config: ModelRetention
) -> set[str]:
    """Ids of those of `entries` (newest first) that may go."""
    by_type: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_type[entry.model_type].append(entry)
    surplus = [entry for same in by_type.values() for entry in same[config.keep_per_type :]]
    limit = (datetime.now(UTC) - timedelta(days=config.keep_days)).timestamp()
    return {
        entry.model_id
        for entry in surplus
        if entry.model_id not in in_use and _last_change(settings, entry) < limit
    }


def _last_change(settings: Settings, entry: Entry) -> float:
    """Seconds since 1970; where state is shared, a copy's age says nothing about the model's."""
    if open_store(settings).shared:
        return datetime.fromisoformat(entry.created_at).timestamp()
    return newest_change(settings.home / entry.path)


def _unregistered(settings: Settings, known: set[str]) -> Retention:
    """Folders of models that no registry entry describes."""
    store = open_store(settings)
    return Retention(
        "unregistered artefacts",
        settings.artifacts,
        found=lambda: [path.parent for path in settings.artifacts.glob(f"*/*/{MANIFEST}")],
        age=ABANDONED_AFTER,
        kept_by=lambda paths: [path for path in paths if path.name in known],
        remove=lambda folder: store.remove(folder.relative_to(settings.home).as_posix()),
    )


def _indexes(settings: Settings, kept: set[str]) -> Retention:
    """Indexes that the service built for models that are gone."""
    root = settings.artifacts / "indexes"
    return Retention(
        "search indexes",
        root,
        found=lambda: root.glob("*.faiss"),
        age=ABANDONED_AFTER,
        kept_by=lambda paths: [path for path in paths if path.stem in kept],
    )
