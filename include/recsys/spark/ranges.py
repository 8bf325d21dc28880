"""Rows dealt by user: each range has the users with the same highest bits of the hash of their id.

Ranges in order hold the users in the order of `recsys.data.keys`. Whoever reads a piece of a file
writes one record batch for each range; whoever takes a range reads that batch of every piece."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from recsys.arrays import UInt64Array
from recsys.data.keys import USER_KEY, distinct_keys
from recsys.spark.shelf import Shelf

_KEY_BITS = 64
_KEYS_AT_ONCE = 1 << 20


def deal(rows: pd.DataFrame, path: Path, bits: int) -> None:
    """Write `rows` to the Arrow file `path`, a batch for each of ``2 ** bits`` ranges."""
    number = (rows[USER_KEY].to_numpy() >> np.uint64(_KEY_BITS - bits)).astype(np.int64)
    order = np.argsort(number, kind="stable")
    table = pa.Table.from_pandas(rows, preserve_index=False).take(pa.array(order)).combine_chunks()
    ends = np.bincount(number, minlength=1 << bits).cumsum().tolist()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(str(path), table.schema, options=options) as writer:
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            batches = table.slice(first, end - first).to_batches()
            nothing = pa.RecordBatch.from_pylist([], table.schema)
            writer.write_batch(batches[0] if batches else nothing)


def dealt_ranges(shelf: Shelf, name: str) -> int:
    """Into how many ranges the rows of a file were dealt."""
    with shelf.open(name) as file:
        return int(pa.ipc.open_file(file).num_record_batches)


def read_range(shelf: Shelf, names: Sequence[str], number: int) -> pd.DataFrame:
    """The rows of one range, of all files."""
    batches = []
    with ExitStack() as stack:
        for name in names:
            file = stack.enter_context(shelf.open(name))
            batches.append(pa.ipc.open_file(file).get_batch(number))
        found: pd.DataFrame = pa.Table.from_batches(batches).to_pandas()
        return found


def merge_keys(parts: Sequence[UInt64Array], path: Path) -> UInt64Array:
    """The distinct keys of ascending arrays, in order, in the file `path`, not all in memory."""
    slices = max(1, sum(map(len, parts)) // _KEYS_AT_ONCE)
    edges = np.array([(at << _KEY_BITS) // slices for at in range(1, slices)], dtype=np.uint64)
    cuts = [[0, *np.searchsorted(keys, edges).tolist(), len(keys)] for keys in parts]
    with path.open("wb") as target:
        for at in range(slices):
            pairs = zip(parts, cuts, strict=True)
            some = np.concatenate([keys[cut[at] : cut[at + 1]] for keys, cut in pairs])
            distinct_keys(some).tofile(target)
    if not path.stat().st_size:
        return np.zeros(0, dtype=np.uint64)
    merged: UInt64Array = np.memmap(path, dtype=np.uint64, mode="r")
    return merged
