"""Which models may go: old, not among the newest of their type, and referred to by nothing."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.config import load_config
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceError, connect_service
from recsys.deployment.history import read_history
from recsys.errors import InputError
from recsys.models.model_types import MODEL_TYPES
from recsys.registry import ARTIFACTS_KEY, Entry, Registry
from recsys.settings import REGISTRY_KEY, Settings
from recsys.storage import ABANDONED_AFTER, open_store
from recsys.upkeep.config import ModelRetention
from recsys.upkeep.removal import Removal, newest_change, older_than, size_of

DAY = 86_400.0


def remove_old_models(settings: Settings, config: ModelRetention, removal: Removal) -> None:
    """Remove models that nobody needs, and artefacts that were never registered.

    Raises
    ------
    InputError
        If the registry, the deployment history or the note of the served model cannot be read:
        then nobody knows what is in use, and nothing is removed.
    BoundaryError
        If the models lie outside of the state root.
    """
    removal.require_real_folder(settings.artifacts)
    registry = Registry(settings)
    if problem := registry.problem():
        raise InputError(f"no model was removed: {problem}")
    entries = registry.list()
    in_use = models_in_use(settings, config)
    best = registry.current_best()
    if best is not None:
        in_use.add(best.model_id)
    doomed = doomed_models(settings, entries, in_use, config)
    for entry in doomed:
        folder = registry.place(entry)
        removal.require_inside(folder)
        size = size_of(folder)
        if not removal.dry_run:
            registry.delete(entry.model_id)
        removal.count("models", entry.model_id, size)
    if open_store(settings).read(REGISTRY_KEY) is not None:
        known = {entry.model_id for entry in entries} | in_use
        _remove_unregistered(settings, known, removal)
        kept = known - {entry.model_id for entry in doomed}
        removal.remove("search indexes", _unused_indexes(settings, kept))


def models_in_use(settings: Settings, config: ModelRetention) -> set[str]:
    """Ids that the service, its note for the next start, or the last deployments name.

    Raises `InputError` if one of the files is damaged.
    """
    found = {
        str(entry[key])
        for entry in read_history(settings)[-config.keep_deployments :]
        for key in ("model_id", "previous_model_id")
        if entry.get(key)
    }
    found.update(_noted(settings.artifacts / "served_model.json"))
    client = connect_service(load_config(settings, DeploymentConfig))
    # A service that does not answer will start with the model of its note.
    with contextlib.suppress(ServiceError):
        found.update(client.models_in_use())
    return found


def doomed_models(
    settings: Settings, entries: list[Entry], in_use: set[str], config: ModelRetention
) -> list[Entry]:
    """Those of `entries` (newest first) that may go."""
    by_type: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_type[entry.model_type].append(entry)
    surplus = [entry for same in by_type.values() for entry in same[config.keep_per_type :]]
    limit = time.time() - config.keep_days * DAY
    return [
        entry
        for entry in surplus
        if entry.model_id not in in_use and _last_change(settings, entry) < limit
    ]


def _last_change(settings: Settings, entry: Entry) -> float:
    """Seconds since 1970; where state is shared, a copy's age says nothing about the model's."""
    if open_store(settings).shared:
        return datetime.fromisoformat(entry.created_at).timestamp()
    return newest_change(settings.home / entry.path)


def _remove_unregistered(settings: Settings, known: set[str], removal: Removal) -> None:
    folders = _unregistered(settings, known)
    removal.remove("unregistered artefacts", folders)
    store = open_store(settings)
    if not store.shared or removal.dry_run:
        return
    for folder in folders:
        store.remove(folder.relative_to(settings.home).as_posix())
    before = datetime.now(UTC) - ABANDONED_AFTER
    for model_type in MODEL_TYPES:
        store.remove_unfinished(f"{ARTIFACTS_KEY}/{model_type}", before)


def _unregistered(settings: Settings, known: set[str]) -> list[Path]:
    """Folders of models that no registry entry describes."""
    folders = [path.parent for path in settings.artifacts.glob("*/*/manifest.json")]
    limit = time.time() - ABANDONED_AFTER.total_seconds()
    return older_than((path for path in folders if path.name not in known), limit)


def _unused_indexes(settings: Settings, kept: set[str]) -> list[Path]:
    """Indexes that the service built for models that are gone."""
    indexes = (settings.artifacts / "indexes").glob("*.faiss")
    limit = time.time() - ABANDONED_AFTER.total_seconds()
    return older_than((path for path in indexes if path.stem not in kept), limit)


def _noted(path: Path) -> Iterable[str]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return [str(content["model_id"])]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected the id of the served model, got {error!r}; no model was removed"
        ) from error
