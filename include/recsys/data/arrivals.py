"""What arrived beside the source's files: read by a refresh, and archived once it is published."""

import contextlib
import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from recsys.data import staging
from recsys.data.cleaning import REASON, CleanRows, Limits, clean_rows, read_reviews, reject_file
from recsys.data.config import DataConfig
from recsys.data.events import (
    ARCHIVE_KEY,
    EVENT_TIMES,
    OnceEach,
    archives,
    once_each,
    read_archive,
    read_segment,
    without_expired,
    write_archive,
)
from recsys.data.keys import ARRIVAL
from recsys.data.reading import RawRows
from recsys.data.sources import Source
from recsys.data.staging import RAW_KEY, folders_to_read
from recsys.errors import SourceError
from recsys.ids import STANDS_FOR_MANY
from recsys.privacy import Forgotten, load_forgotten
from recsys.publishing import atomic_path, sync
from recsys.settings import Settings
from recsys.storage import open_store

Staged = dict[str, list[Any]]
"""What of the staging area a refresh read: the names of the sealed ``segments``, the dropped
``files``, and the ``bad_files`` that were not usable, segments among them. Of files there are path,
size and time of change, for telling whether one is still the same when it is archived; of bad ones
the ``reason`` as well."""


def read_arrivals(
    settings: Settings, source: Source, config: DataConfig, limits: Limits
) -> tuple[list[CleanRows], Staged, OnceEach | None]:
    """Ratings and dropped files of all times, from the staging area and the archive of `source`;
    and events of all kinds as they were staged. What cannot be read, and a dropped file of which
    more than ``max_invalid_fraction`` is bad, is set aside as a whole: it must not stop the shop's
    refresh."""
    parts: list[CleanRows] = []
    staged: Staged = {"segments": [], "files": [], "bad_files": []}
    horizon = limits.as_of - config.views_count_for
    events = once_each(_read_events(settings, source, horizon, parts, staged, limits.forgotten))
    if events is not None:
        cleaned = clean_rows(events.ratings, EVENT_TIMES, limits)
        cleaned.repeated = events.repeated_ratings
        parts.append(cleaned)

    for number, path in enumerate(_dropped(settings, source), start=1):
        kind = "files"
        try:
            described: dict[str, Any] = _describe(settings, path)
            cleaned = read_reviews(path, source.config.reviews, limits)
            cleaned.accepted[ARRIVAL] = np.int32(number)
        except FileNotFoundError:  # somebody has taken it away
            continue
        except SourceError as error:
            cleaned = reject_file(path, str(error))
        if cleaned.bad_rows > config.max_invalid_fraction * max(cleaned.rows_read, 1):
            reasons = cleaned.rejected[REASON].value_counts().drop(STANDS_FOR_MANY, errors="ignore")
            why = "; ".join(f"{reason} (rows: {count})" for reason, count in reasons.items())
            reason = f"the file is set aside as a whole, {cleaned.bad_rows} rows are bad: {why}"
            cleaned = reject_file(path, reason)
            kind, described["reason"] = "bad_files", why.removeprefix(f"{path}: ")
        staged[kind].append(described)
        parts.append(cleaned)
    return parts, staged, events


def collect_arrivals(settings: Settings) -> None:
    """Copy raw files, and what other machines handed in or archived, into this state root."""
    staging.collect_staging(settings)
    open_store(settings).mirror(RAW_KEY, RAW_KEY)


def archive_arrivals(
    settings: Settings, source: str, version_id: str, staged: Staged
) -> list[dict[str, str]]:
    """Move what `version_id` contains out of the staging area. Can be repeated after a crash. A
    dropped file that has changed since it was read stays for the next run. Returns of each file
    that was set aside its ``file`` (the name), ``reason``, and ``place`` in the state root."""
    collect_arrivals(settings)
    store = open_store(settings)
    segments = [folders_to_read(settings)[0] / name for name in staged["segments"]]
    key = f"{ARCHIVE_KEY}/{source}/{version_id}.parquet"
    target = settings.home / key
    if not target.exists():
        # Segments go away only after the archive stands, so here all of them are still there.
        forgotten, there = load_forgotten(settings), [path for path in segments if path.exists()]
        write_archive(target, [read_segment(path, forgotten) for path in there])
    if target.exists():
        store.share(key)
    for path in segments:
        path.unlink(missing_ok=True)
        store.discard(f"{staging.SEALED_KEY}/{path.name}")
    _move(staged["files"], settings, settings.raw / "dropped" / source, version_id)
    aside = _move(staged["bad_files"], settings, settings.quarantine / "files", version_id)
    return [
        {
            "file": Path(entry["path"]).name,
            "reason": entry["reason"],
            "place": place.relative_to(settings.home).as_posix(),
        }
        for entry, place in aside
    ]


