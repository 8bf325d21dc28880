from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from recsys.comments.cache import TextCache


def add_and_read(folder, start):
    """Add ten overlapping batches, reading between them; what was seen must only grow."""
    cache = TextCache(folder)
    seen = 0
    for batch in range(10):
        hashes = np.arange(start + 50 * batch, start + 50 * batch + 100, dtype=np.uint64)
        cache.add(hashes, {"sentiment": hashes.astype(np.float32)})
        everything = np.arange(2000, dtype=np.uint64)
        known, columns = cache.look_up(everything)
        assert np.array_equal(columns["sentiment"][known], everything[known].astype(np.float32))
        assert known[hashes].all()
        assert known.sum() >= seen
        seen = known.sum()
    return start


def test_many_processes_add_and_read_at_once_and_nothing_is_lost(tmp_path):
    folder = tmp_path / "cache"
    starts = [0, 200, 1000, 1300]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        assert list(pool.map(add_and_read, [folder] * 4, starts)) == starts
    known, _ = TextCache(folder).look_up(np.arange(2000, dtype=np.uint64))
    wanted = np.unique(np.concatenate([np.arange(start, start + 550) for start in starts]))
    assert np.array_equal(np.flatnonzero(known), wanted)
    assert len(list(folder.iterdir())) <= 20  # segments were merged, no temporary file is left


def test_an_empty_cache_knows_nothing(tmp_path):
    known, columns = TextCache(tmp_path / "none").look_up(np.array([1], dtype=np.uint64))
    assert known.tolist() == [False]
    assert columns == {}


def test_copies_left_by_a_writer_that_died_while_merging_do_no_harm(tmp_path):
    cache = TextCache(tmp_path)
    hashes = np.array([3, 1], dtype=np.uint64)
    for _ in range(2):
        cache.add(hashes, {"sentiment": np.array([0.3, 0.1], dtype=np.float32)})
    known, columns = cache.look_up(np.array([1, 2, 3], dtype=np.uint64))
    assert known.tolist() == [True, False, True]
    assert np.allclose(columns["sentiment"][known], [0.1, 0.3])
