"""What one machine counts every replica explores by."""

from collections.abc import Callable

import pytest

from recsys.merchandising.exploring import Impressions, read_impressions, write_impressions
from recsys.settings import Settings

pytestmark = pytest.mark.boots


def test_what_one_machine_counts_all_others_know(join: Callable[[str], Settings]):
    one, two = join("one"), join("two")
    assert read_impressions(two) is None
    for counts in ({"p1": (3, 1)}, {"p1": (5, 2), "p2": (1, 0)}):
        write_impressions(one, Impressions("2026-03-10", counts))
        assert read_impressions(two) == Impressions("2026-03-10", counts)
