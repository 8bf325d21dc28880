"""Shared state: immutable folders, pointers to them, and small files that several jobs change.

Paths below the state root are the keys, so that ``data/versions/<id>`` is the same thing on a
disk and in a bucket. `open_store` gives the store that ``config/storage.yaml`` names."""

from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from recsys.config import ConfigModel, load_config
from recsys.settings import Settings
from recsys.storage.bundle import DamagedError
from recsys.storage.store import Document, StorageError, Store

__all__ = ["DamagedError", "Document", "StorageConfig", "StorageError", "Store"]
__all__ += ["open_store", "store_of"]


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
    return store_of(load_config(settings, StorageConfig), settings.home)


def store_of(config: StorageConfig, home: Path) -> Store:
    """The store that `config` names, for a machine with the state root `home`."""
    if config.url == "file://":
        return Store(home)
    # One machine with one disk needs none of this.
    from recsys.storage.bucket import Bucket
    from recsys.storage.bucket_store import BucketStore

    bucket = Bucket(config.url, config.endpoint, config.region, config.retry_seconds)
    return BucketStore(home, bucket)
