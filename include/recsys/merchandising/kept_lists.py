"""Lists that were composed once for a known user and hold for as long as nothing new is known.

To walk through the candidates takes a request 30 to 90 microseconds, to unpack a list one."""

import struct
from typing import Final

from recsys.merchandising.ranking import Ranked
from recsys.merchandising.steering import Steering

MOST_BYTES: Final = 16 << 20
"""Of one model: 75,000 lists of ten."""
_BESIDE: Final = 130  # bytes that a list takes beside its own: the key, and its place in the table
_OF_A_PRODUCT: Final = 9  # a letter, column and score in single precision, as the model's are


class KeptLists:
    """The lists of known users under the steerings of one snapshot, by length and position: packed,
    so that looking for garbage does not look at them. When they are too many, all are forgotten.

    Threads may share it: two that keep the same list keep the same."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._lists: dict[tuple[Steering, int], dict[int, bytes]] = {}
        self.ahead = 0
        """Of so many users, in the order of the candidates, they were made before anybody asked."""

    @property
    def has_room(self) -> bool:
        """Whether what nobody has asked for would find room, and leave some."""
        return self._bytes < self._most / 2

    def get(self, steering: Steering, topk: int, position: int) -> Ranked | None:
        """The list of `topk` of the known user at `position`, None if it is not kept."""
        of = self._lists.get((steering, topk))
        packed = None if of is None else of.get(position)
        if packed is None:
            return None
        count = len(packed) // _OF_A_PRODUCT
        marks, *numbers = struct.unpack(_format(count), packed)
        return Ranked(numbers[:count], numbers[count:], marks.decode())

    def keep(self, steering: Steering, topk: int, position: int, ranked: Ranked) -> None:
        """Remember a list that nothing in the request but its length and the user decides about."""
        numbers = (*ranked.items, *ranked.scores)
        packed = struct.pack(_format(len(ranked.items)), ranked.marks.encode(), *numbers)
        self._bytes += len(packed) + _BESIDE
        if self._bytes > self._most:
            self._lists, self._bytes = {}, len(packed) + _BESIDE
        self._lists.setdefault((steering, topk), {})[position] = packed


def _format(count: int) -> str:
    return f"<{count}s{count}i{count}f"
