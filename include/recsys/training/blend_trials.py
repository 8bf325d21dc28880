"""Trying blend weights without asking models: scores of the products that can reach a list.

A product that stands high for no component stands high for no blend, so the best hundred of each
component and the answers themselves stand for the whole shop.
"""

from collections.abc import Mapping

import numpy as np

from recsys.arrays import BoolArray, Float32Array, Int32Array
from recsys.evaluation.ranking import BLOCK, HeldOut, Ranks, rank_among, user_of_target
from recsys.models.histories import user_range, user_rows
from recsys.models.hybrid import Hybrid

_BEST = 100


class BlendTrials:
    """Component scores of `questions`, computed once by `model`, whose weights do not matter.

    A model without a weight for a component leaves it out.
    """

    def __init__(self, model: Hybrid, questions: HeldOut) -> None:
        self._questions = questions
        self._columns = _columns_of_targets(questions)
        blocks = [
            self._read(model, start, min(start + BLOCK, questions.users))
            for start in range(0, questions.users, BLOCK)
        ]
        self._items = np.concatenate([items for items, _, _ in blocks])
        self._barred = np.concatenate([barred for _, barred, _ in blocks])
        self._parts = {
            name: np.concatenate([parts[name] for _, _, parts in blocks]) for name in blocks[0][2]
        }

    def ranks(self, blend: Hybrid) -> Ranks:
        """Ranks of the answers by the weights of `blend`."""
        scores = blend.blend(self._parts, self._items)
        scores[self._barred] = -np.inf
        ranks = rank_among(scores, user_of_target(self._questions), self._columns)
        return Ranks(self._questions.indptr, ranks)

    def _read(
        self, model: Hybrid, start: int, stop: int
    ) -> tuple[Int32Array, BoolArray, dict[str, Float32Array]]:
        """Candidates of the users, which of them do not count, and their scores."""
        histories = user_range(self._questions.histories, start, stop)
        parts = model.component_scores(histories, self._questions.now[start:stop])
        seen = (user_rows(histories), histories.items)
        candidates = [_padded_targets(self._questions, start, stop)]
        for scores in parts.values():
            scores[seen] = -1
            best = min(_BEST, scores.shape[1] - 1)
            candidates.append(np.argpartition(-scores, best, axis=1)[:, :best].astype(np.int32))
        items = np.concatenate(candidates, axis=1)
        chosen: Mapping[str, Float32Array] = {
            name: np.take_along_axis(scores, items, axis=1) for name, scores in parts.items()
        }
        known = next(iter(chosen.values())) < 0
        kept = {name: np.maximum(scores, 0) for name, scores in chosen.items()}
        return items, known | _repeated(items), kept


def _columns_of_targets(questions: HeldOut) -> Int32Array:
    """A user's targets are the first candidates, in their order."""
    first = np.repeat(questions.indptr[:-1], np.diff(questions.indptr))
    return (np.arange(len(questions.targets)) - first).astype(np.int32)


def _padded_targets(questions: HeldOut, start: int, stop: int) -> Int32Array:
    """``(users, most)`` targets, each row filled up with its first."""
    sizes = np.diff(questions.indptr)
    place = np.arange(int(sizes.max()))
    entry = np.where(place < sizes[start:stop, None], place, 0)
    return questions.targets[questions.indptr[start:stop, None] + entry]


def _repeated(items: Int32Array) -> BoolArray:
    """Cells whose item stands further left in the row already."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    again = np.zeros(items.shape, dtype=bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.empty_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    return repeated
