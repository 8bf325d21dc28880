"""A `Dataset` as the files of a version folder."""

import json
import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from os import SEEK_END
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from recsys import schema
from recsys.arrays import Float64Array
from recsys.data.dataset import SEGMENT, Dataset
from recsys.data.shown import write_shown
from recsys.publishing import atomic_path, sha256_of, write_json
from recsys.settings import CORES

ROW_KEYS_FILE = "row_keys.npy"
"""Sorted keys of all valid rows of the view, for telling what a later run finds new."""

# Columns of few distinct values; looking for them in the others costs more than it saves.
_REPETITIVE = (schema.PRODUCT, schema.KIND, schema.SPLIT, schema.BRAND, schema.CATEGORY, SEGMENT)

_WIDEST_PLAIN_TEXT = 32  # characters
_IDS_AT_ONCE = 100_000

_TEXTS = (pa.string(), pa.large_string())
_EMBEDDINGS_LINK = "../../embeddings/current"


class VersionFiles(AbstractContextManager["VersionFiles"]):
    """Writes the files of a version, all but the manifest, into the existing `folder`, by threads
    while the rest of the version is still being computed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(CORES)
        self._entries: dict[str, Future[dict[str, Any]]] = {}

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add_row_keys(self, row_keys: NDArray[np.uint64]) -> None:
        self._add(ROW_KEYS_FILE, np.save, row_keys)

    def add_interactions(self, interactions: pd.DataFrame | pa.Table) -> None:
        self._add(schema.INTERACTIONS_FILE, _write_parquet, interactions)

    def add_signals(self, signals: pd.DataFrame) -> None:
        self._add(schema.SIGNALS_FILE, _write_parquet, signals)

    def add_users(self, users: pd.DataFrame | pa.Table) -> None:
        self._add(schema.USER_METADATA_PICKLE, _write_pickle, users)
        self._add(schema.USER_METADATA_FILE, _write_parquet, users)

    def add_sales(self, sales: Float64Array) -> None:
        self._add(schema.SALES_FILE, np.save, sales)

    def add_the_rest(self, dataset: Dataset) -> None:
        """All but the rows, their keys and the users."""
        users, items, matrix = dataset.user_ids, dataset.item_ids, dataset.matrix
        mappings = users, pa.array(items, pa.large_string())
        save_matrix = partial(sparse.save_npz, compressed=False)
        self._add(schema.MATRIX_FILE, save_matrix, matrix, matrix.shape[0])
        self._add(schema.MAPPINGS_FILE, _write_mappings, mappings, len(users) + len(items))
        self._add(schema.PRODUCTS_FILE, _write_parquet, dataset.products)
        self._add(schema.SHOWN_FILE, write_shown, dataset.products)
        self._add(schema.POPULARITY_FILE, np.save, dataset.popularity)
        self._add(schema.STATS_FILE, write_json, dataset.stats, 1)
        (self._folder / schema.EMBEDDINGS_FOLDER).symlink_to(_EMBEDDINGS_LINK)

    def entries(self) -> dict[str, dict[str, Any]]:
        """The manifest's entry of each file, once it is written: SHA-256, number of rows."""
        return {name: entry.result() for name, entry in self._entries.items()}

    def _add(
        self, name: str, write: Callable[[Path, Any], Any], content: Any, rows: int | None = None
    ) -> None:
        """Let `write` make a file of `content`, which has so many rows."""

        def entry() -> dict[str, Any]:
            write(self._folder / name, content)
            counted = len(content) if rows is None else rows
            return {"sha256": sha256_of(self._folder / name), "rows": counted}

        self._entries[name] = self._pool.submit(entry)


def _write_parquet(path: Path, frame: pd.DataFrame | pa.Table) -> None:
    whole = isinstance(frame, pa.Table)
    table = frame if whole else pa.Table.from_pandas(frame, preserve_index=False)
    types = {field.name: field.type for field in table.schema}
    pq.write_table(
        table,
        path,
        use_dictionary=[name for name in _REPETITIVE if name in types],
        compression={name: "NONE" if name == schema.EVENT else "SNAPPY" for name in types},
        # Least and greatest texts would cost a comparison of each comment with the others.
        write_statistics=[name for name, kind in types.items() if kind not in _TEXTS],
    )


def _write_mappings(path: Path, ids: tuple[pa.LargeStringArray, pa.LargeStringArray]) -> None:
    """Of users and of items the number of each id, and the ids by number, as one JSON object that
    is never in memory whole."""
    users, items = ids
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, given in (("user_to_idx", users), ("item_to_idx", items)):
            file.write(f'{"{" if given is users else ", "}"{name}": {{')
            _write_joined(
                file, given, lambda part, first: dict(zip(part, count(first), strict=False))
            )
            file.write("}")
        for name, given in (("idx_to_user", users), ("idx_to_item", items)):
            file.write(f', "{name}": [')
            _write_joined(file, given, lambda ids, first: ids)
            file.write("]")
        file.write("}")


def _write_joined(
    file: TextIO, ids: pa.LargeStringArray, form: Callable[[list[str], int], Any]
) -> None:
    """What `form` makes of some `ids` at a time, the first of which has a number, without the
    brackets around each."""
    for first in range(0, len(ids), _IDS_AT_ONCE):
        part = ids.slice(first, _IDS_AT_ONCE).to_pylist()
        text = json.dumps(form(part, first), ensure_ascii=False)[1:-1]
        file.write(f", {text}" if first else text)


def _write_pickle(path: Path, users: pd.DataFrame | pa.Table) -> None:
    """Plain arrays by column name, so that no version of pandas is needed to read them. Until they
    are written they lie in a file beside."""
    table = users
    if isinstance(users, pd.DataFrame):
        table = pa.Table.from_pandas(users, preserve_index=False)
    with TemporaryFile(dir=path.parent) as beside, path.open("wb") as file:
        arrays = {name: _plain(name, table[name], beside) for name in table.column_names}
        pickle.dump(arrays, file, protocol=5)


def _plain(name: str, column: pa.ChunkedArray, beside: IO[bytes]) -> NDArray[Any]:
    """A column as an array of bytes in the file `beside`; of objects where a text is long: each
    would take the longest one's room."""
    kind: Any = None
    if column.type in _TEXTS:
        longest = pc.max(pc.utf8_length(pc.unique(column) if name in _REPETITIVE else column))
        if (longest.as_py() or 0) > _WIDEST_PLAIN_TEXT:
            return column.to_numpy()
        kind = f"U{max(longest.as_py() or 0, 1)}"
    elif pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us"))
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    if not chunks:
        return np.array(column.to_numpy(), kind)
    start = beside.seek(0, SEEK_END)
    for chunk in chunks:
        values = chunk.to_numpy(zero_copy_only=False)
        values = values if kind is None else values.astype(kind)
        beside.write(values.tobytes())
    beside.flush()
    return np.memmap(beside, values.dtype, "r", start, (len(column),)).view(np.ndarray)
