"""Published data versions: what readers open, and how a new one comes into being.

``data/versions/<version_id>/`` is a bundle (`recsys.storage.bundle`): it never changes once it
exists, and pruning takes nothing away under a reader. ``data/processed`` is a link to one of them.
Both belong to the store (`recsys.storage`): in a bucket, the pointer is an object there, and the
state root holds copies of the versions that this machine has read.

pandas and SciPy are imported by the methods that return what is theirs: the service carries
neither.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys import schema
from recsys.config import parse_json
from recsys.data.shown import Columns, read_shown
from recsys.errors import InputError
from recsys.settings import Settings
from recsys.storage import DamagedError, open_store
from recsys.storage.bundle import Bundle
from recsys.storage.store import open_current

if TYPE_CHECKING:
    import pandas as pd
    from scipy import sparse

VERSIONS_KEY = "data/versions"
POINTER_KEY = "data/processed"

CLOCK_SLACK = timedelta(minutes=5)
"""Clocks of machines that share a bucket differ by less; what ends later is of the future."""


class VersionError(InputError):
    """A data version is missing, damaged, or of a layout this code does not know."""


class NewerVersionError(InputError):
    """A data version of newer code. It is not damaged: older code must not go on beside it."""


class PublishedVersion(Bundle):
    """One immutable data version, pinned: nothing prunes it while this object lives.

    `path` is the resolved folder; later changes of ``data/processed`` do not move it. `manifest`
    has ``version_id, as_of, created_at, files {name: {sha256, rows}}, sources, code_version,
    layout, comment_scorer`` and more; see ``docs/data.md``.
    """

    error = VersionError
    error_of_newer = NewerVersionError

    @property
    def version_id(self) -> str:
        """Name of the version's folder."""
        return self.path.name

    @property
    def as_of(self) -> datetime:
        """End (exclusive) of the view: every row is earlier."""
        return datetime.fromisoformat(self.manifest["as_of"])

    def interactions(self, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """All accepted, deduplicated rows, those of a user together and oldest first.

        Columns of `recsys.schema`; users who are not trainable are included.
        """
        return self._table(schema.INTERACTIONS_FILE, columns)

    def matrix(self) -> "sparse.csr_matrix":
        """Confidence of training rows, float32, trainable users x products."""
        from scipy import sparse

        return sparse.csr_matrix(sparse.load_npz(self.path / schema.MATRIX_FILE))

    def mappings(self) -> tuple[list[str], list[str]]:
        """``(user_ids, item_ids)``: what the rows and the columns of `matrix` stand for."""
        content = json.loads((self.path / schema.MAPPINGS_FILE).read_bytes())
        return content["idx_to_user"], content["idx_to_item"]

    def user_metadata(self) -> "pd.DataFrame":
        """One row a user, trainable or not, in the order of `interactions`."""
        return self._table(schema.USER_METADATA_FILE)

    def products(self) -> "pd.DataFrame":
        """One row a product, in the order of the columns of `matrix`."""
        return self._table(schema.PRODUCTS_FILE)

    def shown_products(self) -> Columns:
        """The columns of `products` that the service shows, for a process without pandas.

        Raises like `recsys.data.shown.read_shown`.
        """
        entry = self.manifest["files"].get(schema.SHOWN_FILE, {})
        return read_shown(self.path, entry.get("sha256"))

    def popularity(self) -> NDArray[np.float64]:
        """``(products,)`` number of training rows of each product."""
        file = self.path / schema.POPULARITY_FILE
        loaded: NDArray[np.float64] = np.load(file, allow_pickle=False)
        return loaded

    def stats(self) -> dict[str, Any]:
        """The content of ``data_stats.json``."""
        content: dict[str, Any] = json.loads((self.path / schema.STATS_FILE).read_bytes())
        return content

    def _table(self, name: str, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        import pandas as pd

        names = None if columns is None else list(columns)
        return pd.read_parquet(self.path / name, columns=names)


def current_version(settings: Settings) -> PublishedVersion:
    """The published version. Raises `VersionError` when nothing was published yet."""
    try:
        found = open_current(open_store(settings), POINTER_KEY, VERSIONS_KEY, PublishedVersion)
    except DamagedError as error:
        raise VersionError(f"{settings.processed}: {error}") from error
    if found is None:
        raise VersionError(
            f"{settings.processed}: no data version is published; run data_refresh first"
        )
    return found


def open_version(settings: Settings, version_id: str) -> PublishedVersion:
    """The kept version `version_id`. Raises `VersionError` when there is none of that name."""
    folder = settings.versions / version_id
    if folder.parent != settings.versions or version_id.startswith("."):
        raise VersionError(f"{version_id!r} is not the name of a data version")
    try:
        return PublishedVersion(open_store(settings).fetch(_key(version_id)))
    except FileNotFoundError:
        raise VersionError(f"{folder}: there is no data version of this name") from None


def list_versions(settings: Settings) -> list[str]:
    """Ids of all kept versions, earliest view first, then by age."""
    store = open_store(settings)
    names = store.names(VERSIONS_KEY)
    if store.shared:
        return names
    return [name for name in names if (settings.versions / name / schema.MANIFEST_FILE).is_file()]


def manifest_of(settings: Settings, version_id: str) -> dict[str, Any]:
    """The manifest of a kept version, without opening it.

    Raises `FileNotFoundError` if there is none, `VersionError` if it is damaged.
    """
    try:
        text = open_store(settings).read_file(_key(version_id), schema.MANIFEST_FILE)
        content = parse_json(text)
        datetime.fromisoformat(content["as_of"])
    except (IsADirectoryError, ValueError, KeyError, TypeError) as error:
        place = settings.versions / version_id / schema.MANIFEST_FILE
        raise VersionError(f"{place}: cannot be read: {error!r}") from error
    manifest: dict[str, Any] = content
    return manifest


def published_folder(settings: Settings) -> Path | None:
    """The folder that ``data/processed`` leads to, None when nothing was published.

    Raises `VersionError` if ``data/processed`` is something else than a link: a folder of
    unknown origin is never replaced.
    """
    try:
        name = open_store(settings).leads_to(POINTER_KEY)
    except DamagedError as error:
        raise VersionError(str(error)) from error
    return None if name is None else settings.versions / name


def publish(settings: Settings, version_id: str) -> bool:
    """Let ``data/processed`` lead to `version_id`, unless it shows a later view already.

    Returns whether it does now. A backfill of an older day therefore never moves it backwards.
    """
    target = open_version(settings, version_id)
    store = open_store(settings)
    store.publish(_key(version_id))

    def may_replace(current_id: str | None) -> bool:
        current = _shown(settings, current_id)
        if current is None or current_id == version_id:
            return True
        same_source = current["source"]["name"] == target.manifest["source"]["name"]
        return not same_source or datetime.fromisoformat(current["as_of"]) <= target.as_of

    with publishing_lock(settings):
        return store.point(POINTER_KEY, _key(version_id), may_replace)


def shows_later(settings: Settings, as_of: datetime) -> bool:
    """Whether ``data/processed`` shows a later view than one that ends at `as_of`.

    One of the future does not count: see `is_of_the_future`.
    """
    folder = published_folder(settings)
    current = None if folder is None else _shown(settings, folder.name)
    return current is not None and datetime.fromisoformat(current["as_of"]) > as_of


def is_of_the_future(as_of: datetime) -> bool:
    """Whether a view that ends at `as_of` was made under a wrong clock.

    Were it taken for the latest one, every later refresh would count as a backfill, and the
    published data would stand still until that day comes.
    """
    return as_of > datetime.now(UTC) + CLOCK_SLACK


@contextlib.contextmanager
def publishing_lock(settings: Settings) -> Iterator[None]:
    """One process of this machine at a time moves the link or removes versions.

    It ends with the process. Machines that share a bucket do not need it: the pointer there is
    moved by compare-and-swap, and what is pruned under a reader is looked up again.
    """
    settings.versions.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.versions, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _shown(settings: Settings, version_id: str | None) -> dict[str, Any] | None:
    """The manifest of what is published, None where it may be replaced by anything: it is gone,
    damaged, or of the future."""
    if version_id is None:
        return None
    try:
        manifest = manifest_of(settings, version_id)
    except (FileNotFoundError, VersionError):
        return None
    return None if is_of_the_future(datetime.fromisoformat(manifest["as_of"])) else manifest


def _key(version_id: str) -> str:
    return f"{VERSIONS_KEY}/{version_id}"
