"""Shared state: immutable folders, pointers to them, and small files that several jobs change.

Paths below the state root are the keys, so that ``data/versions/<id>`` is the same thing on a
disk and in a bucket. `open_store` gives the store that ``config/storage.yaml`` names.
"""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from pydantic import Field, field_validator

from recsys.config import ConfigModel, load_config
from recsys.publishing import point_link, set_aside, write_bytes
from recsys.settings import Settings
from recsys.storage.bundle import remove_folder, remove_remains
from recsys.storage.store import Change, DamagedError, Document, StorageError, Store

__all__ = ["DamagedError", "Document", "StorageConfig", "StorageError", "Store", "open_store"]

_LOCK_SECONDS = 60.0


class StorageConfig(ConfigModel):
    """Where shared state lives."""

    FILE = "storage.yaml"

    url: str = "file://"
    endpoint: str | None = None
    region: str = "us-east-1"
    retry_seconds: float = Field(default=60, ge=1)

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        parts = urlsplit(url)
        if url == "file://" or (parts.scheme == "s3" and parts.netloc):
            return url.rstrip("/") if parts.scheme == "s3" else url
        raise ValueError("expected file:// (the state root itself) or s3://bucket/prefix")


@lru_cache(maxsize=64)
def open_store(settings: Settings) -> Store:
    """The store of `settings`; the configuration is read once in a process. Raises `ConfigError`
    that names the key."""
    config = load_config(settings, StorageConfig)
    if config.url == "file://":
        return LocalStore(settings.home)
    # One machine with one disk needs none of this.
    from recsys.storage.bucket import Bucket
    from recsys.storage.bucket_store import BucketStore

    bucket = Bucket(config.url, config.endpoint, config.region, config.retry_seconds)
    return BucketStore(settings.home, bucket)


class LocalStore:
    """``file://``, the state root: what is published is where it belongs already. Locks hold among
    the processes of one machine, and end with a process."""

    shared = False

    def __init__(self, home: Path) -> None:
        self._home = home

    def check(self) -> None:
        """Nothing: locks and renames of a local disk are relied upon."""

    def publish(self, key: str) -> None:
        if not (self._home / key).is_dir():
            raise FileNotFoundError(f"{self._home / key}: there is no folder to publish")

    def fetch(self, key: str) -> Path:
        folder = self._home / key
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: does not exist")
        return folder

    def names(self, prefix: str) -> list[str]:
        root = self._home / prefix
        if not root.is_dir():
            return []
        return sorted(
            entry.name
            for entry in root.iterdir()
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith(".")
        )

    def read_file(self, key: str, name: str) -> bytes:
        return (self._home / key / name).read_bytes()

    def remove(self, key: str) -> bool:
        return remove_folder(self._home / key)

    def remove_unfinished(self, prefix: str, before: datetime) -> list[str]:
        """What was half removed: a folder that is being made gets its name when it is complete."""
        return remove_remains(self._home / prefix)

    def leads_to(self, pointer: str) -> str | None:
        link = self._home / pointer
        if link.is_symlink():
            return link.readlink().name
        if link.exists():
            raise DamagedError(f"{link}: expected a link to a published folder")
        return None

    def follow(self, pointer: str, key: str) -> None:
        """Nothing: the link is the pointer."""

    def point(self, pointer: str, key: str, may_replace: Callable[[str | None], bool]) -> bool:
        link = self._home / pointer
        # Not beside the link: there are only published folders there.
        with self._alone(self._home / "data" / f".{pointer.replace('/', '-')}"):
            if not may_replace(self.leads_to(pointer)):
                return False
            point_link(link, self._home / key)
        return True

    def read(self, key: str) -> bytes | None:
        try:
            return (self._home / key).read_bytes()
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise DamagedError(f"{self._home / key}: is a folder, expected a file") from error

    def change(self, key: str, change: Change) -> bytes:
        path = self._home / key
        with self._alone(path):
            if path.is_dir():
                set_aside(path)
            content = change(self.read(key))
            write_bytes(path, content)
        return content

    def share(self, key: str) -> None:
        """Nothing: the file is where all find it."""

    def mirror(self, prefix: str, into: str) -> None:
        """Nothing: there is only one place."""

    def files(self, prefix: str) -> set[str]:
        folder = self._home / prefix
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    def discard(self, key: str) -> None:
        """Nothing: who moves the file has taken it away from all."""

    def discard_older(self, prefix: str, before: datetime) -> None:
        """Nothing, for the same reason."""

    def _alone(self, path: Path) -> FileLock:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{path}.lock", timeout=_LOCK_SECONDS)
