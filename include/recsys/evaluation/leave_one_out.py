"""The event-aware leave-one-out protocol on a published data version.

The refresh has marked each trainable user's latest positive event as test and the one before as
validation. Copies of one review are one event, so a held-out event has no copy in training.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys import schema
from recsys.arrays import Int32Array
from recsys.data.versions import PublishedVersion
from recsys.errors import InputError
from recsys.evaluation.ranking import HeldOut
from recsys.evaluation.windows import Window, rolling_windows
from recsys.models.base import Histories
from recsys.models.histories import take_users
from recsys.models.history_frames import histories_from_frame

COLUMNS = [
    schema.USER,
    schema.PRODUCT,
    schema.RATING,
    schema.TIMESTAMP,
    schema.CONFIDENCE,
    schema.WEIGHT,
    schema.SPLIT,
]
MIN_USERS = 20


@dataclass(frozen=True)
class LeaveOneOut:
    """What is fitted on, and the questions.

    Attributes
    ----------
    user_ids, item_ids
        All users with an accepted interaction, trainable or not; all products.
    families
        ``(items,)`` int32 number of each product's family, from 0 without gaps.
    training
        Histories of the training rows: for tuning on `validation`.
    training_and_validation
        The same with the validation rows: for the one evaluation on `test`.
    everything
        All rows: what the served model is fitted on, and what serving knows of users.
    validation, test
        Questions to the users who have a history before the held-out event.
    windows
        The last rolling time windows, see `recsys.evaluation.windows`.
    """

    user_ids: list[str]
    item_ids: list[str]
    families: Int32Array
    training: Histories
    training_and_validation: Histories
    everything: Histories
    validation: HeldOut
    test: HeldOut
    windows: list[Window]


def read_leave_one_out(version: PublishedVersion) -> LeaveOneOut:
    """The protocol on `version`.

    Raises `InputError` if there is nothing to learn from or too little to evaluate on.
    """
    interactions = version.interactions(COLUMNS)
    _, item_ids = version.mappings()
    if len(item_ids) < 2:
        raise InputError(
            f"{version.path}: {len(item_ids)} product; a recommender needs at least two"
        )
    if interactions.empty:
        raise InputError(f"{version.path}: the version has no interactions")
    ratings = interactions[schema.RATING].unique()
    if len(ratings) == 1:
        raise InputError(
            f"{version.path}: all {len(interactions)} ratings are {ratings[0]:g}; a shop's stars "
            "differ, so this looks like a broken export, and nothing is learnt from it"
        )
    user_ids = sorted(interactions[schema.USER].unique().tolist())
    parts = {
        name: interactions[interactions[schema.SPLIT].isin(splits)]
        for name, splits in {
            "training": [schema.TRAIN],
            "training_and_validation": [schema.TRAIN, schema.VALIDATION],
            "everything": list(schema.SPLITS),
            "validation": [schema.VALIDATION],
            "test": [schema.TEST],
        }.items()
    }
    histories = {
        name: histories_from_frame(part, user_ids, item_ids) for name, part in parts.items()
    }
    return LeaveOneOut(
        user_ids=user_ids,
        item_ids=item_ids,
        families=_families(version, item_ids),
        training=histories["training"],
        training_and_validation=histories["training_and_validation"],
        everything=histories["everything"],
        validation=_questions(histories["training"], histories["validation"], "validation"),
        test=_questions(histories["training_and_validation"], histories["test"], "test"),
        windows=rolling_windows(interactions, user_ids, item_ids),
    )


def _families(version: PublishedVersion, item_ids: list[str]) -> Int32Array:
    """A product without a family is one of its own."""
    products = version.products().set_index(schema.PRODUCT)[schema.FAMILY].reindex(item_ids)
    own = pd.Series(item_ids, index=products.index)
    return pd.factorize(products.fillna(own))[0].astype(np.int32)


def _questions(known: Histories, answers: Histories, split: str) -> HeldOut:
    asked = np.flatnonzero((np.diff(known.indptr) > 0) & (np.diff(answers.indptr) > 0))
    if len(asked) < MIN_USERS:
        raise InputError(
            f"only {len(asked)} users have a history and a {split} event; "
            f"evaluation needs at least {MIN_USERS}"
        )
    chosen = take_users(answers, asked)
    return HeldOut(
        histories=take_users(known, asked),
        now=chosen.times[chosen.indptr[:-1]],
        indptr=chosen.indptr,
        targets=chosen.items,
    )
