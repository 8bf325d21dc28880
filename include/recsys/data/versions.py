"""Published data versions: what readers open, and how a new one comes into being.

``data/versions/<version_id>/`` never changes once it exists; ``data/processed`` is a link to one
of them. A reader resolves the link once and keeps a shared lock on that version's manifest for
as long as its `PublishedVersion` lives, so that pruning cannot take files away under it.
"""

import contextlib
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from recsys.data import schema
from recsys.errors import InputError
from recsys.publishing import point_link, sha256_of
from recsys.settings import Settings

SCHEMA_VERSION = 1
"""Raised whenever a reader of the old layout would misread the new one."""

DOOMED_PREFIX = ".removed-"

_ATTEMPTS = 20


class VersionError(InputError):
    """A data version is missing, damaged, or of a layout this code does not know."""


class PublishedVersion:
    """One immutable data version, pinned: nothing prunes it while this object lives.

    Attributes
    ----------
    version_id
        Name of the version's folder.
    path
        The resolved folder; later changes of ``data/processed`` do not move it.
    manifest
        ``version_id, as_of, created_at, files {name: {sha256, rows}}, sources, code_version,
        schema_version, comment_scorer`` and more; see ``docs/data.md``.
    """

    def __init__(self, path: Path, lease: io.BufferedReader) -> None:
        self._lease = lease  # the shared lock ends when this file is closed
        self.path = path
        self.version_id = path.name
        self.manifest = _read_manifest(path, lease)

    @property
    def as_of(self) -> datetime:
        """End (exclusive) of the view: every row is earlier."""
        return datetime.fromisoformat(self.manifest["as_of"])

    def interactions(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """All accepted, deduplicated rows, those of a user together and oldest first.

        Columns of `recsys.data.schema`; users who are not trainable are included.
        """
        names = None if columns is None else list(columns)
        return pd.read_parquet(self.path / schema.INTERACTIONS_FILE, columns=names)

    def matrix(self) -> sparse.csr_matrix:
        """Confidence of training rows, float32, trainable users x products."""
        return sparse.csr_matrix(sparse.load_npz(self.path / schema.MATRIX_FILE))

    def mappings(self) -> tuple[list[str], list[str]]:
        """``(user_ids, item_ids)``: what the rows and the columns of `matrix` stand for."""
        content = json.loads((self.path / schema.MAPPINGS_FILE).read_text(encoding="utf-8"))
        return content["idx_to_user"], content["idx_to_item"]

    def user_metadata(self) -> pd.DataFrame:
        """One row a user, trainable or not, in the order of `interactions`."""
        return pd.read_parquet(self.path / schema.USER_METADATA_FILE)

    def products(self) -> pd.DataFrame:
        """One row a product, in the order of the columns of `matrix`."""
        return pd.read_parquet(self.path / schema.PRODUCTS_FILE)

    def popularity(self) -> NDArray[np.float64]:
        """``(products,)`` number of training rows of each product."""
        loaded: NDArray[np.float64] = np.load(
            self.path / schema.POPULARITY_FILE, allow_pickle=False
        )
        return loaded

    def stats(self) -> dict[str, Any]:
        """The content of ``data_stats.json``."""
        content: dict[str, Any] = json.loads(
            (self.path / schema.STATS_FILE).read_text(encoding="utf-8")
        )
        return content

    def verify(self) -> None:
        """Compare every file with the manifest. Raises `VersionError` naming the first bad one."""
        for name, entry in self.manifest["files"].items():
            file = self.path / name
            if not file.is_file():
                raise VersionError(f"{file}: the manifest lists this file, but it does not exist")
            if sha256_of(file) != entry["sha256"]:
                raise VersionError(f"{file}: its content is not what the manifest describes")

    def __repr__(self) -> str:
        return f"PublishedVersion({self.version_id!r})"


def current_version(settings: Settings) -> PublishedVersion:
    """The published version. Raises `VersionError` when nothing was published yet."""
    for _ in range(_ATTEMPTS):
        folder = published_folder(settings)
        if folder is None:
            raise VersionError(
                f"{settings.processed}: no data version is published; run data_refresh first"
            )
        # Between reading the link and locking the folder both may change: look again.
        with contextlib.suppress(FileNotFoundError):
            return _open(folder)
    raise VersionError(f"{settings.processed}: points to a version that does not exist")


def open_version(settings: Settings, version_id: str) -> PublishedVersion:
    """The kept version `version_id`. Raises `VersionError` when there is none of that name."""
    folder = settings.versions / version_id
    if folder.parent != settings.versions or version_id.startswith("."):
        raise VersionError(f"{version_id!r} is not the name of a data version")
    try:
        return _open(folder)
    except FileNotFoundError:
        raise VersionError(f"{folder}: there is no data version of this name") from None


def list_versions(settings: Settings) -> list[str]:
    """Ids of all kept versions, earliest view first, then by age."""
    if not settings.versions.is_dir():
        return []
    return sorted(
        entry.name
        for entry in settings.versions.iterdir()
        if not entry.name.startswith(".") and (entry / schema.MANIFEST_FILE).is_file()
    )


def published_folder(settings: Settings) -> Path | None:
    """The folder that ``data/processed`` leads to, None when nothing was published.

    Raises `VersionError` if ``data/processed`` is something else than a link: a folder of
    unknown origin is never replaced.
    """
    link = settings.processed
    if link.is_symlink():
        return settings.versions / link.readlink().name
    if link.exists():
        raise VersionError(f"{link}: expected a link to a folder in {settings.versions}")
    return None


def publish(settings: Settings, version_id: str) -> bool:
    """Let ``data/processed`` lead to `version_id`, unless it shows a later view already.

    Returns whether it does now. A backfill of an older day therefore never moves it backwards.
    """
    target = open_version(settings, version_id)
    with publishing_lock(settings):
        folder = published_folder(settings)
        if folder is not None and folder.exists() and folder.name != version_id:
            current = _open(folder)
            same_source = current.manifest["source"]["name"] == target.manifest["source"]["name"]
            if same_source and current.as_of > target.as_of:
                return False
        point_link(settings.processed, target.path)
    return True


def shows_later(settings: Settings, as_of: datetime) -> bool:
    """Whether ``data/processed`` shows a later view than one that ends at `as_of`."""
    folder = published_folder(settings)
    return folder is not None and folder.exists() and _open(folder).as_of > as_of


def remove_version(settings: Settings, version_id: str) -> bool:
    """Remove a version unless somebody reads it; call it under the `publishing_lock`."""
    folder = settings.versions / version_id
    with (folder / schema.MANIFEST_FILE).open("rb") as manifest:
        try:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Gone in one step: a reader finds either all of the version or none.
        doomed = settings.versions / f"{DOOMED_PREFIX}{version_id}"
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    return True


@contextlib.contextmanager
def publishing_lock(settings: Settings) -> Iterator[None]:
    """Only one process at a time moves the link or removes versions; ends with the process."""
    settings.versions.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.versions, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path) -> PublishedVersion:
    """Pin and open `folder`. Raises `FileNotFoundError` if it is gone or goes away meanwhile."""
    manifest = folder / schema.MANIFEST_FILE
    lease = manifest.open("rb")
    try:
        fcntl.flock(lease, fcntl.LOCK_SH)
        if os.fstat(lease.fileno()).st_ino != manifest.stat().st_ino:
            raise FileNotFoundError(manifest)
        return PublishedVersion(folder.resolve(), lease)
    except BaseException:
        lease.close()
        raise


def _read_manifest(path: Path, lease: io.BufferedReader) -> dict[str, Any]:
    try:
        content = json.loads(lease.read())
        schema_version = int(content["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise VersionError(f"{path / schema.MANIFEST_FILE}: cannot be read: {error!r}") from error
    if schema_version > SCHEMA_VERSION:
        raise VersionError(
            f"{path}: written in layout {schema_version}, but this code knows layouts up to "
            f"{SCHEMA_VERSION}; update the code, or publish a version of its own"
        )
    result: dict[str, Any] = content
    return result
