from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from recsys.comments.cache import TextCache

KINDS = {"sentiment": np.zeros(0, np.float32)}


def add_and_read(folder, start):
    """Add ten overlapping batches, reading between them; what was seen must only grow."""
    cache = TextCache(folder, KINDS)
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
    known, _ = TextCache(folder, KINDS).look_up(np.arange(2000, dtype=np.uint64))
    wanted = np.unique(np.concatenate([np.arange(start, start + 550) for start in starts]))
    assert np.array_equal(np.flatnonzero(known), wanted)
    assert len(list(folder.iterdir())) <= 20  # segments were merged, no temporary file is left


def test_an_empty_cache_knows_nothing(tmp_path):
    known, columns = TextCache(tmp_path / "none", KINDS).look_up(np.array([1], dtype=np.uint64))
    assert known.tolist() == [False]
    assert columns["sentiment"].shape == (1,)


def test_copies_left_by_a_writer_that_died_while_merging_do_no_harm(tmp_path):
    cache = TextCache(tmp_path, KINDS)
    hashes = np.array([3, 1], dtype=np.uint64)
    for _ in range(2):
        cache.add(hashes, {"sentiment": np.array([0.3, 0.1], dtype=np.float32)})
    known, columns = cache.look_up(np.array([1, 2, 3], dtype=np.uint64))
    assert known.tolist() == [True, False, True]
    assert np.allclose(columns["sentiment"][known], [0.1, 0.3])


def as_junk(segment):
    segment.write_bytes(b"PK\x03\x04 and then nothing")


def as_an_empty_file(segment):
    segment.write_bytes(b"")


def as_half(segment):
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])


def with_a_flipped_byte(segment):
    content = bytearray(segment.read_bytes())
    content[150] ^= 0xFF
    segment.write_bytes(content)


def as_a_folder(segment):
    segment.unlink()
    (segment / "x").mkdir(parents=True)


def of_another_kind(segment):
    with segment.open("wb") as file:
        np.savez(file, hash=np.arange(3, dtype=np.uint64), sentiment=np.zeros((3, 2)))


@pytest.mark.parametrize(
    "damage",
    [
        as_junk,
        as_an_empty_file,
        as_half,
        with_a_flipped_byte,
        as_a_folder,
        of_another_kind,
    ],
)
def test_a_damaged_segment_is_made_again(tmp_path, caplog, damage):
    cache = TextCache(tmp_path, KINDS)
    hashes = np.array([1, 3], dtype=np.uint64)
    cache.add(hashes, {"sentiment": np.array([0.1, 0.3], dtype=np.float32)})
    (segment,) = tmp_path.glob("segment-*")
    damage(segment)
    known, _ = cache.look_up(hashes)
    assert not known.any()
    assert "damaged, and removed" in caplog.text
    assert not segment.exists()
    cache.add(hashes, {"sentiment": np.array([0.1, 0.3], dtype=np.float32)})
    known, columns = cache.look_up(hashes)
    assert known.all()
    assert np.allclose(columns["sentiment"], [0.1, 0.3])
