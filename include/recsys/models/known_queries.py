"""What histories ask for, worked out in advance and found again by what the histories hold."""

import numpy as np

from recsys.arrays import Float32Array, Int64Array, UInt64Array
from recsys.models.base import Histories

_SALTS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)


class KnownQueries:
    """`queries` ``(users, factors)`` of `histories`. A history is known by a digest of 128 bits of
    all its entries: one more purchase makes it another one, and nobody has to say whose it is."""

    def __init__(self, histories: Histories, queries: Float32Array) -> None:
        digests = _digests(histories)
        self._row = np.argsort(digests[:, 0], kind="stable")
        self._digests = digests[self._row]
        self.queries = queries

    def rows(self, histories: Histories) -> Int64Array:
        """``(users,)`` the row of `queries` of each history, -1 where it is not a known one."""
        if not len(self._row):
            return np.full(histories.users, -1, dtype=np.int64)
        digests = _digests(histories)
        place = np.searchsorted(self._digests[:, 0], digests[:, 0])
        place = np.minimum(place, len(self._row) - 1)
        same = (self._digests[place] == digests).all(axis=1)
        return np.where(same, self._row[place], -1)


def _digests(histories: Histories) -> UInt64Array:
    """``(users, 2)``, each half the sum of mixed entries; sums run over at the width of the type,
    which is meant."""
    place = np.arange(len(histories.items)) - np.repeat(
        histories.indptr[:-1], np.diff(histories.indptr)
    )
    strength = np.stack([histories.confidence, histories.weight], axis=1, dtype=np.float32)
    facts = [
        (histories.items.astype(np.int64) << 32 | place).view(np.uint64),
        np.ascontiguousarray(histories.times).view(np.uint64),
        strength.view(np.uint64)[:, 0],
        histories.kinds.astype(np.uint64),
    ]
    digests = np.empty((histories.users, len(_SALTS)), dtype=np.uint64)
    for half, salt in enumerate(_SALTS):
        mixed = np.full(len(place), salt, dtype=np.uint64)
        for fact in facts:
            mixed = _mixed(mixed ^ fact)
        sums = np.zeros(len(mixed) + 1, dtype=np.uint64)
        np.cumsum(mixed, out=sums[1:])
        digests[:, half] = sums[histories.indptr[1:]] - sums[histories.indptr[:-1]]
    return digests


def _mixed(words: UInt64Array) -> UInt64Array:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))
