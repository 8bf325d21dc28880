"""What one customer did once: latest reviews, and the events that copies of a review belong to.

Shops show one review on the pages of sibling products. Rows of one user with one time and one
text are therefore one *event*, however many products they stand at.
"""

import binascii
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.settings import CORES
from recsys import schema
from recsys.data.hashing import Hashes, bytes_of, hash_texts, mix

KEY = "row_key"
"""uint64: equal for rows that say the same, whichever file they came from."""

EVENT_KEY = "event_key"
"""uint64: equal for the rows of one event; `recsys.schema.EVENT` is its text form."""

USER_KEY = "user_key"
"""uint64: hash of the user's id. Users are ordered by it: sorting texts would cost far more."""

USER_NUMBER = "user_number"
"""int32: position of the user among all users of the view, ordered by `USER_KEY`."""

Keys = Hashes

_HEX_DIGITS = 16


def add_keys(rows: pd.DataFrame) -> None:
    """Add `USER_KEY`, `EVENT_KEY` and `KEY` to rows with USER, PRODUCT, RATING and EVENT."""
    with ThreadPoolExecutor(CORES) as pool:
        user, product = pool.map(hash_texts, [rows[schema.USER], rows[schema.PRODUCT]])
    _set_keys(rows, user, product, event_keys(rows[schema.EVENT]))


def add_hashed_keys(rows: pd.DataFrame, user: Keys, product: Keys, comment: Keys) -> None:
    """The same for rows with TIMESTAMP and no EVENT yet, whose texts are hashed already."""
    time = microseconds(rows[schema.TIMESTAMP]).view(np.uint64)
    _set_keys(rows, user, product, mix(user, time, comment))


def _set_keys(rows: pd.DataFrame, user: Keys, product: Keys, event: Keys) -> None:
    rows[USER_KEY] = user
    rows[EVENT_KEY] = event
    rating = rows[schema.RATING].to_numpy(np.float32).view(np.uint32).astype(np.uint64)
    rows[KEY] = mix(event, product, rating)


def latest_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The latest row of each user and product, ordered by user, time, event and product.

    Has `USER_NUMBER` instead of `USER_KEY` and `KEY`. Of rows with one time the better rating
    stays, then the larger key: the answer is a function of the set of rows, so neither the order
    nor the batches in which they arrive matter.
    """
    user, event = rows[USER_KEY].to_numpy(), rows[EVENT_KEY].to_numpy()
    time = microseconds(rows[schema.TIMESTAMP])
    order = np.argsort(user)
    # Most users have one row, and nothing more to be compared.
    several = order[_tied(user[order])]
    product = np.zeros(len(rows), dtype=np.int32)
    product[several] = ordered_codes(rows[schema.PRODUCT].take(several))
    rating, key = rows[schema.RATING].to_numpy(), rows[KEY].to_numpy()
    pair = mix(user[several], product[several].astype(np.uint64))
    old = _all_but_last(pair, time[several], rating[several], key[several])
    superseded = np.zeros(len(rows), dtype=np.bool_)
    superseded[several[old]] = True
    kept = _settle_ties(order[~superseded[order]], user, time, event, product)
    latest = _take(rows.drop(columns=[USER_KEY, KEY]), kept)
    changes = np.zeros(len(kept), dtype=np.int32)
    changes[run_starts(user[kept])[1:]] = 1
    latest[USER_NUMBER] = np.cumsum(changes, dtype=np.int32)
    return latest


def _all_but_last(pair: Keys, *others: NDArray) -> NDArray[np.int64]:
    """Positions of the rows of which there is a later one, by `others` in turn, of that pair."""
    order = ordered_by(pair, *others)
    return order[:-1][pair[order[:-1]] == pair[order[1:]]]


def _take(rows: pd.DataFrame, positions: NDArray[np.int64]) -> pd.DataFrame:
    """The rows at `positions`; columns are copied side by side."""
    with ThreadPoolExecutor(CORES) as pool:
        columns = pool.map(lambda name: rows[name].array.take(positions), rows.columns)
        return pd.DataFrame(dict(zip(rows.columns, columns, strict=True)), copy=False)


def ordered_by(first: NDArray, *others: NDArray) -> NDArray[np.int64]:
    """Positions in ascending order of `first`; equal ones by the others, in turn.

    Much faster than ``np.lexsort`` where most values of `first` are distinct.
    """
    return _settle_ties(np.argsort(first), first, *others)


def _settle_ties(
    order: NDArray[np.int64], first: NDArray, *others: NDArray
) -> NDArray[np.int64]:
    """`order`, which is ascending in `first`, with equal ones ordered by the others, in turn."""
    ordered = first[order]
    tied = _tied(ordered)
    if not others or not tied.any():
        return order
    rows = order[tied]
    within = ordered_by(*(values[rows] for values in others))
    group = np.cumsum(np.append(True, ordered[1:] != ordered[:-1]), dtype=np.int32)[tied]
    settled = order.copy()
    settled[tied] = rows[within[np.argsort(group[within], kind="stable")]]
    return settled


def _tied(ordered: NDArray) -> NDArray[np.bool_]:
    """Which values have an equal neighbour."""
    tied = np.zeros(len(ordered), dtype=np.bool_)
    same = ordered[1:] == ordered[:-1]
    tied[1:] |= same
    tied[:-1] |= same
    return tied


def event_weights(event_keys: Keys) -> NDArray[np.float32]:
    """``1 / sqrt(copies)`` of each row's event; rows of one event must be neighbours."""
    starts = run_starts(event_keys)
    copies = np.diff(starts, append=len(event_keys))
    weights: NDArray[np.float32] = np.repeat(1 / np.sqrt(copies), copies).astype(np.float32)
    return weights


def event_ids(event_keys: Keys) -> pd.Series:
    """Keys as texts of 16 hexadecimal digits."""
    digits = binascii.hexlify(event_keys.astype(">u8").data)
    offsets = np.arange(len(event_keys) + 1, dtype=np.int64) * _HEX_DIGITS
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(digits)]
    return text_series(pa.Array.from_buffers(pa.large_string(), len(event_keys), buffers))


def event_keys(event_ids: pd.Series) -> Keys:
    """The inverse of `event_ids`."""
    _, digits = bytes_of(one_chunk(event_ids))
    return np.frombuffer(binascii.unhexlify(digits.tobytes()), dtype=">u8").astype(np.uint64)


def text_series(column: pa.Array | pa.ChunkedArray) -> pd.Series:
    """A column of text in the type that all frames here use."""
    return pd.Series(column.to_pandas(), dtype="str")


def one_chunk(texts: pd.Series) -> pa.LargeStringArray:
    """A column of text as one Arrow array."""
    column = pa.array(texts, pa.large_string())
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def distinct_texts(texts: pd.Series) -> pa.DictionaryArray:
    """Each distinct text once (``.dictionary``), and which one each row has (``.indices``)."""
    return one_chunk(texts).dictionary_encode()


def ordered_codes(texts: pd.Series) -> NDArray[np.int32]:
    """The position of each text among the distinct ones in order."""
    encoded = distinct_texts(texts)
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[encoded.indices.to_numpy()]


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

