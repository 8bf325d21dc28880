"""``s3://``: state that several machines share, each with its own copies of what it uses.

In the bucket, below the configured prefix::

    data/versions/<id>.index.json          which files the folder has, with sha256; written last
    data/versions/<id>/<upload>/<file>     the files, under a name of their own for every upload
    data/processed                         a pointer: {"name": "<id>"}
    artifacts/cf/registry.json             a file, replaced by compare-and-swap

A folder exists when its index does. A publisher that dies leaves objects without an index, which
nobody reads and `BucketStore.remove_unfinished` takes away."""

import contextlib
import fcntl
import os
import random
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import uuid4

from pydantic import ValidationError

from recsys.config import ConfigModel, ConfigT
from recsys.errors import InputError
from recsys.publishing import atomic_folder, atomic_path, point_link, sha256_of
from recsys.storage.bucket import Bucket, ConflictError
from recsys.storage.bundle import (
    LAYOUT,
    DamagedError,
    FileEntry,
    Listing,
    is_inside,
    leads_inside,
    remove_folder,
)
from recsys.storage.store import Change, StorageError, Store

INDEX_SUFFIX = ".index.json"
_UPLOAD = re.compile("/[0-9a-f]{32}/")  # where the files of one upload of a folder are
_TRANSFERS = 8
_CONFLICT_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 0.5
_ATTEMPTS = 5
_SAME_SECOND = 2.0  # seconds, with what clocks may differ


class Index(Listing):
    """What a folder consists of; `upload` is where its objects are. Links stay inside the root."""

    upload: str


class Pointer(ConfigModel):
    """The folder that a pointer leads to."""

    name: str


