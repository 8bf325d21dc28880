"""Windows of characters over many texts at once, as hashes."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


def bytes_of(texts: pa.Array) -> tuple[Int64, npt.NDArray[np.uint8]]:
    """The UTF-8 bytes of all texts one after the other, and where each begins (n + 1 offsets)."""
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)
    offsets = offsets[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    content = texts.buffers()[2]
    data = np.frombuffer(content, dtype=np.uint8) if content is not None else np.zeros(0, np.uint8)
    return offsets - offsets[0], data[offsets[0] : offsets[-1]]


def windows(texts: pa.Array, sizes: tuple[int, ...]) -> tuple[Int64, UInt64]:
    """Text index and hash of every window of each size (in bytes, ascending, at least 2).

    Windows of one size come in the order of the texts; no window crosses from one into the next.
    """
    offsets, data = bytes_of(texts)
    owner = np.repeat(np.arange(len(texts)), np.diff(offsets))
    owners, hashes = [], []
    window = data.astype(np.uint64)
    for size in range(2, max(sizes) + 1):
        step = size - 1
        window = window[:-1] * MULTIPLIER + data[step:]
        if size in sizes:
            inside = owner[step:] == owner[: max(len(owner) - step, 0)]
            owners.append(owner[step:][inside])
            hashes.append(window[inside])
    return np.concatenate(owners), np.concatenate(hashes)
