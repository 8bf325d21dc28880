"""What the data area keeps: the latest versions, and those that something still refers to."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from recsys.data import versions
from recsys.data.config import DataConfig
from recsys.data.versions import VERSIONS_KEY, list_versions
from recsys.retention import ABANDONED_AFTER, Removal, Retention
from recsys.settings import HISTORY_KEY, REGISTRY_KEY, Settings
from recsys.storage import open_store
from recsys.storage.store import bundle_retention

KEEP_BACKFILLED_DAYS = 7
"""A backfilled day's version is older than all that are kept; it stays for so many days after it
was made, long enough for a week's backfill to be looked at."""

_REFERENCE_KEYS = frozenset({"data_version", "version_id", "previous_version"})


def data_retentions(settings: Settings, config: DataConfig) -> list[Retention]:
    """Versions, quarantine files and scratch folders. Execute it under the `publishing_lock`. Of
    the versions the ``keep_versions`` latest views stay, what ``data/processed`` shows, fresh
    backfills, what `referenced_versions` finds, and what a reader has open."""
    store, kept = open_store(settings), partial(_kept_versions, settings, config)
    return [
        bundle_retention("versions", store, settings.versions, VERSIONS_KEY, kept),
        Retention(
            "quarantine",
            settings.quarantine,
            found=lambda: (path for path in settings.quarantine.rglob("*") if path.is_file()),
            age=timedelta(days=config.keep_quarantine_days),
        ),
        Retention("work folders", settings.work, lambda: settings.work.glob("*"), ABANDONED_AFTER),
    ]


def prune(settings: Settings, config: DataConfig, removal: Removal | None = None) -> list[str]:
    """Remove what `data_retentions` lets go, and what dead runs left in the store. Returns the ids
    of the versions that went."""
    before = set(list_versions(settings))
    removal = removal or Removal(settings)
    with versions.publishing_lock(settings):
        removal.execute(data_retentions(settings, config))
        if not removal.dry_run:
            store, now = open_store(settings), datetime.now(UTC)
            store.remove_unfinished(VERSIONS_KEY, now - ABANDONED_AFTER)
            quarantined = timedelta(days=config.keep_quarantine_days)
            ages = {settings.work: ABANDONED_AFTER, settings.quarantine: quarantined}
            for folder, age in ages.items():
                store.discard_older(folder.relative_to(settings.home).as_posix(), now - age)
    return sorted(before - set(list_versions(settings)))


def _kept_versions(settings: Settings, config: DataConfig, found: list[str]) -> set[str]:
    listed = list_versions(settings)
    kept = set(found) - set(listed)  # something else than a version
    fresh = datetime.now(UTC) - timedelta(days=KEEP_BACKFILLED_DAYS)
    ordinary: list[str] = []
    for version_id in listed:
        try:
            manifest = versions.manifest_of(settings, version_id)
        except versions.VersionError:  # for a person to look at
            kept.add(version_id)
            continue
        if not manifest.get("backfill"):
            future = versions.is_of_the_future(datetime.fromisoformat(manifest["as_of"]))
            ordinary += [] if future else [version_id]
        elif datetime.fromisoformat(manifest["created_at"]) > fresh:
            kept.add(version_id)
    kept.update(ordinary[-config.keep_versions :])
    if published := versions.published_folder(settings):
        kept.add(published.name)
    return kept if kept >= set(found) else kept | referenced_versions(settings)


def referenced_versions(settings: Settings) -> set[str]:
    """Versions that a model, a deployment or the newest drift report names. What cannot be read
    protects everything: better a full disk than a lost version."""
    store = open_store(settings)
    drift_reports = sorted((settings.reports / "drift").glob("drift_report_*.json"))
    files = [*settings.artifacts.glob("*/*/manifest.json"), *drift_reports[-1:]]
    found: set[str] = set()
    try:
        for key in (REGISTRY_KEY, HISTORY_KEY):
            found.update(_references(json.loads(store.read(key) or b"null")))
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                found.update(_references(json.loads(file.read_bytes() or b"null")))
    except (OSError, ValueError):
        return set(list_versions(settings))
    return found


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
