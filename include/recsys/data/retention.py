"""Which versions stay: the latest ones, and those that something still refers to."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from recsys.data.config import DataConfig
from recsys.data.versions import (
    VERSIONS_KEY,
    list_versions,
    manifest_of,
    published_folder,
    publishing_lock,
    remove_version,
)
from recsys.settings import HISTORY_KEY, REGISTRY_KEY, Settings
from recsys.storage import ABANDONED_AFTER, open_store
from recsys.storage.local import DOOMED_PREFIX

KEEP_BACKFILLED_DAYS = 7
"""A backfilled day's version is older than all that are kept; it stays for so many days after it was
made, long enough for a week's backfill to be looked at."""

_REFERENCE_KEYS = frozenset({"data_version", "version_id", "previous_version"})


def prune(settings: Settings, config: DataConfig) -> list[str]:
    """Remove versions that nobody needs any more; the ids of those that went.

    Kept are the ``keep_versions`` latest views, what ``data/processed`` shows, fresh backfills,
    what `referenced_versions` finds, and what a reader has open.
    """
    with publishing_lock(settings):
        doomed = prunable(settings, config)
        removed = [name for name in sorted(doomed) if remove_version(settings, name)]
        _remove_remains(settings, config, datetime.now(UTC))
    return removed


def prunable(settings: Settings, config: DataConfig) -> set[str]:
    """Versions that `prune` would remove now, those that a reader has open included."""
    now = datetime.now(UTC)
    versions = list_versions(settings)
    manifests = {version_id: manifest_of(settings, version_id) for version_id in versions}
    ordinary = [version_id for version_id in versions if not manifests[version_id].get("backfill")]
    kept = set(ordinary[-config.keep_versions :])
    fresh = now - timedelta(days=KEEP_BACKFILLED_DAYS)
    kept |= {
        version_id
        for version_id in set(versions) - set(ordinary)
        if datetime.fromisoformat(manifests[version_id]["created_at"]) > fresh
    }
    published = published_folder(settings)
    if published is not None:
        kept.add(published.name)
    doomed = set(versions) - kept
    return doomed - referenced_versions(settings) if doomed else doomed


def referenced_versions(settings: Settings) -> set[str]:
    """Versions that a model, a deployment or the newest drift report names.

    What cannot be read protects everything: better a full disk than a lost version.
    """
    store = open_store(settings)
    drift_reports = sorted((settings.reports / "drift").glob("drift_report_*.json"))
    files = [*settings.artifacts.glob("*/*/manifest.json"), *drift_reports[-1:]]
    readers: list[Callable[[], bytes | None]] = [
        lambda: store.read(REGISTRY_KEY),
        lambda: store.read(HISTORY_KEY),
        *(partial(_content, file) for file in files),
    ]
    found: set[str] = set()
    for read in readers:
        try:
            content = read()
            found.update(_references(json.loads(content or b"null")))
        except (OSError, ValueError):
            return set(list_versions(settings))
    return found


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _references(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key in _REFERENCE_KEYS and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(content, list):
        for value in content:
            yield from _references(value)


def _remove_remains(settings: Settings, config: DataConfig, now: datetime) -> None:
    store = open_store(settings)
    store.remove_unfinished(VERSIONS_KEY, now - ABANDONED_AFTER)
    store.discard_older(settings.work.relative_to(settings.home).as_posix(), now - ABANDONED_AFTER)
    for folder in settings.versions.glob(f"{DOOMED_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in settings.work.glob("data_refresh-*"):
        if _older(folder, now - ABANDONED_AFTER):
            shutil.rmtree(folder, ignore_errors=True)
    for file in settings.quarantine.glob("*.csv"):
        if _older(file, now - timedelta(days=config.keep_quarantine_days)):
            file.unlink(missing_ok=True)


def _older(path: Path, moment: datetime) -> bool:
    try:
        return path.stat().st_mtime < moment.timestamp()
    except FileNotFoundError:
        return False
