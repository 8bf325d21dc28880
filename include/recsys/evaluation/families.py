"""The next purchase from another product family, in lists that show one listing a family.

Listings of one product (sizes, shades, bundles) share a family, see `recsys.data.families`. A
customer who bought the 200 ml gains nothing from the 100 ml beside it, and a model gains nothing
here by naming it: the families that a user had are no candidates and no answers.
"""

from dataclasses import dataclass

import numpy as np

from recsys.arrays import Int32Array, Int64Array
from recsys.evaluation.ranking import (
    BLOCK,
    HeldOut,
    Ranks,
    Scorer,
    finite_scores,
    rank_among,
    take_questions,
)
from recsys.models.histories import user_rows


@dataclass(frozen=True)
class FamilyRanks:
    """Ranks of families that were chosen, for those who chose a family they did not have.

    Attributes
    ----------
    users
        ``(asked,)`` numbers of these users among the questions.
    ranks
        Of each of them, where the new families stand.
    """

    users: Int64Array
    ranks: Ranks


def rank_families(model: Scorer, questions: HeldOut, families: Int32Array) -> FamilyRanks:
    """Rank the families of the answers by their best listing, among families that are new.

    Parameters
    ----------
    families
        ``(items,)`` number of each product's family, from 0 without gaps.
    """
    owner, targets = _new_families(questions, families)
    users, sizes = np.unique(owner, return_counts=True)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    asked = take_questions(questions, users)
    rows = np.repeat(np.arange(len(users)), sizes)
    by_family = np.argsort(families, kind="stable")
    firsts = np.flatnonzero(np.diff(families[by_family], prepend=-1))
    ranks = np.zeros(len(targets), dtype=np.int64)
    for start in range(0, len(users), BLOCK):
        stop = min(start + BLOCK, len(users))
        histories, scores = finite_scores(model, asked, start, stop)
        best = np.maximum.reduceat(scores[:, by_family], firsts, axis=1)
        best[user_rows(histories), families[histories.items]] = -np.inf
        part = slice(indptr[start], indptr[stop])
        ranks[part] = rank_among(best, rows[part] - start, targets[part])
    return FamilyRanks(users, Ranks(indptr, ranks))


def _new_families(questions: HeldOut, families: Int32Array) -> tuple[Int64Array, Int32Array]:
    """``(pairs,)`` users and the families that they chose and did not have, in order of users."""
    count = int(families.max()) + 1
    chooser = np.repeat(np.arange(questions.users), np.diff(questions.indptr))
    chosen = chooser * count + families[questions.targets]
    had = user_rows(questions.histories) * count + families[questions.histories.items]
    user, family = np.divmod(np.setdiff1d(chosen, had), count)
    return user, family.astype(np.int32)
