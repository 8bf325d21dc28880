"""What a backup holds: which files of a state root, and the manifest that describes them."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from recsys.config import ConfigModel
from recsys.errors import InputError
from recsys.settings import Settings

FORMAT = 1
MANIFEST = "manifest.json"
AREAS = ("data", "artifacts", "logs", "reports", "config")
# Scratch of running jobs, and what belongs to open files of this machine.
_LEFT_OUT = ("data/work",)
_SUFFIXES_LEFT_OUT = ("-wal", "-shm", "-journal", ".lock", ".tmp")
_REMOVED_SOON = ".removed-"


class BackupError(InputError):
    """A backup cannot be made or used; the text names file or path and what is wrong."""


class FileEntry(ConfigModel):
    """One regular file: hexadecimal SHA-256 and bytes."""

    sha256: str
    size: int


class Manifest(ConfigModel):
    """What is in a backup; paths are relative to the state root, with ``/``."""

    format: int
    created_at: str
    files: dict[str, FileEntry]
    links: dict[str, str]


def check_path(text: str) -> PurePosixPath:
    """`text` as a path below one of the areas. Raises `BackupError` for any other."""
    path = PurePosixPath(text)
    sound = str(path) == text and len(path.parts) > 1 and path.parts[0] in AREAS
    if not sound or ".." in path.parts or "\\" in text or "\0" in text:
        raise BackupError(f"{text!r} in the backup is not a path below {', '.join(AREAS)}")
    return path


def check_link(path: PurePosixPath, target: str) -> None:
    """Raises `BackupError` if the link `path` to `target` leads out of the state root."""
    led_to = os.path.normpath(os.path.join("/root", path.parent, target))  # noqa: PTH118
    if PurePosixPath(target).is_absolute() or not led_to.startswith("/root/"):
        raise BackupError(f"{path}: the link leads to {target}, outside of the state root")


def paths_of(settings: Settings, area: str) -> Iterator[Path]:
    """Files and links of an area, in a stable order; linked folders are not entered.

    Raises `BackupError` for an area that is itself a link.
    """
    root = settings.home / area
    if root.is_symlink():
        raise BackupError(f"{root}: is a link; a backup holds only what lies in the state root")
    for parent, folders, files in os.walk(root):
        here = Path(parent)
        linked = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(
            name
            for name in folders
            if name not in linked
            and (here / name).relative_to(settings.home).as_posix() not in _LEFT_OUT
            and not name.startswith(_REMOVED_SOON)
            and not name.endswith(_SUFFIXES_LEFT_OUT)
        )
        for name in sorted([*files, *linked]):
            if not name.endswith(_SUFFIXES_LEFT_OUT):
                yield here / name
