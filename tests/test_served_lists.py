"""Served lists on their way: what is recorded is read, and what is not is counted."""

import contextlib
import mmap
import os
import random
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as st

from recsys import served_lists
from recsys.errors import InputError
from recsys.served_lists import (
    Columns,
    ListLog,
    SegmentWriter,
    ServedList,
    encode,
    id_text,
    new_id,
    open_lists,
    read_segment,
    seal_lists,
    sealed_lists,
)
from recsys.settings import Settings

MOMENT = 1_790_000_000.0
PRODUCTS = tuple(str(422_000_000 + 97 * number) for number in range(10))


def served(number: int = 0, **values: object) -> ServedList:
    """A list as a shop of the usual kind gets it."""
    one = ServedList(
        id=new_id(MOMENT + number / 1000),
        time=MOMENT + number / 1000,
        user_id=str(18_000 + number),
        session_id=None,
        placement="home",
        endpoint="recommend",
        model_id="als_20250115_100000",
        fallback_method=None,
        experiment="",
        variant="",
        products=PRODUCTS,
        sources="m" * 10,
    )
    return one._replace(**values)


def rows(blocks: list[Columns]) -> list[ServedList]:
    return [ServedList(*row) for block in blocks for row in zip(*block, strict=True)]


def sealed(settings: Settings) -> list[Path]:
    return sorted(sealed_lists(settings).glob("*"))


def found(settings: Settings) -> tuple[list[ServedList], int]:
    """All lists of the sealed segments, and how many are lost."""
    segments = [read_segment(path) for path in sealed(settings)]
    lists = [one for segment in segments for one in rows(segment.blocks)]
    return lists, sum(segment.lost for segment in segments)


def write(settings: Settings, *batches: list[ServedList]) -> None:
    writer = SegmentWriter(settings)
    for batch in batches:
        writer.append(writer.count(len(batch)), batch)
    writer.close()


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)
lists_of_any_kind = st.builds(
    ServedList,
    id=st.binary(min_size=16, max_size=16),
    time=st.floats(0, 4e9),
    user_id=st.none() | ids,
    session_id=st.none() | ids,
    placement=st.text(max_size=64),
    endpoint=st.sampled_from(["recommend", "search"]),
    model_id=ids,
    fallback_method=st.none() | st.just("popularity"),
    experiment=st.text(max_size=20),
    variant=st.text(max_size=20),
    products=st.lists(ids, max_size=12).map(tuple),
    sources=st.text("mcprea", max_size=12),
    propensities=st.none() | st.lists(st.floats(0, 1), max_size=12).map(tuple),
)


@checked(max_examples=60)
@given(st.lists(st.lists(lists_of_any_kind, min_size=1, max_size=8), min_size=1, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, batches):
    settings = Settings(tmp_path_factory.mktemp("home"))
    write(settings, *batches)
    expected = [one for batch in batches for one in batch]
    read, lost = found(settings)
    assert (read, lost) == (expected, 0)


def test_text_that_is_no_unicode_spoils_no_other_list(settings: Settings):
    write(settings, [served(0), served(1, user_id="\ud800x")])
    [first, second], _ = found(settings)
    assert (first, second.user_id) == (served(0)._replace(id=first.id), "?x")


def test_ids_are_uuids_of_version_7_that_sort_by_their_time():
    moments = [MOMENT + step / 100_000 for step in range(200)]
    made = [new_id(moment) for moment in moments]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    for moment, one in zip(moments, made, strict=True):
        parsed = uuid.UUID(bytes=one)
        assert str(parsed) == id_text(one)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert parsed.int >> 80 == int(moment * 1000)
    assert len({new_id(MOMENT) for _ in range(1000)}) == 1000


def test_a_list_of_ten_takes_at_most_250_bytes_even_alone():
    worst = served(user_id="customer-1234567890", session_id=str(uuid.uuid4()), variant="b")
    assert len(encode([worst])) <= 250
    assert len(encode([served(number) for number in range(250)])) <= 250 * 120


def test_a_large_batch_becomes_several_blocks(settings: Settings, monkeypatch):
    monkeypatch.setattr(served_lists, "_MOST_BYTES", 5_000)
    batch = [served(number) for number in range(100)]
    write(settings, batch)
    [path] = sealed(settings)
    segment = read_segment(path)
    assert len(segment.blocks) > 3
    assert (rows(segment.blocks), segment.lost) == (batch, 0)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 60])
def test_a_torn_last_block_is_lost_and_counted(settings: Settings, cut: int):
    first, second = [served(1), served(2)], [served(3)]
    write(settings, first, second)
    [path] = sealed(settings)
    content = path.read_bytes()
    last = len(encode(second))
    path.write_bytes(content[: len(content) - last + cut] if cut > 1 else content[:-1])
    segment = read_segment(path)
    assert (rows(segment.blocks), segment.lost) == (first, 1)


def test_any_damage_is_seen_and_counted(settings: Settings):
    write(settings, [served(1)], [served(2), served(3)])
    [path] = sealed(settings)
    content = path.read_bytes()
    for place in range(40, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        segment = read_segment(path)
        assert len(rows(segment.blocks)) + segment.lost == 3
        assert segment.lost > 0


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"lists" * 30])
def test_what_is_no_segment_is_refused(settings: Settings, content: bytes):
    path = settings.home / "x.lists"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.lists: is no segment"):
        read_segment(path)


