"""Published data versions: what readers open, and how a new one comes into being.

``data/versions/<version_id>/`` is a bundle (`recsys.storage.bundle`), ``data/processed`` a link to
one of them. Both belong to the store (`recsys.storage`).

pandas and SciPy are imported by the methods that return what is theirs: the service carries
neither.
"""

import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from recsys import schema
from recsys.arrays import Float64Array
from recsys.config import parse_json
from recsys.data.shown import Columns, ShownError, read_shown
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
    """One immutable data version, pinned: nothing prunes it while this object lives. What its
    `manifest` has is in ``docs/data.md``."""

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

    def interactions(self, columns: list[str] | None = None) -> "pd.DataFrame":
        """All accepted, deduplicated rows, those of a user together and oldest first. Columns of
        `recsys.schema`; users who are not trainable are included."""
        return self._table(schema.INTERACTIONS_FILE, columns)

    def signals(self, columns: list[str] | None = None) -> "pd.DataFrame":
        """What customers did besides rating: the columns of `recsys.data.signals.SIGNAL_COLUMNS`
        and SPLIT, one row an event id, ordered by USER, TIMESTAMP and EVENT. No rows where the
        version has none."""
        if (self.path / schema.SIGNALS_FILE).exists():
            return self._table(schema.SIGNALS_FILE, columns)
        from recsys.data.signals import NO_SIGNALS

        return NO_SIGNALS if columns is None else NO_SIGNALS[columns]

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
        """The columns of `products` that the service shows, for a process without pandas. Raises
        like `recsys.data.shown.read_shown`."""
        entry = self.manifest["files"].get(schema.SHOWN_FILE, {})
        return read_shown(self.path, entry.get("sha256"))

    def recent_sales(self) -> Float64Array | None:
        """``(products,)`` how well each sells at the moment; None in versions from before that was
        counted. Raises `ShownError` if the file is damaged."""
        entry = self.manifest["files"].get(schema.SALES_FILE)
        if entry is None:
            return None
        path = self.path / schema.SALES_FILE
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ShownError(f"{path}: its content is not what the manifest describes")
        return np.asarray(np.load(io.BytesIO(content), allow_pickle=False), dtype=np.float64)

    def popularity(self) -> Float64Array:
        """``(products,)`` number of training rows of each product."""
        return np.asarray(np.load(self.path / schema.POPULARITY_FILE, allow_pickle=False))

    def stats(self) -> dict[str, Any]:
        """The content of ``data_stats.json``."""
        return dict(json.loads((self.path / schema.STATS_FILE).read_bytes()))

    def _table(self, name: str, columns: list[str] | None = None) -> "pd.DataFrame":
        import pandas as pd

        return pd.read_parquet(self.path / name, columns=columns)


def current_version(settings: Settings) -> PublishedVersion:
    """The published version. Raises `VersionError` when nothing was published yet."""
    try:
        found = open_current(open_store(settings), POINTER_KEY, VERSIONS_KEY, PublishedVersion)
    except DamagedError as error:
        raise VersionError(f"{settings.processed}: {error}") from error
    if found is None:
        missing = "no data version is published; run data_refresh first"
        raise VersionError(f"{settings.processed}: {missing}")
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
    store, manifest = open_store(settings), schema.MANIFEST_FILE
    names = store.names(VERSIONS_KEY)
    return [at for at in names if store.shared or (settings.versions / at / manifest).is_file()]


def manifest_of(settings: Settings, version_id: str) -> dict[str, Any]:
    """The manifest of a kept version, without opening it. Raises `FileNotFoundError` if there is
    none, `VersionError` if it is damaged."""
    try:
        text = open_store(settings).read_file(_key(version_id), schema.MANIFEST_FILE)
        manifest: dict[str, Any] = parse_json(text)
        datetime.fromisoformat(manifest["as_of"])
    except (IsADirectoryError, ValueError, KeyError, TypeError) as error:
        place = settings.versions / version_id / schema.MANIFEST_FILE
        raise VersionError(f"{place}: cannot be read: {error!r}") from error
    return manifest


def published_folder(settings: Settings) -> Path | None:
    """The folder that ``data/processed`` leads to, None when nothing was published. Raises
    `VersionError` if it is something else than a link: what is of unknown origin stays."""
    try:
        name = open_store(settings).leads_to(POINTER_KEY)
    except DamagedError as error:
        raise VersionError(str(error)) from error
    return None if name is None else settings.versions / name


def publish(settings: Settings, version_id: str) -> bool:
    """Let ``data/processed`` lead to `version_id`, unless it shows a later view already. Returns
    whether it does now. A backfill of an older day therefore never moves it backwards."""
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
    """Whether ``data/processed`` shows a later view than one that ends at `as_of`. One of the
    future does not count: see `is_of_the_future`."""
    folder = published_folder(settings)
    current = None if folder is None else _shown(settings, folder.name)
    return current is not None and datetime.fromisoformat(current["as_of"]) > as_of


def is_of_the_future(as_of: datetime) -> bool:
    """Whether a view that ends at `as_of` was made under a wrong clock. Taken for the latest one,
    it would make a backfill of every refresh until that day comes."""
    return as_of > datetime.now(UTC) + CLOCK_SLACK


def publishing_lock(settings: Settings) -> FileLock:
    """One process of this machine at a time moves the link or removes versions. It ends with the
    process. Machines that share a bucket do not need it: the pointer there is moved by
    compare-and-swap, and what is pruned under a reader is looked up again."""
    (settings.home / "data").mkdir(parents=True, exist_ok=True)
    return FileLock(settings.home / "data" / ".versions.lock")


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
