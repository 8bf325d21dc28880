"""Keys of rows: what one customer did once, its copies, and the latest rows.

Rows of one user with one time and one text are one *event*, however many products they stand at:
shops show one review on the pages of sibling products. Keys are 64-bit hashes of whole columns of
text: a polynomial of a text's bytes modulo 2^64, mixed with its length, the same on every machine.
An attacker could only make rows of his own look alike.
"""

import binascii
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys import schema
from recsys.arrays import UInt64Array
from recsys.settings import CORES

KEY = "row_key"
"""uint64: equal for rows that say the same, whichever file they came from."""
EVENT_KEY = "event_key"
"""uint64: equal for the rows of one event; `recsys.schema.EVENT` is its text form."""
USER_KEY = "user_key"
"""uint64: hash of the user's id. Users are ordered by it: sorting texts would cost far more."""
ARRIVAL = "arrival"
"""int32: of rows with one time that of the greatest number counts. Dropped files have 1, 2, ..."""
USER_NUMBER = "user_number"
"""int32: position of the user among all users of the view, ordered by `USER_KEY`."""

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_PRIME = 0x100000001B3
_INVERSE = pow(_PRIME, -1, 1 << 64)
_BLOCK_BYTES = 1 << 15  # what is computed for a block stays in the processor's cache


def add_keys(
    rows: pd.DataFrame, user: UInt64Array, product: UInt64Array, comment: UInt64Array
) -> None:
    """Add `USER_KEY`, `EVENT_KEY`, `KEY` and `ARRIVAL` 0 to rows with RATING and TIMESTAMP. The
    others are hashes of the rows' texts."""
    time = microseconds(rows[schema.TIMESTAMP]).view(np.uint64)
    rating = rows[schema.RATING].to_numpy(np.float32).view(np.uint32).astype(np.uint64)
    event = mix(user, time, comment)
    rows[USER_KEY] = user
    rows[EVENT_KEY] = event
    rows[KEY] = mix(event, product, rating)
    rows[ARRIVAL] = np.zeros(len(rows), dtype=np.int32)


def latest_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The latest row of each user and product, ordered by user, time, event and product. Has
    `USER_NUMBER` instead of `USER_KEY`, `KEY` and `ARRIVAL`. Of rows with one time the one that
    arrived last stays, then the better rating, then the larger key: a function of the set of rows,
    so their order and the batches in which they are read do not matter."""
    user, event = rows[USER_KEY].to_numpy(), rows[EVENT_KEY].to_numpy()
    time = microseconds(rows[schema.TIMESTAMP])
    order = np.argsort(user)
    # Most users have one row, and nothing more to be compared.
    several = order[tied(user[order])]
    product = np.zeros(len(rows), dtype=np.int32)
    product[several] = ordered_codes(rows[schema.PRODUCT].take(several))
    arrival, rating, key = (rows[name].to_numpy() for name in (ARRIVAL, schema.RATING, KEY))
    pair = mix(user[several], product[several].astype(np.uint64))
    ordered = ordered_by(pair, *(values[several] for values in (time, arrival, rating, key)))
    earlier = ordered[:-1][pair[ordered[:-1]] == pair[ordered[1:]]]
    superseded = np.zeros(len(rows), dtype=np.bool_)
    superseded[several[earlier]] = True
    kept = _settle_ties(order[~superseded[order]], user, time, event, product)
    latest = _take(rows.drop(columns=[USER_KEY, KEY, ARRIVAL]), kept)
    changes = np.diff(user[kept], prepend=user[kept[:1]]) != 0
    latest[USER_NUMBER] = np.cumsum(changes, dtype=np.int32)
    return latest


def _take(rows: pd.DataFrame, positions: NDArray[np.int64]) -> pd.DataFrame:
    """The rows at `positions`; columns are copied side by side."""
    with ThreadPoolExecutor(CORES) as pool:
        columns = pool.map(lambda name: rows[name].array.take(positions), rows.columns)
        return pd.DataFrame(dict(zip(rows.columns, columns, strict=True)), copy=False)


def ordered_by(first: NDArray, *others: NDArray) -> NDArray[np.int64]:
    """Positions in ascending order of `first`; equal ones by the others, in turn. Much faster than
    ``np.lexsort`` where most values of `first` are distinct."""
    return _settle_ties(np.argsort(first), first, *others)


def _settle_ties(order: NDArray[np.int64], first: NDArray, *others: NDArray) -> NDArray[np.int64]:
    """`order`, which is ascending in `first`, with equal ones ordered by the others, in turn."""
    ordered = first[order]
    several = tied(ordered)
    if not others or not several.any():
        return order
    rows = order[several]
    within = ordered_by(*(values[rows] for values in others))
    group = np.cumsum(np.append(True, ordered[1:] != ordered[:-1]), dtype=np.int32)[several]
    settled = order.copy()
    settled[several] = rows[within[np.argsort(group[within], kind="stable")]]
    return settled


def tied(ordered: NDArray) -> NDArray[np.bool_]:
    """Which values have an equal neighbour."""
    found = np.zeros(len(ordered), dtype=np.bool_)
    same = ordered[1:] == ordered[:-1]
    found[1:] |= same
    found[:-1] |= same
    return found


def event_weights(event_keys: UInt64Array) -> NDArray[np.float32]:
    """``1 / sqrt(copies)`` of each row's event; rows of one event must be neighbours."""
    starts = run_starts(event_keys)
    copies = np.diff(starts, append=len(event_keys))
    return np.asarray(np.repeat(1 / np.sqrt(copies), copies), dtype=np.float32)