def _describe(settings: Settings, path: Path) -> dict[str, Any]:
    """Path in the state root (another machine may archive it), size and time of change."""
    status = path.lstat()
    name = path.relative_to(settings.home).as_posix()
    return {"path": name, "size": status.st_size, "changed": status.st_mtime_ns}


def _move(
    described: Iterable[dict[str, Any]], settings: Settings, folder: Path, version_id: str
) -> list[tuple[dict[str, Any], Path]]:
    """Move the files into `folder`; where each lies now, but for those that stay."""
    store, waiting = open_store(settings), folders_to_read(settings)
    archived_at = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
    places = []
    for number, entry in enumerate(described, start=1):
        path, own = settings.home / entry["path"], f"{version_id}-{number:05}-"
        if not path.exists():  # a try before this one has moved it, unless somebody took it away
            places += [(entry, place) for place in folder.glob(f"*-{own}*")]
            continue
        if path.parent not in waiting or not _describe(settings, path).items() <= entry.items():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        # Names in the order of arrival, which neither the times of copies nor the versions would
        # keep: a backfill archives what is dropped today into the version of a day long past.
        moved = folder / staging.marked_name(f"{archived_at}-{own}", path.name)
        places.append((entry, moved))
        if path.is_symlink():  # what it leads to is the shop's
            with atomic_path(moved) as copy:
                shutil.copyfile(path, copy)
            path.unlink()
        else:
            shutil.move(path, moved)
        with contextlib.suppress(PermissionError):  # it is somebody else's
            os.utime(moved)  # its age here counts from now, however old the shop's copy is
        sync(folder)
        store.share(moved.relative_to(settings.home).as_posix())
        store.discard(f"{staging.STAGING_KEY}/{path.parent.name}/{path.name}")
    return places


def _dropped(settings: Settings, source: Source) -> list[Path]:
    """All files that were ever dropped, in the order in which they arrived."""
    archived = (settings.raw / "dropped" / source.name).glob("[!.]*")
    found = staging.dropped_files(folders_to_read(settings)[1])
    waiting = [path for path in found if path.name.isprintable()]  # else it is not handed in yet
    return [*sorted(archived), *sorted(waiting, key=lambda at: (at.stat().st_mtime_ns, at.name))]


def _read_events(
    settings: Settings,
    source: Source,
    horizon: datetime,
    parts: list[CleanRows],
    staged: Staged,
    forgotten: Forgotten,
) -> list[RawRows]:
    """All events, archived or staged, but archived views and clicks from before the `horizon`, and
    those of who is `forgotten`; notes which segments they came from."""
    raws = []
    for path in archives(settings, source.name):
        try:
            raws.append(without_expired(read_archive(path, forgotten), horizon))
        except SourceError as error:  # stays where it is: a backup may restore it
            parts.append(reject_file(path, str(error)))
    sealed = folders_to_read(settings)[0]
    folders = [sealed] if open_store(settings).shared else [sealed, staging.open_segments(settings)]
    for path in [path for folder in folders for path in sorted(folder.glob("*.jsonl"))]:
        try:
            raws.append(read_segment(path, forgotten))
            staged["segments"] += [path.name] if path.parent == sealed else []
        except OSError as error:
            reason = f"cannot be read: {error}"
            parts.append(reject_file(path, f"{path}: {reason}"))
            described = {**_describe(settings, path), "reason": reason}
            staged["bad_files"] += [described] if path.parent == sealed else []
    return raws
