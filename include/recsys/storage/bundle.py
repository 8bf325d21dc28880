"""Bundles: folders that never change, with a manifest that says what is in them.

A reader holds a shared lock on the manifest, its lease, for as long as its `Bundle` lives, and
`remove_folder` takes away no folder that somebody reads. Data versions, embedding sets, models
and scorers are bundles; what travels through a bucket or a backup is described by a `Listing`."""

import contextlib
import fcntl
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Self
from uuid import uuid4

from pydantic import AliasChoices, Field, TypeAdapter

from recsys.config import ConfigModel, parse_json
from recsys.errors import InputError
from recsys.publishing import sha256_of, write_json

MANIFEST = "manifest.json"
LAYOUT = 2
"""Raised whenever a reader of the old layout would misread the new one. `Bundle` still reads those
of layout 1, when each kind of folder had a manifest of its own."""
DOOMED_PREFIX = ".removed-"

_MANIFESTS = (MANIFEST, "metadata.json")  # the second one is that of embedding sets of layout 1
_LAYOUT_NAMES = ("layout", "schema_version", "format")
_SCORER_FILE = "model.npz"


class DamagedError(InputError):
    """What the store holds is not what was put there; the text names the object."""


class FileEntry(ConfigModel):
    """One file: hexadecimal SHA-256, and where it matters its bytes or rows."""

    sha256: str
    size: int | None = None
    rows: int | None = None


class Listing(ConfigModel):
    """What a tree consists of. Paths are relative, with ``/``; links are not followed."""

    layout: int = Field(default=LAYOUT, validation_alias=AliasChoices("layout", "format"))
    files: dict[str, FileEntry]
    links: dict[str, str]

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=1, exclude_none=True).encode()


_FILES: TypeAdapter[dict[str, FileEntry]] = TypeAdapter(dict[str, FileEntry])


class Bundle:
    """One immutable folder, pinned: nothing removes it while this object is open.

    A context manager; an object that is simply dropped gives up its lease as well. Subclasses say
    what they call a damaged one (`error`) and one of newer code (`error_of_newer`), and the newest
    layout that they know. `path` is the resolved folder, `manifest` what its writer noted."""

    error: ClassVar[type[InputError]] = DamagedError
    error_of_newer: ClassVar[type[InputError] | None] = None
    layout: ClassVar[int] = LAYOUT

    def __init__(self, folder: Path) -> None:
        """Pin `folder`. Raises `FileNotFoundError` if it is gone, or goes away meanwhile; `error`
        if its manifest cannot be read, or is of a newer layout."""
        note = _manifest_of(folder)
        try:
            self._lease = _leased(note)
        except IsADirectoryError as error:
            raise self.error(f"{note}: is a folder, expected a file") from error
        self.path = folder.resolve()
        try:
            self.manifest = _parse_manifest(self._lease.read())
            self.files = _FILES.validate_python(self.manifest["files"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.close()
            raise self.error(f"{note}: cannot be read: {error!r}") from error
        if (layout := self.manifest["layout"]) > self.layout:
            self.close()
            known = f"this code knows layouts up to {self.layout}; update the code"
            raise (self.error_of_newer or self.error)(
                f"{folder}: written in layout {layout}, but {known}"
            )

    def verify(self, *names: str) -> None:
        """Compare every file, or those of `names`, with the manifest; `error` names a bad one."""
        for name in [name for name in self.files if not names or name in names]:
            file = self.path / name
            if not is_inside(name):
                raise self.error(f"{self.path}: its manifest lists {name!r}, outside of the folder")
            if not file.is_file():
                raise self.error(f"{file}: the manifest lists this file, but it does not exist")
            if sha256_of(file) != self.files[name].sha256:
                raise self.error(f"{file}: its content is not what the manifest describes")

    def close(self) -> None:
        """Give up the lease. Arrays that are mapped already stay readable."""
        self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def write_manifest(
    folder: Path,
    facts: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    layout: int = LAYOUT,
) -> dict[str, Any]:
    """Finish a bundle: `facts`, the layout, and the hash of every file; returns the manifest.

    `files` are entries (SHA-256, rows) of a writer that hashed its files; else that is done here.
    """
    if files is None:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): {"sha256": sha256_of(path)} for path in found}
    manifest = {**facts, "layout": layout, "files": dict(files)}
    write_json(folder / MANIFEST, manifest)
    return manifest


def remove_folder(folder: Path) -> bool:
    """Remove a folder unless a process reads it (holds its lease); whether it is gone. Its name
    goes first, so that a reader finds all of it or nothing."""
    doomed = folder.with_name(f"{DOOMED_PREFIX}{folder.name}-{uuid4().hex[:8]}")
    with contextlib.ExitStack() as held, contextlib.suppress(FileNotFoundError):
        if _manifest_of(folder).is_file():
            manifest = held.enter_context(_manifest_of(folder).open("rb"))
            try:
                fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return True


def remove_remains(root: Path) -> list[str]:
    """Remove what `remove_folder` was killed at below `root`; the names of what it was."""
    remains = sorted(root.glob(f"{DOOMED_PREFIX}*"))
    for folder in remains:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in remains]


def is_inside(path: str) -> bool:
    """Whether `path` is a plain relative path that does not lead out of its folder."""
    pure = PurePosixPath(path)
    plain = str(pure) == path != "." and not pure.is_absolute() and ".." not in pure.parts
    return plain and not {"\\", "\0"} & set(path)


def leads_inside(path: str, links: Mapping[str, str]) -> bool:
    """Whether the link at `path`, one of the `links` {path: target} of a tree, stays in the tree.

    A target goes up first and then down, and no link lies in a linked folder: so links that stay
    inside by themselves do so together, however they are chained."""
    parents, target = PurePosixPath(path).parents, PurePosixPath(links[path])
    ups = target.parts.count("..")
    return (
        is_inside(path)
        and not target.is_absolute()
        and set(target.parts[:ups]) <= {".."}
        and ups < len(parents)
        and not any(str(parent) in links for parent in parents)
    )


def _manifest_of(folder: Path) -> Path:
    found = (folder / name for name in _MANIFESTS if (folder / name).is_file())
    return next(found, folder / MANIFEST)


def _leased(manifest: Path) -> io.BufferedReader:
    with contextlib.ExitStack() as until_held:
        lease = until_held.enter_context(manifest.open("rb"))
        fcntl.flock(lease, fcntl.LOCK_SH)
        if os.fstat(lease.fileno()).st_ino != manifest.stat().st_ino:
            raise FileNotFoundError(manifest)
        until_held.pop_all()
        return lease


def _parse_manifest(text: bytes) -> dict[str, Any]:
    """The manifest of any layout with the names of the newest one."""
    content: dict[str, Any] = parse_json(text)
    layouts = [content.pop(name) for name in _LAYOUT_NAMES if name in content]
    content["layout"] = int(layouts[0]) if layouts else 1
    hashes = content["files"] if "files" in content else content.pop("sha256")
    if isinstance(hashes, str):  # a scorer
        hashes = {_SCORER_FILE: hashes}
    content["files"] = {
        name: {"sha256": entry} if isinstance(entry, str) else entry
        for name, entry in hashes.items()
    }
    return content
