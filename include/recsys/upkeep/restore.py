"""``python -m recsys restore``: a state root from a backup; all of it, or nothing."""

import contextlib
import errno
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from pydantic import ValidationError

from recsys.config import parse_json
from recsys.privacy import FORGETTING_KEY, adopt_privacy, read_requests
from recsys.pseudonyms import PRIVACY_KEY, REQUESTS_KEY, keep_private
from recsys.publishing import sha256_of, sync, sync_tree
from recsys.settings import Settings
from recsys.storage import StorageError, open_store
from recsys.storage.bundle import LAYOUT, MANIFEST, FileEntry
from recsys.upkeep.backup import AREAS, BackupError, Manifest, check_links, check_path, unpacking
from recsys.upkeep.tombstones import erase_forgotten

CONFIG_ASIDE = "config.restored"
_STORAGE = "config/storage.yaml"
_LARGEST_MANIFEST = 256 << 20  # bytes: of a million files
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM)


def restore_backup(settings: Settings, source: Path, privacy: Path | None = None) -> dict[str, Any]:
    """Unpack the backup `source` into the empty state root of `settings`.

    Everything is unpacked beside its place and compared with the manifest first. Who is forgotten
    by the register of the backup, of what is in ``data/privacy`` of the state root, or of a copy of
    that in the folder `privacy` is so before anything is put in place. The backup's ``config/`` is
    put next to one that is there (of a checkout of the repository), as ``config.restored/``.
    Returns ``{home, files, bytes, created_at, config, forgotten, left}``: how many customers were
    in the backup and are forgotten, and places that a person has to look at.

    Raises `BackupError` if the state root holds anything else, cannot be written or has no space,
    the file is no sound backup, or `privacy` has no register with a request; `InputError` if a
    register is damaged, or lacks its key. Nothing is changed then."""
    _require_empty(settings)
    if privacy is not None and not (privacy / Path(REQUESTS_KEY).name).is_file():
        raise BackupError(f"{privacy}: is no copy of {PRIVACY_KEY}: there is no register in it")
    try:
        with unpacking(settings.home) as unpacked:
            with _opened(source) as tar:
                manifest = _unpack(tar, source.stat().st_size, unpacked)
            forgotten = _forget(settings, unpacked, privacy)
            sync_tree(unpacked)
            config = _put_in_place(settings, unpacked)
    except StorageError:
        raise
    except OSError as error:
        why = f"what {source} holds cannot be written: {error.strerror or error}"
        raise BackupError(f"{error.filename or settings.home}: {why}") from error
    return {
        "home": str(settings.home),
        "files": len(manifest.files),
        "bytes": sum(entry.size or 0 for entry in manifest.files.values()),
        "created_at": manifest.created_at,
        "config": config,
        "forgotten": forgotten["customers"],
        "left": forgotten["left"],
    }


def _forget(settings: Settings, unpacked: Path, privacy: Path | None) -> dict[str, Any]:
    """Bring the register of what is unpacked up to date, and remove who is forgotten by it."""
    restored = Settings(unpacked)
    storage, aside = unpacked / _STORAGE, unpacked / f"{_STORAGE}.aside"
    if storage.exists():  # the bucket that it names is not what is being restored
        storage.rename(aside)
    adopt_privacy(restored, settings)
    if privacy is not None:
        with tempfile.TemporaryDirectory(dir=unpacked) as folder:
            copy = Path(folder) / PRIVACY_KEY
            _copy(privacy, copy)
            if not read_requests(Settings(Path(folder)))[0]:
                raise BackupError(f"{privacy}: its register is empty: nobody would be forgotten")
            adopt_privacy(restored, Settings(Path(folder)))
    found = erase_forgotten(restored)
    if open_store(settings).shared:  # the bucket has them, and would not know of these
        (unpacked / FORGETTING_KEY).unlink(missing_ok=True)
    if aside.exists():
        aside.rename(storage)
    return found


def _copy(privacy: Path, target: Path) -> None:
    """Its files alone: what else lies in such a folder is no part of the register."""
    target.mkdir(parents=True)
    for path in sorted(privacy.glob("*.json")):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BackupError(f"{path}: cannot be read: {error.strerror or error}") from error
        (target / path.name).write_bytes(content)


