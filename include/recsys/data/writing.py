"""A `Dataset` as the files of a version folder."""

import functools
import hashlib
import io
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from recsys.data import schema
from recsys.data.dataset import SEGMENT, Dataset
from recsys.publishing import sha256_of, write_bytes, write_json, write_text

ROW_KEYS_FILE = "row_keys.npy"
"""Sorted keys of all valid rows of the view, for telling what a later run finds new."""

_WRITING_THREADS = 2
# Columns of few distinct values; looking for them in the others costs more than it saves.
_REPETITIVE = (schema.PRODUCT, schema.SPLIT, schema.BRAND, schema.CATEGORY, SEGMENT)
_WIDEST_PLAIN_TEXT = 32

_EMBEDDINGS_LINK = "../../embeddings/current"


def write_files(
    folder: Path, dataset: Dataset, row_keys: NDArray[np.uint64]
) -> dict[str, dict[str, Any]]:
    """Write all files but the manifest into the existing `folder`.

    Returns the manifest's entry of each: its SHA-256 and the number of its rows.
    """
    users = dataset.user_metadata
    writers: dict[str, tuple[int, Callable[[Path], Any]]] = {
        schema.INTERACTIONS_FILE: (len(dataset.interactions), _parquet(dataset.interactions)),
        schema.MATRIX_FILE: (
            dataset.matrix.shape[0],
            lambda path: _save_matrix(path, dataset.matrix),
        ),
        schema.MAPPINGS_FILE: (
            len(dataset.user_ids) + len(dataset.item_ids),
            lambda path: write_text(path, json.dumps(_mappings(dataset), ensure_ascii=False)),
        ),
        schema.USER_METADATA_FILE: (len(users), _parquet(users)),
        schema.USER_METADATA_PICKLE: (
            len(users),
            lambda path: write_bytes(path, _pickled(users)),
        ),
        schema.PRODUCTS_FILE: (len(dataset.products), _parquet(dataset.products)),
        schema.POPULARITY_FILE: (
            len(dataset.popularity),
            lambda path: np.save(path, dataset.popularity),
        ),
        schema.STATS_FILE: (1, lambda path: write_json(path, dataset.stats)),
        ROW_KEYS_FILE: (len(row_keys), lambda path: np.save(path, row_keys)),
    }

    def write(name: str) -> tuple[str, dict[str, Any]]:
        rows, writer = writers[name]
        writer(folder / name)
        return name, {"sha256": sha256_of(folder / name), "rows": rows}

    with ThreadPoolExecutor(_WRITING_THREADS) as pool:
        entries = dict(pool.map(write, writers))
    (folder / schema.EMBEDDINGS_FOLDER).symlink_to(_EMBEDDINGS_LINK)
    return entries


@functools.cache
def code_version() -> str:
    """Changes with the code that decides what a version contains."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _parquet(frame: pd.DataFrame | pa.Table) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        table = (
            frame
            if isinstance(frame, pa.Table)
            else pa.Table.from_pandas(frame, preserve_index=False)
        )
        repetitive = [name for name in _REPETITIVE if name in table.column_names]
        pq.write_table(table, path, use_dictionary=repetitive)

    return write


def _save_matrix(path: Path, matrix: sparse.csr_matrix) -> None:
    sparse.save_npz(path, matrix, compressed=False)


def _mappings(dataset: Dataset) -> dict[str, Any]:
    return {
        "user_to_idx": {user: index for index, user in enumerate(dataset.user_ids)},
        "item_to_idx": {item: index for index, item in enumerate(dataset.item_ids)},
        "idx_to_user": dataset.user_ids,
        "idx_to_item": dataset.item_ids,
    }


def _pickled(users: pd.DataFrame) -> bytes:
    """Plain arrays by column name, so that no version of pandas is needed to read them."""
    buffer = io.BytesIO()
    pickle.dump({name: _plain(column) for name, column in users.items()}, buffer, protocol=5)
    return buffer.getvalue()


def _plain(column: pd.Series) -> NDArray:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_localize(None).to_numpy()
    if column.dtype != "str":
        return column.to_numpy()
    texts = column.to_numpy(dtype=object)
    return texts.astype("U") if column.str.len().max() <= _WIDEST_PLAIN_TEXT else texts
