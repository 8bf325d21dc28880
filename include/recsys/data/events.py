"""What one customer did once: latest reviews, and the events that copies of a review belong to.

Shops show one review on the pages of sibling products. Rows of one user with one time and one
text are therefore one *event*, however many products they stand at.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.data import schema
from recsys.data.hashing import Hashes, hash_texts, mix

KEY = "row_key"
"""uint64: equal for rows that say the same, whichever file they came from."""

EVENT_KEY = "event_key"
"""uint64: equal for the rows of one event; `recsys.data.schema.EVENT` is its text form."""

USER_KEY = "user_key"
"""uint64: hash of the user's id. Users are ordered by it: sorting texts would cost far more."""

USER_NUMBER = "user_number"
"""int32: position of the user among all users of the view, ordered by `USER_KEY`."""

Keys = Hashes

_HEX_DIGITS = 16
_THREADS = 2


def add_keys(rows: pd.DataFrame) -> None:
    """Add `USER_KEY`, `EVENT_KEY` and `KEY` to rows with USER, PRODUCT, RATING, TIMESTAMP, COMMENT.

    The event's key is taken from EVENT where the rows have that column.
    """
    texts = [rows[schema.USER], rows[schema.PRODUCT]]
    if schema.EVENT not in rows:
        texts.append(rows[schema.COMMENT])
    with ThreadPoolExecutor(_THREADS) as pool:
        user, product, *comment = pool.map(hash_texts, texts)
    rows[USER_KEY] = user
    if comment:
        time = microseconds(rows[schema.TIMESTAMP]).view(np.uint64)
        rows[EVENT_KEY] = mix(user, time, comment[0])
    else:
        rows[EVENT_KEY] = event_keys(rows[schema.EVENT])
    rating = rows[schema.RATING].to_numpy(np.float32).view(np.uint32).astype(np.uint64)
    rows[KEY] = mix(rows[EVENT_KEY].to_numpy(), product, rating)


def latest_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The latest row of each user and product, ordered by user, time, event and product.

    Adds `USER_NUMBER`. Of rows with one time the better rating stays, then the larger key: the
    answer is a function of the set of rows, so neither the order nor the batches in which they
    arrive matter.
    """
    user = ranks(rows[USER_KEY].to_numpy())
    product, products = ordered_codes(rows[schema.PRODUCT])
    time = microseconds(rows[schema.TIMESTAMP])
    pair = user * max(len(products), 1) + product
    order = ordered_by(pair, time, rows[schema.RATING].to_numpy(), rows[KEY].to_numpy())
    kept = order[np.diff(pair[order], append=-1) != 0]

    moment = ranks(time[kept])
    user_time = user[kept] * (int(moment.max(initial=0)) + 1) + moment
    kept = kept[ordered_by(user_time, rows[EVENT_KEY].to_numpy()[kept], product[kept])]
    latest = rows.take(kept).reset_index(drop=True)
    latest[USER_NUMBER] = user[kept].astype(np.int32)
    return latest


def ordered_by(first: NDArray[np.int64], *others: NDArray) -> NDArray[np.int64]:
    """Positions in ascending order of `first`; equal ones by the others, in turn.

    Faster than ``np.lexsort`` where most values of `first` are distinct.
    """
    order = np.argsort(first)
    ordered = first[order]
    tied = np.zeros(len(order), dtype=bool)
    same = ordered[1:] == ordered[:-1]
    tied[1:] |= same
    tied[:-1] |= same
    rows = order[tied]
    keys = [values[rows] for values in (*reversed(others), first)]
    order[tied] = rows[np.lexsort(keys)]
    return order


def event_weights(event_keys: Keys) -> NDArray[np.float32]:
    """``1 / sqrt(copies)`` of each row's event; rows of one event must be neighbours."""
    starts = run_starts(event_keys)
    copies = np.diff(starts, append=len(event_keys))
    weights: NDArray[np.float32] = np.repeat(1 / np.sqrt(copies), copies).astype(np.float32)
    return weights


def event_ids(event_keys: Keys) -> pd.Series:
    """Keys as texts of 16 hexadecimal digits."""
    digits = event_keys.astype(">u8").tobytes().hex().encode("ascii")
    offsets = np.arange(len(event_keys) + 1, dtype=np.int64) * _HEX_DIGITS
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(digits)]
    return text_series(pa.Array.from_buffers(pa.large_string(), len(event_keys), buffers))


def event_keys(event_ids: pd.Series) -> Keys:
    """The inverse of `event_ids`."""
    return np.frombuffer(bytes.fromhex("".join(event_ids)), dtype=">u8").astype(np.uint64)


def text_series(column: pa.Array | pa.ChunkedArray) -> pd.Series:
    """A column of text in the type that all frames here use."""
    return pd.Series(column.to_pandas(), dtype="str")


def distinct_texts(texts: pd.Series) -> pa.DictionaryArray:
    """Each distinct text once (``.dictionary``), and which one each row has (``.indices``)."""
    column = pa.array(texts, pa.large_string())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.dictionary_encode()


def ordered_codes(texts: pd.Series) -> tuple[NDArray[np.int32], pd.Series]:
    """The position of each text among the distinct ones in order, and these."""
    encoded = distinct_texts(texts)
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[encoded.indices.to_numpy()], text_series(encoded.dictionary.take(pa.array(order)))


def run_starts(*columns: NDArray) -> NDArray[np.int64]:
    """Where runs of equal neighbours begin; a change in any column begins a new one."""
    if not len(columns[0]):
        return np.zeros(0, dtype=np.int64)
    changed = np.zeros(len(columns[0]), dtype=bool)
    changed[0] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changed)


def microseconds(column: pd.Series) -> NDArray[np.int64]:
    """Microseconds since 1970 UTC."""
    values: NDArray[np.int64] = column.dt.as_unit("us").astype("int64").to_numpy()
    return values


def ranks(values: NDArray) -> NDArray[np.int64]:
    """The position of each value among the distinct ones in order."""
    order = np.argsort(values)
    result = np.empty(len(values), dtype=np.int64)
    ordered = values[order]
    result[order] = np.cumsum(np.diff(ordered, prepend=ordered[:1]) != 0)
    return result
