"""Versions and models without customers who asked for it. Published folders never change: another
one is published, what leads there is moved, and the one before goes when nobody reads it."""

import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Final

from recsys.data.personal import find_in_versions
from recsys.data.versions import VERSIONS_KEY, manifest_of, published_folder, publishing_lock
from recsys.errors import InputError
from recsys.models.artifacts import ArtifactFolder, write_without
from recsys.models.personal import find_in_models
from recsys.personal import Erased, Forgot, Found, Record, Sought, Unread
from recsys.quality import report_after_publishing
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.storage import open_store

PATIENCE_SECONDS: Final = 90.0
"""So long a folder may still be read: a service looks for another every 30 seconds
(`catalogue_check_seconds` of ``serving.yaml``), and loads it."""
_PAUSE_SECONDS: Final = 0.5
_DAY: Final = timedelta(days=1)


def forget_in_versions(settings: Settings, sought: Sought) -> Forgot:
    """Make the published version anew from what is left of its files, as of its own day, and
    retire the others that have one of the customers: nothing is made of them any more, and what
    names them (models, reports) names them still."""
    held, unread = _held(find_in_versions(settings, sought), depth=3)
    yield from unread
    published = published_folder(settings)
    current = None if published is None else f"{VERSIONS_KEY}/{published.name}"
    if current in held:
        end = datetime.fromisoformat(manifest_of(settings, current.rpartition("/")[2])["as_of"])
        try:
            made = run_refresh(settings, DataInterval(end - _DAY, end), force_full=True)
            report_after_publishing(settings, made)
        except InputError as error:
            yield Unread(current, f"it cannot be made anew: {error}")
            held.pop(current)
    with publishing_lock(settings):
        yield from _remove(settings, held)


def forget_in_models(settings: Settings, sought: Sought) -> Forgot:
    """Write each model that knows one of the customers anew without them. Artefacts to which no
    entry of the registry leads go: a training, or an earlier try, died before it had done so."""
    held, unread = _held(find_in_models(settings, sought), depth=4)
    yield from unread
    store, registry = open_store(settings), Registry(settings)
    entries = {entry.path: entry for entry in registry.list()}
    for key in held:
        if (entry := entries.get(key)) is not None:
            place = registry.next_place(entry)
            with ArtifactFolder(store.fetch(key)) as artifact:
                write_without(artifact, sought.ids, place)
            registry.move(entry.model_id, place)
    yield from _remove(settings, held)


_Held = dict[str, Counter[str]]
"""Folders -> how many records each place in them has."""


def _held(found: Found, depth: int) -> tuple[_Held, list[Unread]]:
    """The folders, so many names deep, that have something of the customers; and what cannot be
    told."""
    held, unread = dict[str, Counter[str]](), list[Unread]()
    for one in found:
        if isinstance(one, Record):
            folder = "/".join(one.place.split("/")[:depth])
            held.setdefault(folder, Counter())[one.place] += 1
        elif isinstance(one, Unread):
            unread.append(one)
    return held, unread


def _remove(settings: Settings, held: _Held) -> Forgot:
    """Remove the folders; who reads one has some time to take over another."""
    store, until = open_store(settings), time.monotonic() + PATIENCE_SECONDS
    for key, places in held.items():
        while not (gone := store.remove(key)) and time.monotonic() < until:
            time.sleep(_PAUSE_SECONDS)
        if gone:
            yield from (Erased(place, count) for place, count in places.items())
        else:
            yield Unread(key, "somebody reads it: it goes with the next run after that")
