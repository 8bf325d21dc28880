"""A refresh that is killed leaves whole versions behind, and the next one ends right."""

from tests.data.crashing import PHASES, crash_refreshes

KILLS = 5  # in each phase; benchmarks/data/crashes.py does 200


def test_a_killed_refresh_leaves_whole_versions_and_the_next_one_ends_right(tmp_path):
    tally = crash_refreshes(tmp_path, KILLS, seed=1)
    assert tally.killed == dict.fromkeys(PHASES, KILLS)