def test_an_open_segment_belongs_to_its_writer_until_that_is_gone(settings: Settings):
    writer = SegmentWriter(settings)
    writer.append(writer.count(2), [served(1), served(2)])
    seal_lists(settings)
    assert sealed(settings) == []
    assert [path.stat().st_mode & 0o777 for path in open_lists(settings).iterdir()] == [0o640]
    writer.close()
    assert len(sealed(settings)) == 1
    assert list(open_lists(settings).iterdir()) == []


def test_a_writer_that_recorded_nothing_leaves_nothing(settings: Settings):
    writer = SegmentWriter(settings)
    writer.begin()
    writer.close()
    assert sealed(settings) == list(open_lists(settings).iterdir()) == []


def test_a_segment_that_somebody_removes_is_followed_by_another(settings: Settings):
    writer = SegmentWriter(settings)
    writer.append(writer.count(), [served(1)])
    [path] = open_lists(settings).iterdir()
    path.unlink()
    writer.append(writer.count(), [served(2)])
    writer.close()
    lists, lost = found(settings)
    assert ([one.user_id for one in lists], lost) == (["18002"], 0)


@pytest.fixture
def log(settings: Settings) -> Iterator[ListLog]:
    counts: dict[str, int] = {}
    log = ListLog(settings, lambda **more: counts.update(_plus(counts, more)))
    log.counts = counts
    yield log
    log.close()


def _plus(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {name: counts.get(name, 0) + value for name, value in more.items()}


def test_the_log_goes_on_with_another_segment_when_it_is_time(settings, log, monkeypatch):
    log.record(served(1))
    assert log.flush()
    assert sealed(settings) == []
    monkeypatch.setattr(served_lists, "ROLL_SECONDS", 0)
    assert log.flush()  # nothing new, but it is time
    assert len(sealed(settings)) == 1
    monkeypatch.undo()
    monkeypatch.setattr(served_lists, "ROLL_BYTES", 100)
    for number in range(2, 5):
        log.record(served(number))
        assert log.flush()
    log.close()
    lists, lost = found(settings)
    assert ([one.user_id for one in lists], lost) == (["18001", "18002", "18003", "18004"], 0)
    assert log.counts == {"recorded": 4}


def test_what_finds_no_room_is_dropped_and_counted(settings, log, monkeypatch):
    monkeypatch.setattr(log, "_most", 3)
    with log._writing:  # as long as somebody holds the disk up
        for number in range(5):
            log.record(served(number))
    assert log.flush()
    log.record(served(5))
    log.close()
    lists, lost = found(settings)
    assert (len(lists), lost) == (4, 2)
    assert log.counts == {"recorded": 4, "dropped": 2}
    assert log.dropped == 2


def test_what_cannot_be_written_at_the_end_is_counted(settings, log, monkeypatch):
    log.record(served(1))
    assert log.flush()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(served_lists.os, "pwrite", full)
    log.record(served(2))
    assert not log.flush()
    assert log.problem is not None
    log.close()
    monkeypatch.undo()
    lists, lost = found(settings)
    assert ([one.user_id for one in lists], lost) == (["18001"], 1)


@contextlib.contextmanager
def another_process(work: Callable[[], object]) -> Iterator[int]:
    """A fork that does `work` and nothing else; its number. It is gone after the block."""
    process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(0)
    yield process
    os.waitpid(process, 0)


def test_killed_at_any_moment_what_is_lost_is_counted_exactly(settings: Settings, monkeypatch):
    monkeypatch.setattr(served_lists, "ROLL_BYTES", 10_000)  # it changes all the time
    written = lost = 0
    chance = random.Random(5)
    batch = [served(number) for number in range(50)]
    with mmap.mmap(-1, 16) as shared, memoryview(shared).cast("Q") as told:

        def record() -> None:
            log = ListLog(settings, lambda **_: None)
            while True:
                for one in batch:
                    told[0] += 1
                    log.record(one)
                    told[1] += 1
                log._wake.set()
                time.sleep(0.0005)

        for _ in range(25):
            told[0] = told[1] = 0
            with another_process(record) as process:
                while not told[1]:
                    time.sleep(0.001)
                time.sleep(chance.uniform(0, 0.08))
                os.kill(process, signal.SIGKILL)
            seal_lists(settings)
            lists, gap = found(settings)
            assert told[1] <= len(lists) + gap <= told[0]
            written, lost = written + len(lists), lost + gap
            shutil.rmtree(sealed_lists(settings))
    assert written > lost > 0
    assert list(open_lists(settings).glob("*.lists")) == []


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (served_lists._Open, "appear"),  # the new one is hidden
        (served_lists._Open, "end"),  # both are there
        (served_lists, "_seal"),  # the old one has ended
        (served_lists._Open, "write"),  # the new one is in use
    ],
)
def test_a_change_of_segments_may_stop_anywhere(settings: Settings, owner: object, step: str):
    def change() -> None:
        writer = SegmentWriter(settings)
        writer.append(writer.count(3), [served(1), served(2), served(3)])
        waiting = writer.count(4)
        setattr(owner, step, lambda *_: os._exit(0))
        writer.change()
        writer.append(waiting, [served(4)])

    with another_process(change):
        pass
    seal_lists(settings)
    seal_lists(settings)
    lists, lost = found(settings)
    assert (len(lists), lost) == (3, 4)
