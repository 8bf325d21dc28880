"""Simulated traffic must not get among what a shop's customers really did: whose data it may touch,
and what tells everybody who looks at the figures that they are simulated."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from recsys.config import parse_json
from recsys.data.sources import resolve_source
from recsys.data.staging import seal_segments, sealed_segments, segment_lines
from recsys.data.versions import PublishedVersion, VersionError, manifest_of
from recsys.errors import InputError
from recsys.publishing import sha256_of, write_bytes, write_json
from recsys.settings import Settings

MARK_NAME = "sample_shop.json"
NOTE_NAME = "simulated.json"
"""Below ``data``: how much was simulated here, and of which days."""


PREFIX = "sim-"
"""How ids of simulated events, visits and new customers begin."""

# In a line of a segment; what one of several senders sent has its name before the id.
_EVENT = re.compile(rf'"event_id": "(?:[^"/]*/)?{PREFIX}')


class Simulated(NamedTuple):
    """All simulated traffic of a state root; its days are dates of the shop."""

    first_day: str
    last_day: str
    lists: int
    events: int

    def __str__(self) -> str:
        return (
            f"{self.lists:,} lists and {self.events:,} events of {self.first_day} to "
            f"{self.last_day}"
        )


def mark_sample(folder: Path, *paths: Path) -> None:
    """Say beside the files `paths` of a sample shop that they are one, for as long as they stay as
    they are."""
    write_json(folder / MARK_NAME, {path.name: sha256_of(path) for path in paths})


def require_sample(settings: Settings, version: PublishedVersion) -> None:
    """Raise `InputError` unless both `version` and the next refresh are of a sample shop, as
    `sample-data` writes it; `SourceError` if there is no source to refresh from."""
    source, manifest = resolve_source(settings), version.manifest
    here = (*source.review_files, *source.product_files)
    because = (
        "traffic is simulated for the sample shop only, so that customers that do not exist do not "
        "get among the shop's own"
    )
    for path in here:
        mark = _mark_of(path.parent).get(path.name)
        if mark is None or mark != sha256_of(path):  # large files of a shop are not read
            raise InputError(
                f"{path} of the source {source.name!r} is not what `sample-data` wrote: {because}"
            )
    if not _marked(manifest):
        name = manifest["source"]["name"]
        raise InputError(
            f"data version {version.version_id} was made of other files, of the source {name!r}: "
            f"{because}"
        )


def is_sample(settings: Settings, version_id: str) -> bool:
    """Whether a data version was made of a sample shop alone, whose customers do not exist; not if
    there is no such version, or nobody can tell any more."""
    try:
        return _marked(manifest_of(settings, version_id))
    except (OSError, VersionError):
        return False


def drop_staged(settings: Settings) -> int:
    """Take simulated events out of the staging area of this machine, before the next refresh reads
    another shop's files. Returns how many there were."""
    seal_segments(settings)
    dropped = 0
    for segment in sorted(sealed_segments(settings).glob("*")):
        lines = segment_lines(segment)
        kept = [line for line in lines if not _EVENT.search(line)]
        dropped += len(lines) - len(kept)
        if not kept:
            segment.unlink()
        elif len(kept) < len(lines):
            content = "".join(f"{line}\n" for line in kept)
            write_bytes(segment, content.encode("utf-8", "surrogateescape"))
    return dropped


def read_note(settings: Settings) -> Simulated | None:
    """What was simulated in this state root so far, None if nothing was."""
    path = settings.home / "data" / NOTE_NAME
    try:
        return Simulated(**parse_json(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def note_traffic(
    settings: Settings, since: datetime, until: datetime, lists: int, events: int
) -> None:
    """Add `lists` and `events` of the time from `since` to `until` (local times of the shop)."""
    first_day, last_day = f"{since:%Y-%m-%d}", f"{until:%Y-%m-%d}"
    before = read_note(settings) or Simulated(first_day, last_day, 0, 0)
    note = Simulated(
        first_day=min(before.first_day, first_day),
        last_day=max(before.last_day, last_day),
        lists=before.lists + lists,
        events=before.events + events,
    )
    write_json(settings.home / "data" / NOTE_NAME, note._asdict())


def _marked(manifest: dict[str, Any]) -> bool:
    sources = {Path(entry["path"]): entry["sha256"] for entry in manifest.get("sources", [])}
    return bool(sources) and all(
        _mark_of(path.parent).get(path.name) == sha for path, sha in sources.items()
    )


def _mark_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(parse_json((folder / MARK_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
