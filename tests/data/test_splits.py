"""The split of hand-made histories."""

import numpy as np
import pytest

from recsys import schema
from recsys.data.dataset import split_rows


def sides(*rows: tuple[int, int, int, int]) -> list[str]:
    """The sides of rows (user, time, event, rating)."""
    user, time, event, rating = (np.array(column) for column in zip(*rows, strict=True))
    split = split_rows(
        user.astype(np.int32), time.astype(np.int64), event.astype(np.uint64), rating.astype("f4")
    )
    return [schema.SPLITS[side] for side in split.side]


def test_the_latest_positive_event_is_the_test_and_the_one_before_the_validation():
    rows = [(0, 1, 1, 5), (0, 2, 2, 4), (0, 3, 3, 5), (0, 4, 4, 5)]
    assert sides(*rows) == ["train", "train", "validation", "test"]


def test_copies_of_an_event_are_on_its_side():
    rows = [(0, 1, 1, 5), (0, 2, 2, 5), (0, 2, 2, 5), (0, 3, 3, 5), (0, 3, 3, 5)]
    assert sides(*rows) == ["train", "validation", "validation", "test", "test"]


def test_what_is_later_than_a_held_out_event_is_excluded():
    rows = [(0, 1, 1, 5), (0, 2, 2, 5), (0, 3, 3, 1), (0, 4, 4, 5), (0, 5, 5, 2)]
    assert sides(*rows) == ["train", "validation", "excluded", "test", "excluded"]


def test_a_user_with_one_positive_event_has_no_validation():
    assert sides((0, 1, 1, 2), (0, 2, 2, 5), (0, 3, 3, 1)) == ["train", "test", "excluded"]


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 1, 1, 5), (0, 1, 1, 5)],  # one event on two pages
        [(0, 1, 1, 3), (0, 2, 2, 2)],  # nothing positive
        [(0, 1, 1, 5)],
    ],
)
def test_all_rows_of_a_user_who_is_not_trainable_are_training_rows(rows):
    assert set(sides(*rows)) == {"train"}


def test_users_do_not_touch_each_other():
    rows = [(0, 9, 1, 5), (1, 1, 2, 5), (1, 2, 3, 5), (2, 1, 4, 1)]
    assert sides(*rows) == ["train", "validation", "test", "train"]


def test_an_event_is_positive_when_one_of_its_copies_is():
    assert sides((0, 1, 1, 1), (0, 2, 2, 5), (0, 2, 2, 3)) == ["train", "test", "test"]


def test_of_positive_events_at_one_time_one_is_held_out_before_the_other():
    assert sides((0, 1, 1, 5), (0, 1, 2, 5), (0, 1, 3, 5)) == ["train", "validation", "test"]
