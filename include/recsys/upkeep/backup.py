"""``python -m recsys backup``: one tar file with everything of a state root that cannot be made
again. Its manifest comes last. `recsys.upkeep.restore` is the way back."""

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from recsys.data.versions import list_versions, open_version
from recsys.errors import InputError
from recsys.publishing import atomic_path
from recsys.served_lists import SUFFIX
from recsys.settings import Settings
from recsys.storage.bundle import (
    DOOMED_PREFIX,
    LAYOUT,
    MANIFEST,
    FileEntry,
    Listing,
    is_inside,
    leads_inside,
)

AREAS = ("data", "artifacts", "logs", "reports", "config")
# Scratch of running jobs, and what belongs to open files of this machine.
_LEFT_OUT = ("data/work",)
_SUFFIXES_LEFT_OUT = ("-wal", "-shm", "-journal", ".lock", ".tmp")
_UNPACKED = ".restore-"
_SQLITE = b"SQLite format 3\0"


class BackupError(InputError):
    """A backup cannot be made or used; the text names file or path and what is wrong."""


class Manifest(Listing):
    """What is in a backup; paths are relative to the state root."""

    created_at: str


def check_path(path: str) -> None:
    """Raises `BackupError` if `path` is not below one of the areas."""
    parts = PurePosixPath(path).parts
    if not is_inside(path) or len(parts) < 2 or parts[0] not in AREAS:
        raise BackupError(f"{path!r} in the backup is not a path below {', '.join(AREAS)}")


def check_links(links: dict[str, str]) -> None:
    """Raises `BackupError` if one of the `links` {path: target} leads out of the state root."""
    for path, target in links.items():
        check_path(path)
        if not leads_inside(path, links):
            raise BackupError(f"{path}: the link leads to {target}, outside of the state root")


@contextlib.contextmanager
def unpacking(home: Path) -> Iterator[Path]:
    """A folder in the state root `home`, for its owner alone, to unpack a backup to; it goes
    afterwards. What a restore that was killed has left goes first."""
    remove_unpacked(home)
    folder = home / f"{_UNPACKED}{uuid.uuid4().hex}"
    folder.mkdir(mode=0o700, parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


def remove_unpacked(home: Path) -> None:
    """Remove what restores that were killed have left in the state root `home`."""
    for folder in home.glob(f"{_UNPACKED}*"):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        except BlockingIOError:  # it is at work
            continue
        finally:
            os.close(descriptor)


def write_backup(settings: Settings, target: Path) -> dict[str, Any]:
    """Write everything of the state root but secrets, scratch and Airflow's own files to `target`.

    Jobs and the service may go on meanwhile: published folders never change, SQLite itself copies
    databases, data versions are pinned, and a model that vanishes makes the backup fail. Returns
    ``{file, bytes, files, created_at}``.

    Raises `BackupError` if `target` exists or lies in what is backed up, a link leads out of the
    state root, a file vanishes while it is copied or cannot be read, or there is no space."""
    target = target.absolute()
    _require_good_target(settings, target)
    try:
        with atomic_path(target) as temporary:
            temporary.touch(mode=0o600)
            with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
                manifest = _write(settings, tar, target.parent)
    except OSError as error:
        why = f"the backup cannot be made: {error.strerror or error}"
        raise BackupError(f"{error.filename or target}: {why}") from error
    return {
        "file": str(target),
        "bytes": target.stat().st_size,
        "files": len(manifest.files),
        "created_at": manifest.created_at,
    }


def _write(settings: Settings, tar: tarfile.TarFile, scratch: Path) -> Manifest:
    writer = _Writer(settings, tar, scratch)
    for turn in range(3):
        found = (path for area in AREAS for path in _paths_of(settings, area))
        with contextlib.ExitStack() as pins:  # every version that exists now stays meanwhile
            for name in list_versions(settings):
                pins.enter_context(open_version(settings, name))
            writer.add([path for path in found if _turn(settings, path) == turn])
    manifest = writer.manifest()
    _require_published(settings, manifest)
    content = manifest.to_json()
    entry = tarfile.TarInfo(MANIFEST)
    entry.size, entry.mode = len(content), 0o640
    tar.addfile(entry, io.BytesIO(content))
    return manifest


def _require_good_target(settings: Settings, target: Path) -> None:
    if target.exists():
        raise BackupError(f"{target}: exists already; a backup never overwrites a file")
    if not target.parent.is_dir():
        what = "is not a folder" if target.parent.exists() else "does not exist; make it first"
        raise BackupError(f"{target.parent}: {what}")
    for area in AREAS:
        if target.resolve().is_relative_to((settings.home / area).resolve()):
            raise BackupError(
                f"{target}: lies in {area}/, which is backed up; choose another place"
            )


def _turn(settings: Settings, path: Path) -> int:
    """When a path is saved. First events and served lists that wait: those that a job takes
    meanwhile are then in two places, and count once by their ids and segments. Last published
    folders: what a pointer leads to exists when the pointer is read, and never changes."""
    if path.is_relative_to(settings.staging) or path.suffix == SUFFIX:
        return 0
    return 2 if _is_immutable(settings, path) else 1


def _is_immutable(settings: Settings, path: Path) -> bool:
    roots = (settings.versions, settings.embeddings, settings.artifacts)
    return any(path.is_relative_to(root) and path.parent != root for root in roots)


def _require_published(settings: Settings, manifest: Manifest) -> None:
    """Raises `BackupError` if the version that ``data/processed`` led to was pruned meanwhile."""
    name = settings.processed.relative_to(settings.home).as_posix()
    if name in manifest.links:
        version_id = PurePosixPath(manifest.links[name]).name
        folder = settings.versions.relative_to(settings.home) / version_id
        if (folder / MANIFEST).as_posix() not in manifest.files:
            raise BackupError(f"{folder}: was removed while the backup was made; make it again")


def _paths_of(settings: Settings, area: str) -> Iterator[Path]:
    """Files and links of an area, in a stable order; linked folders are not entered.

    Raises `BackupError` for an area that is itself a link."""
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
            and not name.startswith(DOOMED_PREFIX)
            and not name.endswith(_SUFFIXES_LEFT_OUT)
        )
        for name in sorted([*files, *linked]):
            if not name.endswith(_SUFFIXES_LEFT_OUT):
                yield here / name