def _require_empty(settings: Settings) -> None:
    for area in AREAS:
        path = settings.home / area
        there = path.is_symlink() or (path.exists() and _holds_anything(settings, path))
        if area != "config" and there:
            sentence = "is not empty; a backup is restored into an empty state root"
            raise BackupError(f"{path}: {sentence}")
    if (settings.home / CONFIG_ASIDE).exists():
        raise BackupError(f"{settings.home / CONFIG_ASIDE}: exists from a restore before; move it")


def _holds_anything(settings: Settings, area: Path) -> bool:
    """Anything but the register: it is kept apart from backups, and put back first."""
    return any(path != settings.home / PRIVACY_KEY for path in area.iterdir())


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:") as tar:
            yield tar
    except BackupError:
        raise
    except (OSError, EOFError, ValueError, OverflowError, tarfile.TarError) as error:
        no_place = isinstance(error, OSError) and error.errno in _NO_PLACE
        if no_place and source.is_file() and os.access(source, os.R_OK):
            raise
        raise BackupError(f"{source}: cannot be read as a backup: {error}") from error


def _unpack(tar: tarfile.TarFile, whole: int, folder: Path) -> Manifest:
    """Unpack every member into `folder` and compare it with the manifest, which comes last.

    `whole` is the size of the backup in bytes. Links are made at the end, so that no file is ever
    written through one."""
    found: dict[str, FileEntry] = {}
    links: dict[str, str] = {}
    manifest: Manifest | None = None
    for member in tar:
        # A header can promise more than there is, and a disk be filled with the zeros of holes.
        if member.issparse() or not 0 <= member.size <= whole:
            raise BackupError(f"{member.name}: has holes or a size of {member.size}; no backup has")
        if manifest is not None or member.name in found or member.name in links:
            raise BackupError(f"{member.name}: this backup holds it twice, or after its end")
        if member.name == MANIFEST and member.isfile():
            content = cast("IO[bytes]", tar.extractfile(member))
            manifest = _parse(content.read(_LARGEST_MANIFEST))
        elif member.issym():
            links[member.name] = member.linkname
        elif member.isreg():
            found[member.name] = _unpack_file(tar, member, folder)
        else:
            raise BackupError(f"{member.name}: a backup holds only files and links")
    if manifest is None:
        raise BackupError("the backup has no manifest: it was cut off, or is something else")
    check_links(links)
    _compare(manifest, found, links)
    for name, target in links.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    return manifest


def _unpack_file(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> FileEntry:
    check_path(member.name)
    path = folder / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(cast("IO[bytes]", tar.extractfile(member)), file)
    # Retention goes by the age of files.
    os.utime(path, (member.mtime, member.mtime))
    return FileEntry(sha256=sha256_of(path), size=path.stat().st_size)


def _parse(text: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate(parse_json(text))
    except ValueError as error:  # a `ValidationError` is one; its text would quote the manifest
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BackupError(f"the manifest of the backup is damaged: {problem}") from error
    if manifest.layout > LAYOUT:
        raise BackupError(
            f"the backup has layout {manifest.layout}, this code knows layouts up to {LAYOUT}; "
            "restore it with newer code"
        )
    return manifest


def _compare(manifest: Manifest, found: dict[str, FileEntry], links: dict[str, str]) -> None:
    if different := dict(manifest.files.items() ^ found.items()):
        name = min(different)
        raise BackupError(f"{name}: its content is not what the backup's manifest describes")
    if manifest.links != links:
        raise BackupError("the links are not those that the backup's manifest describes")


def _put_in_place(settings: Settings, unpacked: Path) -> str:
    """Move the areas to their places, the register first; returns where the configuration went."""
    register, kept = unpacked / PRIVACY_KEY, settings.home / PRIVACY_KEY
    if register.exists():
        keep_private(settings.home)
        for path in register.iterdir():
            path.replace(kept / path.name)
        register.rmdir()
        keep_private(settings.home)
        sync(kept)
    config = CONFIG_ASIDE if (settings.home / "config").exists() else "config"
    for area in AREAS:
        place = settings.home / (config if area == "config" else area)
        if not (unpacked / area).exists():
            continue
        if place.exists():  # with the register, or nothing
            for path in (unpacked / area).iterdir():
                path.rename(place / path.name)
            sync(place)
        else:
            (unpacked / area).rename(place)
    sync(settings.home)
    return config
