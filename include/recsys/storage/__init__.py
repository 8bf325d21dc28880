"""Shared state: immutable folders, pointers to them, and small files that several jobs change.

Paths below the state root are the keys, so that ``data/versions/<id>`` is the same thing on a
disk and in a bucket. `open_store` gives the store that ``config/storage.yaml`` names.
"""

from recsys.storage.opening import open_store
from recsys.storage.store import ABANDONED_AFTER, DamagedError, StorageError, Store

__all__ = ["ABANDONED_AFTER", "DamagedError", "StorageError", "Store", "open_store"]
