"""What one customer did once: latest reviews, and the events that copies of a review belong to.

Shops show one review on the pages of sibling products. Rows of one user with one time and one
text are therefore one *event*, however many products they stand at.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data import schema

KEY = "row_key"
"""uint64: equal for rows that say the same, whichever file they came from."""

EVENT_KEY = "event_key"
"""uint64: equal for the rows of one event; `recsys.data.schema.EVENT` is its text form."""

Keys = NDArray[np.uint64]


def add_keys(rows: pd.DataFrame) -> None:
    """Add `EVENT_KEY` and `KEY` to rows with USER, PRODUCT, RATING, TIMESTAMP and COMMENT."""
    rows[EVENT_KEY] = _mix(
        _hash_text(rows[schema.USER]),
        microseconds(rows[schema.TIMESTAMP]).view(np.uint64),
        _hash_text(rows[schema.COMMENT]),
    )
    rows[KEY] = _mix(
        rows[EVENT_KEY].to_numpy(),
        _hash_text(rows[schema.PRODUCT]),
        rows[schema.RATING].to_numpy(np.float32).view(np.uint32).astype(np.uint64),
    )


def latest_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The latest row of each user and product, ordered by user, time, event and product.

    Of rows with one time the better rating stays, then the larger key: the answer is a function
    of the set of rows, so neither the order nor the batches in which they arrive matter.
    """
    user, _ = ordered_codes(rows[schema.USER])
    product, products = ordered_codes(rows[schema.PRODUCT])
    pair = user.astype(np.int64) * max(len(products), 1) + product
    time = microseconds(rows[schema.TIMESTAMP])
    key = rows[KEY].to_numpy()
    order = np.lexsort((key, rows[schema.RATING].to_numpy(), time, pair))
    kept = order[np.diff(pair[order], append=-1) != 0]
    event = rows[EVENT_KEY].to_numpy()
    kept = kept[np.lexsort((product[kept], event[kept], time[kept], user[kept]))]
    return rows.take(kept).reset_index(drop=True)


def event_weights(event_keys: Keys) -> NDArray[np.float32]:
    """``1 / sqrt(copies)`` of each row's event; rows of one event must be neighbours."""
    starts = run_starts(event_keys)
    copies = np.diff(starts, append=len(event_keys))
    weights: NDArray[np.float32] = np.repeat(1 / np.sqrt(copies), copies).astype(np.float32)
    return weights


def event_ids(event_keys: Keys) -> pd.Series:
    """Keys as texts of 16 hexadecimal digits."""
    digits = event_keys.astype(">u8").tobytes().hex().encode("ascii")
    return pd.Series(np.frombuffer(digits, dtype="S16").astype("U16"), dtype="str")


def event_keys(event_ids: pd.Series) -> Keys:
    """The inverse of `event_ids`."""
    return np.frombuffer(bytes.fromhex("".join(event_ids)), dtype=">u8").astype(np.uint64)


def ordered_codes(texts: pd.Series) -> tuple[NDArray[np.int32], pd.Index]:
    """The position of each text among the distinct ones in order, and these."""
    codes, distinct = pd.factorize(texts)
    order = np.argsort(distinct.to_numpy(dtype=object), kind="stable")
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return rank[codes], pd.Index(distinct).take(order)


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


def _hash_text(column: pd.Series) -> Keys:
    hashed: Keys = pd.util.hash_array(column.to_numpy(dtype=object), categorize=False)
    return hashed


def _mix(*columns: Keys) -> Keys:
    """One hash of several columns; the order of the columns matters."""
    result = np.full(len(columns[0]), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for column in columns:
        result = (result ^ column) * np.uint64(0xFF51AFD7ED558CCD)
        result ^= result >> np.uint64(32)
    return result
