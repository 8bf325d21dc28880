"""Files that the driver and the workers of one step hand to each other.

They lie in a folder that all of them see, or, of machines that share no disk, in the bucket. Spark
carries names and numbers only: whoever it gives a task to again finds the same files and leaves
the same."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from recsys.config import load_config
from recsys.publishing import atomic_path
from recsys.settings import Settings
from recsys.spark.session import SparkConfig
from recsys.storage import StorageConfig, Store, store_of


@dataclass(frozen=True)
class Shelf:
    """Files below the `key`, by their names. `home` is the state root, that of all machines or, if
    a bucket is their `storage`, the driver's; a worker then has none."""

    home: Path | None
    key: str
    storage: StorageConfig

    @property
    def is_in_a_bucket(self) -> bool:
        return self._store.shared

    @property
    def of_workers(self) -> "Shelf":
        """The same shelf, as tasks take it along."""
        return replace(self, home=None) if self._store.shared else self

    @contextlib.contextmanager
    def put(self, name: str) -> Iterator[Path]:
        """A path to write to; after the block the file is on the shelf, whole or not at all."""
        path = self._path(name)
        with atomic_path(path) as temporary:
            yield temporary
        self._store.share(f"{self.key}/{name}")
        self._put_away(path)

    def lend(self, file: Path) -> str:
        """A name under which workers find a file of the driver, unchanged."""
        if not self._store.shared:
            return str(file)
        name = f"lent/{uuid4().hex}-{file.name}"
        self._store.share_copy(file, f"{self.key}/{name}")
        return name

    @contextlib.contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """The whole file, on a disk of this machine for the block."""
        path = self._store.bring(f"{self.key}/{name}") if self._store.shared else self._path(name)
        try:
            yield path
        finally:
            self._put_away(path)

    @contextlib.contextmanager
    def take(self, name: str) -> Iterator[Path]:
        """The same of a file that nobody needs any more after the block."""
        with self.local(name) as path:
            yield path
        self._store.discard(f"{self.key}/{name}")
        path.unlink(missing_ok=True)

    def keep(self, name: str) -> Path:
        """The whole file, on a disk of this machine until the shelf is closed."""
        return self._store.bring(f"{self.key}/{name}") if self._store.shared else self._path(name)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[pa.NativeFile]:
        """The file, for reading parts of it."""
        if not self._store.shared:
            with pa.memory_map(str(self._path(name))) as mapped:
                yield mapped
            return
        with self._store.open(f"{self.key}/{name}") as file, pa.PythonFile(file, "r") as wrapped:
            yield wrapped

    def names(self, folder: str) -> list[str]:
        """Names of what was put into the folder, sorted."""
        found = self._store.files(f"{self.key}/{folder}")
        return sorted(f"{folder}/{name}" for name in found if not name.startswith("."))

    def drop(self, folder: str) -> None:
        """Take away what was put into the folder."""
        for name in self.names(folder):
            self._store.discard(f"{self.key}/{name}")
        shutil.rmtree(self._path(folder), ignore_errors=True)

    def close(self) -> None:
        """Take everything away."""
        for name in self._store.files(self.key):
            self._store.discard(f"{self.key}/{name}")
        shutil.rmtree(self._path(""), ignore_errors=True)

    @property
    def _store(self) -> Store:
        return _open_store(self.storage, self.home)

    def _path(self, name: str) -> Path:
        """Where the file is, or is copied to. A lent one has its own place as its name."""
        return (self.home or _scratch()) / self.key / name

    def _put_away(self, path: Path) -> None:
        if self._store.shared:
            path.unlink(missing_ok=True)


def open_shelf(settings: Settings, spark: SparkConfig, work: Path) -> Shelf:
    """An empty shelf beside the work folder `work`, in the bucket if workers are elsewhere."""
    storage = StorageConfig() if spark.is_local else load_config(settings, StorageConfig)
    beside = work.with_name(f"{work.name}-shelf").relative_to(settings.home)
    shelf = Shelf(settings.home, beside.as_posix(), storage)
    shelf.close()  # what an earlier try may have left
    return shelf


@lru_cache(maxsize=8)
def _open_store(storage: StorageConfig, home: Path | None) -> Store:
    return store_of(storage, home or _scratch())


@lru_cache(maxsize=1)
def _scratch() -> Path:
    """A folder of this worker's own, in what Spark removes when the application ends."""
    folders = os.environ.get("SPARK_LOCAL_DIRS", tempfile.gettempdir()).split(",")
    Path(folders[0]).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="recsys-", dir=folders[0]))
