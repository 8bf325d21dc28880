"""Events of every kind as they are known at this moment, for jobs that run beside the refresh.

An event wanders from the open segment of a process over a sealed one, where state is shared over
the store, to the archive; it is in one of these places at any moment, or in two. Read in this order
they miss none, whatever a refresh does meanwhile."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.arrays import UInt64Array
from recsys.config import load_config
from recsys.data import staging
from recsys.data.cleaning import CleanRows, Limits
from recsys.data.config import DataConfig
from recsys.data.events import (
    FIRST_AT,
    archives,
    clean_staged,
    event_frame,
    limits_of,
    merge,
    once_each,
    read_archive,
    read_archived_ids,
    read_event_file,
    read_segment,
    take_back,
)
from recsys.data.reading import RawRows
from recsys.data.sources import SourceConfig, load_source, resolve_event_sources, source_name
from recsys.errors import SourceError
from recsys.privacy import Forgotten, load_forgotten
from recsys.settings import Settings
from recsys.storage import open_store

logger = logging.getLogger(__name__)

REPEATED_WITHIN = timedelta(days=7)
"""An id that is sent again so long after it was first received still counts once here. (In a
version it counts once for ever.)"""

CLOCK_SLACK = timedelta(minutes=10)
"""So much later than it was received an event may be, by the clock of another machine."""

_SEEN = "seen"  # folder of the staging area
_EVER = datetime(1900, 1, 1, tzinfo=UTC)
_NEVER = datetime(9000, 1, 1, tzinfo=UTC)


def read_events(settings: Settings, since: datetime, until: datetime) -> pd.DataFrame:
    """Every valid event of any kind with TIMESTAMP in [`since`, `until`), each id once.

    `recsys.data.events.EVENT_COLUMNS`, ordered by TIMESTAMP and EVENT. Ratings of the shop's review
    files are none. RECEIVED of what an export brought is its TIMESTAMP. Raises `SourceError` if a
    listed export cannot be read."""
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    found = _read(settings, _Window(since, until, received=since - CLOCK_SLACK))
    return found[(found[schema.TIMESTAMP] >= since).to_numpy()].reset_index(drop=True)


def events_received(settings: Settings, since: datetime) -> pd.DataFrame:
    """Every valid event that was received at `since` or later, whatever its time, and all events of
    an export that was written since then; else like `read_events`. Some may have been delivered
    before."""
    return _read(settings, _Window(_EVER, _NEVER, received=since, is_exact=True))


def ids_taken_back(settings: Settings, since: datetime) -> UInt64Array:
    """Hashes of the event ids that an export which was written since then takes back: on which days
    they happened is for those to know who have counted them. Raises like `read_events`."""
    main = load_source(settings, source_name(settings))
    parts = _exports(settings, main, _limits(settings, main, _NEVER), since)
    found = [part.taken_back.index.to_numpy() for part in parts if part.taken_back is not None]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


@dataclass(frozen=True)
class _Window:
    """What is looked for: events in [`since`, `until`). Those that were received before `received`
    need not be found; if that `is_exact` they must not be, but exports that were written since."""

    since: datetime
    until: datetime
    received: datetime
    is_exact: bool = False

    def may_hold(self, archive: pq.FileMetaData) -> bool:
        first = (archive.metadata or {}).get(FIRST_AT)
        is_later = first is not None and datetime.fromisoformat(first.decode()) >= self.until
        return not is_later and not _ends_before(archive, self.received)


def _read(settings: Settings, window: _Window) -> pd.DataFrame:
    """The events of all places, in the order in which they wander."""
    main = load_source(settings, source_name(settings))
    limits = _limits(settings, main, window.until)
    raws = [*_staged(settings, limits.forgotten), *_archived(settings, window, limits.forgotten)]
    staged, taken = event_frame([]), np.zeros(0, np.uint64)
    if once := once_each(raws):
        staged = clean_staged(once.between(window.since, window.until), limits).accepted
        if window.is_exact:
            staged = staged[(staged[schema.RECEIVED] >= window.received).to_numpy()]
        taken = once.taken(staged)
    parts = _exports(settings, main, limits, window.received)
    staged = take_back(staged, parts)
    exports = event_frame(part.accepted for part in parts)
    return merge(staged, exports, taken)[0].sort_values(
        [schema.TIMESTAMP, schema.EVENT], ignore_index=True
    )


def _limits(settings: Settings, main: SourceConfig, until: datetime) -> Limits:
    earliest = load_config(settings, DataConfig).earliest_time
    now, forgotten = datetime.now(UTC), load_forgotten(settings)
    return Limits(ZoneInfo(main.timezone), earliest, until, now, main.id_rules, forgotten)


def _exports(
    settings: Settings, main: SourceConfig, limits: Limits, since: datetime
) -> list[CleanRows]:
    """The exports that were written since then: what the others say has happened before."""
    return [
        read_event_file(path, source.config.events, limits_of(source, main, limits))
        for source in resolve_event_sources(settings)
        for path in source.files
        if _written(path) >= since
    ]


def _staged(settings: Settings, forgotten: Forgotten) -> Iterator[RawRows]:
    """What waits for a refresh, of this machine and, where state is shared, of all."""
    for folder in (staging.open_segments(settings), staging.sealed_segments(settings)):
        yield from _segments(folder, forgotten)
    store = open_store(settings)
    if store.shared:
        # Not where a refresh collects them: it begins by emptying that folder.
        seen = settings.staging / _SEEN
        store.see(staging.SEALED_KEY, seen.relative_to(settings.home).as_posix())
        yield from _segments(seen, forgotten)
        store.mirror(staging.RAW_KEY, staging.RAW_KEY)


def _segments(folder: Path, forgotten: Forgotten) -> Iterator[RawRows]:
    for path in sorted(folder.glob("*.jsonl")):
        try:
            yield read_segment(path, forgotten)
        except FileNotFoundError:  # it went on
            continue
        except OSError as error:  # a refresh tells of it
            logger.warning("%s: cannot be read: %s", path, error)


def _archived(settings: Settings, window: _Window, forgotten: Forgotten) -> Iterator[RawRows]:
    for path in archives(settings, source_name(settings)):
        try:
            metadata = pq.read_metadata(path)
            if window.may_hold(metadata):
                yield read_archive(path, forgotten)
            elif not _ends_before(metadata, window.received - REPEATED_WITHIN):
                yield read_archived_ids(path)
        except (OSError, pa.ArrowException, SourceError) as error:  # a refresh tells of it
            logger.warning("%s: cannot be read: %s", path, error)


def _ends_before(archive: pq.FileMetaData, moment: datetime) -> bool:
    """Whether all of it was received before; they are written as UTC, so texts are in order."""
    column = archive.schema.names.index(schema.RECEIVED)
    groups = (archive.row_group(number).column(column) for number in range(archive.num_row_groups))
    found = [group.statistics for group in groups]
    last = [stats.max if stats is not None and stats.has_min_max else "~" for stats in found]
    return max(last, default="") < moment.astimezone(UTC).isoformat()


def _written(path: Path) -> datetime:
    """When the file came to be as it is here, whatever a copy says of its age."""
    status = path.stat()
    return datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), UTC)
