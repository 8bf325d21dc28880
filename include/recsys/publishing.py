"""The one way files come into being: complete or not at all.

A writer fills a temporary sibling, which is flushed to the disk and renamed over the target;
then the folder is flushed, so that the new name survives a power cut as well."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
DAMAGED = ".damaged-"
"""What the name of something that was set aside has after its own."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; it becomes `path` if the block ends normally.

    For writers that want a path (pyarrow, NumPy). On any error the sibling is removed and
    `path` stays as it was. A folder that lies there is set aside."""
    with _becoming(path) as temporary:
        yield temporary
        sync(temporary)
        if path.is_dir() and not path.is_symlink():
            set_aside(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file `path` by `content`, atomically and durably. In a folder that is its owner's
    alone the file is so as well, wherever it is copied to."""
    with atomic_path(path) as temporary:
        if not path.parent.stat().st_mode & 0o077:
            temporary.touch(0o600)
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Replace the file `path` by `content` in UTF-8, atomically and durably."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Replace the file `path` by `content` as JSON, as `storable`. NaN and infinities are
    refused."""
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    write_text(path, storable(text) + "\n")


def storable(text: object) -> str:
    """`text` with question marks for what UTF-8 cannot hold: half of a surrogate pair, as an error
    has it that names a file of any bytes."""
    return str(text).encode("utf-8", "replace").decode()


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling folder to fill; it becomes `path` if the block ends normally. Raises
    `FileExistsError` if `path` exists: published folders are immutable."""
    if path.exists():
        raise FileExistsError(f"{path} is already published; published folders never change")
    with _becoming(path) as temporary:
        temporary.mkdir()
        yield temporary
        sync_tree(temporary)


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling folder to fill; it takes the place of the folder `path`, if there is one,
    when the block ends normally. A process that is killed between the two renames leaves none
    there: whoever writes such folders makes one that is missing again."""
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with _becoming(path) as temporary:
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
            with contextlib.suppress(FileNotFoundError):
                path.rename(old)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def point_link(link: Path, target: Path) -> None:
    """Make the symbolic link `link` lead to `target` by a relative path, atomically."""
    with _becoming(link) as temporary:
        temporary.symlink_to(os.path.relpath(target, link.parent))


def leftovers(root: Path) -> list[Path]:
    """Temporary files and folders below `root`, of writers at work and of killed ones."""
    found = [path for path in root.rglob(".*.tmp") if is_temporary(path)]
    return [path for path in found if not any(map(_TEMPORARY.fullmatch, path.parts[:-1]))]


def is_temporary(path: PurePath) -> bool:
    """Whether a path is named as those of writers that are at work, or were killed."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself, to the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if not (Path(parent) / name).is_symlink():
                sync(Path(parent) / name)
        sync(Path(parent))


def sync(folder: Path) -> None:
    """Flush a folder's entries (new names, renames, removals), or a file, to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _becoming(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody else uses; what the block makes there becomes `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        if error.filename is None and error.errno in _OF_DISKS:
            error.filename = str(path)  # writing and flushing know a number alone
        raise
    finally:
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def set_aside(path: Path, *companions: str) -> Path:
    """Move the file or folder `path` out of the way, because it is not what it should be.

    It stays beside its place, as ``NAME.damaged-<time>``, which is returned; so do the files that
    are named like it with one of `companions` at the end. Raises `OSError` if it cannot be moved.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.name}{DAMAGED}{stamp}-{uuid.uuid4().hex[:6]}")
    path.rename(aside)
    for suffix in companions:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    sync(path.parent)
    return aside