class _Writer:
    """Adds files to a tar and remembers their hashes."""

    def __init__(self, settings: Settings, tar: tarfile.TarFile, scratch: Path) -> None:
        self._settings, self._tar, self._scratch = settings, tar, scratch
        self._files: dict[str, FileEntry] = {}
        self._links: dict[str, str] = {}

    def add(self, paths: list[Path]) -> None:
        """Add files and links, as far as they are still there."""
        for path in paths:
            name = path.relative_to(self._settings.home).as_posix()
            check_path(name)
            if path.is_symlink():
                self._add_link(path, name)
            elif path.is_file():
                self._add_file(path, name)
            elif not path.exists():
                self._vanished(path)

    def manifest(self) -> Manifest:
        """What was added so far."""
        return Manifest(
            layout=LAYOUT,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            files=self._files,
            links=self._links,
        )

    def _add_link(self, path: Path, name: str) -> None:
        target = str(path.readlink())
        check_links({name: target})
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(entry)
        self._links[name] = target

    def _add_file(self, path: Path, name: str) -> None:
        try:
            with path.open("rb") as file:
                if file.read(len(_SQLITE)) != _SQLITE:
                    file.seek(0)
                    return self._add_content(file, name)
        except FileNotFoundError:
            return self._vanished(path)
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix=".backup-") as copy:
            _copy_database(path, copy.name)
            return self._add_content(copy.file, name)

    def _add_content(self, file: IO[bytes], name: str) -> None:
        """Add as many bytes as there are now: a log file may grow meanwhile."""
        status = os.fstat(file.fileno())
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime, entry.mode = status.st_size, status.st_mtime, 0o640
        reader = _HashingReader(file)
        self._tar.addfile(entry, reader)
        self._files[name] = FileEntry(sha256=reader.digest.hexdigest(), size=entry.size)

    def _vanished(self, path: Path) -> None:
        """Reports and log files come and go; what a pointer may lead to must not."""
        if _is_immutable(self._settings, path):
            raise BackupError(f"{path}: was removed while the backup was made; make it again")


class _HashingReader(io.RawIOBase):
    """Reads from a file and hashes what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


def _copy_database(path: Path, target: str) -> None:
    """Copy a database as of one moment, whoever writes to it."""
    source = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)
    copy = sqlite3.connect(target)
    with contextlib.closing(source), contextlib.closing(copy):
        source.backup(copy)
        # The copy is one file: no log beside it that a restore would have to know of.
        copy.execute("PRAGMA journal_mode = DELETE")
