"""Simulated traffic must not get among what a shop's customers really did: whose data it may touch,
and what tells everybody who looks at the figures that they are simulated."""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from recsys.config import parse_json
from recsys.data.versions import PublishedVersion
from recsys.errors import InputError
from recsys.publishing import sha256_of, write_json
from recsys.settings import Settings

MARK_NAME = "sample_shop.json"
NOTE_NAME = "simulated.json"
"""Below ``data``: how much was simulated here, and of which days."""


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


def require_sample(version: PublishedVersion) -> None:
    """Raise `InputError` unless `version` was made of a sample shop as `sample-data` writes it."""
    manifest = version.manifest
    files = {Path(entry["path"]): entry["sha256"] for entry in manifest["sources"]}
    marks = {folder: _mark_of(folder) for folder in {path.parent for path in files}}
    if not all(marks[path.parent].get(path.name) == sha256 for path, sha256 in files.items()):
        raise InputError(
            f"traffic is simulated for the sample shop only, and data version {version.version_id} "
            f"was made of the files of the source {manifest['source']['name']!r}, which "
            "`sample-data` did not write: customers that do not exist must not get among the "
            "shop's own"
        )


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


def _mark_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(parse_json((folder / MARK_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