class BucketStore(Store):
    """See `recsys.storage.Store`; `home` is this machine's state root, the `bucket` is shared."""

    shared = True

    def __init__(self, home: Path, bucket: Bucket) -> None:
        super().__init__(home)
        self._bucket = bucket

    def check(self) -> None:
        key = f"check-{uuid4().hex}"
        self._bucket.write(key, b"1", expected=None)
        try:
            for condition, expected in (("If-None-Match", None), ("If-Match", '"0"')):
                with contextlib.suppress(ConflictError):
                    self._bucket.write(key, b"2", expected=expected)
                    raise InputError(
                        f"{self._bucket.url}: the service ignores {condition}, so that machines "
                        "would lose each other's changes; use one that honours conditional writes"
                    )
        finally:
            self._bucket.delete([key])

    # folders
    def publish(self, key: str) -> None:
        folder = self._home / key
        index = _describe(folder)
        if not index.files:
            raise FileNotFoundError(f"{folder}: there is no folder to publish")
        if self._is_published(key, index):
            return
        place = f"{key}/{index.upload}"
        _at_once(lambda name: self._bucket.upload(folder / name, f"{place}/{name}"), index.files)
        try:
            self._bucket.write(_index_key(key), index.to_json(), expected=None)
        except ConflictError:
            # Written meanwhile by another machine, or by this one before its answer got lost.
            if not self._is_published(key, index):
                raise StorageError(f"{self._bucket.address(key)}: cannot be written") from None
        self._mark(key).touch()

    def fetch(self, key: str) -> Path:
        folder = self._home / key
        if folder.is_dir():
            return folder
        mark = self._mark(key)
        mark.parent.mkdir(parents=True, exist_ok=True)
        with mark.open("a") as file:  # its being there also marks the copy as the store's
            fcntl.flock(file, fcntl.LOCK_EX)
            if not folder.is_dir():
                self._copy(key, folder)
        self._forget_removed(PurePosixPath(key).parent.as_posix())
        return folder

    def names(self, prefix: str) -> list[str]:
        return sorted(
            name.removesuffix(INDEX_SUFFIX)
            for name in self._bucket.children(prefix)
            if name.endswith(INDEX_SUFFIX)
        )

    def read_file(self, key: str, name: str) -> bytes:
        index = self._index(key)
        content = self.read(f"{key}/{index.upload}/{name}") if name in index.files else None
        if content is None:
            raise FileNotFoundError(f"{self._bucket.address(key)}: has no file {name}")
        return content

    def remove(self, key: str) -> bool:
        if not self._remove_copy(key):
            return False
        self._bucket.delete([_index_key(key)])
        self._bucket.delete(list(self._bucket.below(key)))
        return True

    def remove_unfinished(self, prefix: str, before: datetime) -> list[str]:
        uploads: dict[tuple[str, str], dict[str, datetime]] = {}
        for path, written in self._bucket.below(prefix).items():
            name, *inner = path.removeprefix(f"{prefix}/").split("/")
            if len(inner) > 1:
                uploads.setdefault((name, inner[0]), {})[path] = written
        removed = super().remove_unfinished(prefix, before)
        for (name, upload), objects in uploads.items():
            if max(objects.values()) < before and self._upload_of(f"{prefix}/{name}") != upload:
                self._bucket.delete(list(objects))
                removed.append(f"{name}/{upload}")
        return sorted(removed)

    # pointers
    def leads_to(self, pointer: str) -> str | None:
        return self._name_in(pointer, self.read(pointer))

    def follow(self, pointer: str, key: str) -> None:
        link, folder = self._home / pointer, self._home / key
        if not link.is_symlink() or link.resolve() != folder.resolve():
            point_link(link, folder)

    def point(self, pointer: str, key: str, may_replace: Callable[[str | None], bool]) -> bool:
        def move(before: bytes | None) -> bytes:
            if not may_replace(self._name_in(pointer, before)):
                raise _RefusedError
            return Pointer(name=PurePosixPath(key).name).model_dump_json().encode()

        try:
            self.change(pointer, move)
        except _RefusedError:
            return False
        self.follow(pointer, key)
        return True

    # files
    def read(self, key: str) -> bytes | None:
        found = self._bucket.read(key)
        return None if found is None else found[0]

    def revision(self, key: str) -> str | None:
        return self._bucket.tag(key)

    def change(self, key: str, change: Change) -> bytes:
        deadline = time.monotonic() + _CONFLICT_SECONDS
        pause = 0.01
        written: bytes | None = None
        while True:
            before, version = self._bucket.read(key) or (None, None)
            if written is not None and before == written:
                return written  # it was this write that was answered as a conflict with itself
            written = change(before)
            if written == before:
                return written
            try:
                self._bucket.write(key, written, expected=version)
                return written
            except ConflictError:
                if time.monotonic() > deadline:
                    what = f"others changed it at every attempt in {_CONFLICT_SECONDS:g} seconds"
                    raise StorageError(f"{self._bucket.address(key)}: {what}") from None
                time.sleep(random.uniform(0, pause))  # noqa: S311 - only spreads the attempts
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    # files that come in once and are not changed
    def share(self, key: str) -> None:
        file = self._home / key
        self._bucket.upload(file, key)
        # Newer here than there, if by a second, so that `mirror` does not bring it back.
        moment = self._bucket.written(key).timestamp() + 1
        with contextlib.suppress(PermissionError):  # somebody else's file
            os.utime(file, (moment, moment))

    def share_copy(self, file: Path, key: str) -> None:
        self._bucket.upload(file, key)

    def bring(self, key: str) -> Path:
        path = self._home / key
        with atomic_path(path) as temporary:
            self._bucket.download(key, temporary)
        return path

    def open(self, key: str) -> BinaryIO:
        return self._bucket.open(key)

    def mirror(self, prefix: str, into: str) -> None:
        def bring(key: str) -> None:
            file = self._home / into / key.removeprefix(f"{prefix}/")
            moment = written[key].timestamp()
            # Times in a bucket are whole seconds: what was written in the second in which it was
            # brought (its change here) may have been written again in it.
            if file.exists():
                found = file.stat()
                settled = found.st_mtime == moment and found.st_ctime - moment >= _SAME_SECOND
                if settled or found.st_mtime > moment:
                    return
            # Removed since it was listed: then there is nothing to bring.
            with contextlib.suppress(FileNotFoundError), atomic_path(file) as temporary:
                self._bucket.download(key, temporary)
                os.utime(temporary, (moment, moment))

        written = self._bucket.below(prefix)
        for key in written:
            if not is_inside(key.removeprefix(f"{prefix}/")):
                raise DamagedError(f"{self._bucket.address(key)}: lies outside the state root")
        _at_once(bring, written)

    def files(self, prefix: str) -> set[str]:
        return {key.removeprefix(f"{prefix}/") for key in self._bucket.below(prefix)}

    def discard(self, key: str) -> None:
        self._bucket.delete([key])

    def discard_older(self, prefix: str, before: datetime) -> None:
        found = self._bucket.below(prefix)
        self._bucket.delete([key for key, written in found.items() if written < before])

    def remove_old(self, prefix: str, is_meant: Callable[[str], bool]) -> int:
        return self._bucket.remove_old(prefix, lambda key: is_meant(_UPLOAD.sub("/", key)))

    # inside
    def _copy(self, key: str, folder: Path) -> None:
        """Fetch a folder. What is removed and published again meanwhile is looked up again."""
        for _ in range(_ATTEMPTS):
            index = self._index(key)
            try:
                return self._copy_all(key, index, folder)
            except FileNotFoundError as error:
                if self._upload_of(key) == index.upload:
                    what = f"the index lists a file that does not exist: {error}"
                    raise DamagedError(f"{self._bucket.address(key)}: {what}") from error
        raise StorageError(f"{self._bucket.address(key)}: changes faster than it can be read")

    def _copy_all(self, key: str, index: Index, folder: Path) -> None:
        links = {f"{key}/{name}": target for name, target in index.links.items()}
        bad = [name for name in (*index.files, *index.links) if not is_inside(name)]
        bad += [target for path, target in links.items() if not leads_inside(path, links)]
        if bad:
            address = self._bucket.address(_index_key(key))
            raise DamagedError(f"{address}: {bad[0]!r} lies outside of where it belongs")

        def copy(name: str) -> None:
            source = f"{key}/{index.upload}/{name}"
            if self._bucket.download(source, temporary / name) != index.files[name].sha256:
                raise DamagedError(
                    f"{self._bucket.address(source)}: its content is not what was published (the "
                    f"sha256 is not the one in {_index_key(key)}); restore the object, or publish "
                    "anew"
                )

        with atomic_folder(folder) as temporary:
            for name in (*index.files, *index.links):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            _at_once(copy, index.files)
            for name, target in index.links.items():
                (temporary / name).symlink_to(target)

    def _index(self, key: str) -> Index:
        """Raises `FileNotFoundError` if there is no folder `key`."""
        content, address = self.read(_index_key(key)), self._bucket.address(_index_key(key))
        if content is None:
            raise FileNotFoundError(f"{address}: does not exist")
        index = self._parsed(Index, _index_key(key), content, "the index of a folder")
        if index.layout > LAYOUT:
            known = f"this code knows layouts up to {LAYOUT}"
            raise DamagedError(f"{address}: has layout {index.layout}, {known}")
        return index

    def _is_published(self, key: str, wanted: Index) -> bool:
        """Raises `FileExistsError` if the store has a folder `key` with other content."""
        try:
            found = self._index(key)
        except FileNotFoundError:
            return False
        if (found.files, found.links) != (wanted.files, wanted.links):
            other = "is already published with other content; published folders never change"
            raise FileExistsError(f"{self._bucket.address(key)} {other}")
        return True

    def _upload_of(self, key: str) -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return self._index(key).upload
        return None

    def _name_in(self, pointer: str, content: bytes | None) -> str | None:
        if content is None:
            return None
        return self._parsed(Pointer, pointer, content, "a pointer to a folder").name

    def _parsed(self, model: type[ConfigT], key: str, content: bytes, what: str) -> ConfigT:
        try:
            return model.model_validate_json(content)
        except ValidationError as error:
            raise DamagedError(f"{self._bucket.address(key)}: is not {what}: {error}") from error

    def _mark(self, key: str) -> Path:
        place = self._home / key
        return place.with_name(f".{place.name}.lock")

    def _forget_removed(self, prefix: str) -> None:
        """Remove copies of folders that the store does not have any more, unless they are read."""
        with contextlib.suppress(StorageError):
            kept = set(self.names(prefix))
            marks = (self._home / prefix).glob(".*.lock")
            for name in {mark.name[1:].removesuffix(".lock") for mark in marks} - kept:
                self._remove_copy(f"{prefix}/{name}")

    def _remove_copy(self, key: str) -> bool:
        if gone := remove_folder(self._home / key):
            self._mark(key).unlink(missing_ok=True)
        return gone


class _RefusedError(Exception):
    """`may_replace` said no."""


def _index_key(key: str) -> str:
    return f"{key}{INDEX_SUFFIX}"


def _describe(folder: Path) -> Index:
    """What `folder` consists of, for a new upload of it."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    links = {name: str(path.readlink()) for name, path in found.items() if path.is_symlink()}
    files = {
        name: FileEntry(sha256=sha256_of(path), size=path.stat().st_size)
        for name, path in found.items()
        if name not in links and path.is_file()
    }
    return Index(upload=uuid4().hex, files=files, links=links)


def _at_once(transfer: Callable[[str], None], names: Iterable[str]) -> None:
    """Transfer several files at a time; raises what one of them raises."""
    with ThreadPoolExecutor(_TRANSFERS, thread_name_prefix="transfer") as pool:
        for _ in pool.map(transfer, names):
            pass
