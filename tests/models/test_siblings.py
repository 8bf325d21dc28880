"""Other sizes of what a customer had stand lower, and nothing else moves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.models.histories import histories_from_codes, user_range
from recsys.models.kinds import CODE_OF
from recsys.models.siblings import lower_siblings, siblings_of
from recsys.schema import Kind

FAMILIES = np.array([0, 0, 1, 2, 2, 2], np.int32)


def of(*rows: tuple[int, int, Kind], users: int = 2):
    user, item, kinds = zip(*rows, strict=True) if rows else ((), (), ())
    return histories_from_codes(
        np.array(user, np.int64),
        np.array(item, np.int64),
        np.arange(len(rows)),
        count=users,
        kinds=np.array([CODE_OF[kind] for kind in kinds], np.int8),
    )


def test_what_was_had_or_dismissed_has_siblings_and_what_was_looked_at_has_none():
    found = siblings_of(
        of((0, 0, Kind.RATING), (0, 4, Kind.VIEW), (1, 3, Kind.DISMISS), (1, 2, Kind.PURCHASE)),
        FAMILIES,
    )
    assert np.flatnonzero(found[0]).tolist() == [1]
    assert np.flatnonzero(found[1]).tolist() == [4, 5]


def test_siblings_that_the_customer_had_as_well_keep_their_scores():
    histories = of((0, 3, Kind.PURCHASE), (0, 5, Kind.PURCHASE))
    scores = lower_siblings(np.ones((2, 6), np.float32), histories, FAMILIES, 0.25)
    assert scores[0].tolist() == [1, 1, 1, 1, 0.25, 1]
    assert scores[1].tolist() == [1] * 6


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=12))
def test_a_user_has_the_same_siblings_alone_and_in_a_crowd(pairs):
    histories = of(*((user, item, Kind.RATING) for user, item in pairs), users=4)
    found = siblings_of(histories, FAMILIES)
    for user in range(4):
        alone = siblings_of(user_range(histories, user, user + 1), FAMILIES)
        assert np.array_equal(alone[0], found[user])
        own = {item for one, item in pairs if one == user}
        families = {int(FAMILIES[item]) for item in own}
        expected = [i for i in range(6) if FAMILIES[i] in families and i not in own]
        assert np.flatnonzero(found[user]).tolist() == expected
