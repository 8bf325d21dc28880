"""What lists of ten look like besides being right: how much of the shop they show."""

import numpy as np

from recsys.arrays import Int64Array
from recsys.evaluation.ranking import BLOCK, HeldOut, Scorer, take_questions, unseen_scores

LENGTH = 10
_SAMPLE = 2000
_HEAD_SHARE = 0.2


def list_metrics(
    model: Scorer, questions: HeldOut, purchases: Int64Array, seed: int = 0
) -> dict[str, float]:
    """``coverage_at_10``, ``novelty_at_10`` and ``long_tail_at_10``, of at most 2,000 users.

    Coverage is the share of all products that stand in somebody's list. Novelty is the mean of
    ``-log2`` of a listed product's share of all `purchases` ``(items,)``, one added to each.
    Long tail is the share of listed products outside the best-selling fifth of the shop.
    """
    if questions.users > _SAMPLE:
        chosen = np.random.default_rng(seed).choice(questions.users, _SAMPLE, replace=False)
        questions = take_questions(questions, np.sort(chosen))
    items = len(purchases)
    listed = np.zeros(items, dtype=np.int64)
    for start in range(0, questions.users, BLOCK):
        scores = unseen_scores(model, questions, start, min(start + BLOCK, questions.users))
        length = min(LENGTH, items - 1)
        top = np.argpartition(-scores, length - 1, axis=1)[:, :length]
        valid = np.take_along_axis(scores, top, axis=1) > -np.inf
        listed += np.bincount(top[valid], minlength=items)
    share = (purchases + 1) / (purchases.sum() + items)
    head = np.argsort(-purchases, kind="stable")[: int(np.ceil(_HEAD_SHARE * items))]
    total = max(int(listed.sum()), 1)
    return {
        "coverage_at_10": round(float((listed > 0).mean()), 6),
        "novelty_at_10": round(float(-(listed * np.log2(share)).sum() / total), 6),
        "long_tail_at_10": round(float(1 - listed[head].sum() / total), 6),
    }