def event_ids(event_keys: UInt64Array) -> pd.Series:
    """Keys as texts of 16 hexadecimal digits."""
    digits = binascii.hexlify(event_keys.astype(">u8").data)
    offsets = np.arange(len(event_keys) + 1, dtype=np.int64) * 16
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(digits)]
    return text_series(pa.Array.from_buffers(pa.large_string(), len(event_keys), buffers))


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
    changed = np.zeros(len(columns[0]), dtype=np.bool_)
    changed[:1] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changed)


def distinct_keys(keys: UInt64Array) -> UInt64Array:
    """`keys` in ascending order, each once."""
    ordered = np.sort(keys)
    return ordered[run_starts(ordered)]


def microseconds(column: pd.Series) -> NDArray[np.int64]:
    """Microseconds since 1970 UTC."""
    return np.asarray(column.dt.as_unit("us").astype("int64"))


def hash_texts(column: pd.Series) -> UInt64Array:
    """A stable hash of each text of a column without missing values."""
    array = pa.array(column, pa.large_string())
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    return np.concatenate([np.zeros(0, np.uint64), *map(_hash_chunk, chunks)])


def mix(*columns: UInt64Array) -> UInt64Array:
    """One hash of several columns; the order of the columns matters."""
    result = np.full(len(columns[0]), MULTIPLIER, dtype=np.uint64)
    for column in columns:
        result ^= column
        result *= np.uint64(0xFF51AFD7ED558CCD)
        result ^= result >> np.uint64(32)
    return result


def bytes_of(texts: pa.LargeStringArray) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each text begins, and the last one ends, in the bytes of all of them; and these."""
    if not len(texts):
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset :][: len(texts) + 1]
    return ends - ends[0], np.frombuffer(content or b"", dtype=np.uint8)[ends[0] : ends[-1]]


def _hash_chunk(chunk: pa.LargeStringArray) -> UInt64Array:
    ends, content = bytes_of(chunk)
    if not len(content):
        return mix(*np.zeros((2, len(chunk)), dtype=np.uint64))
    # Blocks of whole texts: the powers of a text begin where it stands in its block.
    marks = np.arange(0, len(content), _BLOCK_BYTES)
    inner = np.searchsorted(ends, marks[1:], side="right") - 1
    firsts = np.unique(np.concatenate([[0], inner, [len(chunk)]]))
    longest = int(np.max(ends[firsts[1:]] - ends[firsts[:-1]]))
    blocks = longest // _BLOCK_BYTES + 1
    powers, inverses = _powers(_PRIME, blocks), _powers(_INVERSE, blocks)
    lengths = np.diff(ends)
    hashes = np.zeros(len(chunk), dtype=np.uint64)
    terms = np.empty(longest, dtype=np.uint64)
    for first, last in itertools.pairwise(firsts):
        start, size = ends[first], ends[last] - ends[first]
        np.multiply(content[start : start + size], powers[:size], out=terms[:size])
        filled = lengths[first:last] > 0
        places = ends[first:last][filled] - start
        hashes[first:last][filled] = np.add.reduceat(terms[:size], places) * inverses[places]
    return mix(hashes, lengths.astype(np.uint64))


@functools.lru_cache(maxsize=2)
def _powers(base: int, blocks: int) -> UInt64Array:
    """``base ** 0, base ** 1, ...`` modulo 2^64, enough of them for so many blocks of bytes."""
    factors = np.full(blocks * _BLOCK_BYTES + 1, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)
