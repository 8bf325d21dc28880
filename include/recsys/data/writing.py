"""A `Dataset` as the files of a version folder."""

import json
import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from recsys.settings import CORES
from recsys import schema
from recsys.data.dataset import SEGMENT, Dataset
from recsys.data.shown import write_shown
from recsys.publishing import sha256_of, write_bytes, write_json, write_text

ROW_KEYS_FILE = "row_keys.npy"
"""Sorted keys of all valid rows of the view, for telling what a later run finds new."""

# Columns of few distinct values; looking for them in the others costs more than it saves.
_REPETITIVE = (schema.PRODUCT, schema.SPLIT, schema.BRAND, schema.CATEGORY, SEGMENT)

_EMBEDDINGS_LINK = "../../embeddings/current"


class VersionFiles(AbstractContextManager["VersionFiles"]):
    """Writes the files of a version, all but the manifest, into the existing `folder`.

    Files are written by two threads while the rest of the version is still being computed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(CORES)
        self._entries: dict[str, Future[dict[str, Any]]] = {}

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add_row_keys(self, row_keys: NDArray[np.uint64]) -> None:
        self._add(ROW_KEYS_FILE, len(row_keys), _array(row_keys))

    def add_interactions(self, interactions: pd.DataFrame | pa.Table) -> None:
        self._add(schema.INTERACTIONS_FILE, len(interactions), _parquet(interactions))

    def add_users(self, users: pd.DataFrame) -> None:
        self._add(schema.USER_METADATA_PICKLE, len(users), _pickled(users))
        self._add(schema.USER_METADATA_FILE, len(users), _parquet(users))

    def add_the_rest(self, dataset: Dataset) -> None:
        """All but the rows, their keys and the users."""
        matrix, mappings = dataset.matrix, _mappings(dataset)
        named = len(dataset.user_ids) + len(dataset.item_ids)
        self._add(schema.MATRIX_FILE, matrix.shape[0], _matrix(matrix))
        self._add(schema.MAPPINGS_FILE, named, _json(mappings))
        products = dataset.products
        self._add(schema.PRODUCTS_FILE, len(products), _parquet(products))
        self._add(schema.SHOWN_FILE, len(products), lambda path: write_shown(path, products))
        self._add(schema.POPULARITY_FILE, len(dataset.popularity), _array(dataset.popularity))
        self._add(schema.STATS_FILE, 1, lambda path: write_json(path, dataset.stats))
        (self._folder / schema.EMBEDDINGS_FOLDER).symlink_to(_EMBEDDINGS_LINK)

    def entries(self) -> dict[str, dict[str, Any]]:
        """The manifest's entry of each file, once it is written: SHA-256, number of rows."""
        return {name: entry.result() for name, entry in self._entries.items()}

    def _add(self, name: str, rows: int, writer: Callable[[Path], Any]) -> None:
        def write() -> dict[str, Any]:
            writer(self._folder / name)
            return {"sha256": sha256_of(self._folder / name), "rows": rows}

        self._entries[name] = self._pool.submit(write)


def _parquet(frame: pd.DataFrame | pa.Table) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = (
            frame
            if isinstance(frame, pa.Table)
            else pa.Table.from_pandas(frame, preserve_index=False)
        )
        names = table.column_names
        pq.write_table(
            table,
            path,
            use_dictionary=[name for name in _REPETITIVE if name in names],
            compression={name: "NONE" if name == schema.EVENT else "SNAPPY" for name in names},
            # Least and greatest texts would cost a comparison of each comment with the others.
            write_statistics=[name for name in names if not _is_text(table.schema.field(name))],
        )

    return write


def _is_text(field: pa.Field) -> bool:
    return pa.types.is_string(field.type) or pa.types.is_large_string(field.type)


def _array(values: NDArray) -> Callable[[Path], None]:
    return lambda path: np.save(path, values)


def _matrix(matrix: sparse.csr_matrix) -> Callable[[Path], None]:
    return lambda path: sparse.save_npz(path, matrix, compressed=False)


def _json(content: Any) -> Callable[[Path], Any]:
    return lambda path: write_text(path, json.dumps(content, ensure_ascii=False))


def _mappings(dataset: Dataset) -> dict[str, Any]:
    return {
        "user_to_idx": {user: index for index, user in enumerate(dataset.user_ids)},
        "item_to_idx": {item: index for index, item in enumerate(dataset.item_ids)},
        "idx_to_user": dataset.user_ids,
        "idx_to_item": dataset.item_ids,
    }


def _pickled(users: pd.DataFrame) -> Callable[[Path], None]:
    """Plain arrays by column name, so that no version of pandas is needed to read them."""

    def write(path: Path) -> None:
        local = {k: v.dt.tz_localize(None) if v.dtype.kind == "M" else v for k, v in users.items()}
        text = {k: np.array(v, "U") for k, v in local.items() if v.dtype == "str"}
        arrays = {str(k): text[k] if k in text else v.to_numpy() for k, v in local.items()}
        write_bytes(path, pickle.dumps(arrays, protocol=5))

    return write
