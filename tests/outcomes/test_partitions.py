"""Served lists come into their days once, whatever is killed, and go when they are old."""

import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.alerting import AlertManager
from recsys.outcomes import partitions
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.partitions import (
    SCHEMA,
    TakenOver,
    lost_lists,
    prune_served,
    read_lists,
    served_days,
    served_stamps,
    take_over,
)
from recsys.retention import Removal
from recsys.schedule import load_zone
from recsys.served_lists import SegmentWriter, ServedList, open_lists, sealed_lists
from recsys.settings import Settings
from tests.test_served_lists import served

FIRST, SECOND = date(2026, 3, 9), date(2026, 3, 10)
MIDNIGHT = datetime(2026, 3, 9, 17, tzinfo=UTC).timestamp()  # of the second day in Ho Chi Minh City


def around_midnight(count: int, start: int = 0) -> list[ServedList]:
    """So many lists, one a second; half of them on each day when `start` is 0."""
    moments = [MIDNIGHT + number - count // 2 for number in range(start, start + count)]
    return [served(int(moment), time=moment, id=_id(moment)) for moment in moments]


def _id(moment: float) -> bytes:
    return int(moment * 1000).to_bytes(16, "big")


def record(settings: Settings, *segments: list[ServedList], lost: int = 0) -> None:
    """Write a sealed segment of each, with a gap at the end."""
    writer = SegmentWriter(settings)
    for number, lists in enumerate(segments):
        if number:
            writer.change()
        writer.append(writer.count(len(lists)), lists)
    writer.count(lost)
    writer.close()


def ids_of(table: pa.Table) -> list[bytes]:
    return sorted(table["recommendation_id"].to_pylist())


def test_lists_come_into_the_days_of_the_shops_time_zone(settings: Settings):
    lists = around_midnight(10)
    record(settings, lists[:7], lists[7:])
    assert take_over(settings) == TakenOver((FIRST, SECOND), 10, 0)
    assert list(sealed_lists(settings).iterdir()) == []
    for day, part in ((FIRST, lists[:5]), (SECOND, lists[5:])):
        assert ids_of(read_lists(settings, [day])) == [one.id for one in part]
    assert len(list(settings.home.glob("data/served/day=2026-03-*/*.parquet"))) == 2
    assert take_over(settings) == TakenOver((), 0, 0)
    assert served_days(settings) == [FIRST, SECOND]


def test_all_that_was_recorded_is_read(settings: Settings):
    plain = served(0, time=MIDNIGHT)
    full = plain._replace(
        id=bytes(16),
        session_id="phiên-1",
        fallback_method="popularity",
        experiment="holdout",
        variant="popularity",
        products=("đ1", "p2"),
        sources="pe",
        propensities=(1.0, 0.25),
    )
    record(settings, [plain, full])
    take_over(settings)
    table = read_lists(settings, [SECOND])
    assert table.schema == SCHEMA
    rows = {row["recommendation_id"]: row for row in table.to_pylist()}
    for one in (plain, full):
        expected = one._asdict() | {"recommendation_id": one.id, "products": list(one.products)}
        expected["time"] = datetime.fromtimestamp(MIDNIGHT, UTC)
        expected["propensities"] = list(one.propensities or [])
        for name in ("session_id", "fallback_method"):
            expected[name] = expected[name] or ""
        del expected["id"]
        assert rows[one.id] == expected
    chosen = read_lists(settings, [FIRST, SECOND], ["products", "sources"])
    assert chosen.column_names == ["products", "sources"]
    assert len(chosen) == 2


def test_a_gap_is_counted_once_and_stays_on_record(settings: Settings):
    lists = around_midnight(8)
    record(settings, lists, lost=3)
    assert take_over(settings) == TakenOver((FIRST, SECOND), 8, 3)
    assert sum(lost_lists(settings, served_days(settings)).values()) == 3
    record(settings, around_midnight(2, start=20), lost=2)
    assert take_over(settings).lost == 2
    assert sum(lost_lists(settings, served_days(settings)).values()) == 5


def test_a_writer_that_lost_everything_is_known_as_well(settings: Settings):
    writer = SegmentWriter(settings)
    writer.begin()
    writer.count(4)
    writer.close()
    taken = take_over(settings)
    assert (taken.lists, taken.lost) == (0, 4)
    assert lost_lists(settings, taken.days) == {taken.days[0]: 4}
    assert len(read_lists(settings, taken.days)) == 0


def test_two_machines_that_take_the_same_over_make_no_list_two(settings: Settings, tmp_path: Path):
    other = Settings(tmp_path / "other")
    record(settings, around_midnight(6), lost=1)
    shutil.copytree(settings.home, other.home)
    record(settings, around_midnight(2, start=10))
    take_over(settings)
    take_over(other)
    shutil.copytree(other.home, settings.home, dirs_exist_ok=True)
    table = read_lists(settings, [FIRST, SECOND])
    assert len(set(ids_of(table))) == len(table) == 8
    assert table.schema == SCHEMA
    assert len(read_lists(settings, [FIRST, SECOND], ["sources"])) == 8
    assert sum(lost_lists(settings, served_days(settings)).values()) == 1


def test_a_file_that_is_no_segment_stops_nobody(settings: Settings):
    record(settings, around_midnight(4))
    (sealed_lists(settings) / "zz.lists").write_bytes(b"something else")
    assert take_over(settings).lists == 4
    assert (settings.quarantine / "served" / "zz.lists").read_bytes() == b"something else"
    assert (
        "zz.lists was damaged and is set aside"
        in (settings.logs / "service" / "alerts.log").read_text()
    )


def test_a_folder_among_the_segments_stops_nobody(settings: Settings):
    record(settings, around_midnight(4))
    for folder in (sealed_lists(settings), open_lists(settings)):
        (folder / f"{folder.name}.lists").mkdir(parents=True)
    assert take_over(settings).lists == 4
    assert (settings.quarantine / "served" / "sealed.lists").is_dir()
    assert take_over(settings).lists == 0


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def zeros_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)


def other_columns(path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [nothing, cut_off, zeros_inside, other_columns, a_folder])
def test_a_damaged_file_of_a_day_is_set_aside_counted_and_told_once(
    settings: Settings, damage: Callable[[Path], None]
):
    record(settings, around_midnight(4), lost=3)
    take_over(settings)
    [path] = settings.home.glob(f"data/served/day={SECOND}/*.parquet")
    damage(path)
    record(settings, around_midnight(2, start=10))
    assert take_over(settings).lists == 2
    for _ in range(2):
        assert len(read_lists(settings, [FIRST, SECOND])) == 4
        assert lost_lists(settings, [FIRST, SECOND]) == {FIRST: 0, SECOND: 5}
    assert not path.exists()
    assert (settings.quarantine / "served" / f"{SECOND}.{path.name}").exists()
    told = (settings.logs / "service" / "alerts.log").read_text()
    assert told.count("served_lists_damaged triggered") == 1
    assert f"{path.name} was damaged and is set aside in data/quarantine/served" in told
    assert "lists lost: 5" in told


def test_a_damaged_file_that_comes_back_from_a_backup_counts_again(settings: Settings):
    record(settings, around_midnight(4), lost=3)
    take_over(settings)
    [path] = settings.home.glob(f"data/served/day={SECOND}/*.parquet")
    content = path.read_bytes()
    cut_off(path)
    assert lost_lists(settings, [SECOND]) == {SECOND: 5}
    before = served_stamps(settings)[SECOND]
    path.write_bytes(content)
    assert lost_lists(settings, [SECOND]) == {SECOND: 3}
    assert len(read_lists(settings, [SECOND])) == 2
    assert served_stamps(settings)[SECOND] != before


def test_files_of_before_say_how_many_lists_they_had_by_what_can_be_read(settings: Settings):
    record(settings, around_midnight(4))
    take_over(settings)
    for day, damage in ((FIRST, zeros_inside), (SECOND, nothing)):
        [path] = settings.home.glob(f"data/served/day={day}/*.parquet")
        damage(path.rename(path.with_name("0123.parquet")))
    assert len(read_lists(settings, [FIRST, SECOND])) == 0
    assert lost_lists(settings, [FIRST, SECOND]) == {FIRST: 2, SECOND: 0}
    assert "lists lost: unknown" in (settings.logs / "service" / "alerts.log").read_text()


def test_many_lists_become_several_files(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(partitions, "_MOST_LISTS", 10)
    lists = around_midnight(40, start=20)
    record(settings, *(lists[start : start + 6] for start in range(0, 40, 6)))
    assert take_over(settings).lists == 40
    assert len(list(settings.home.glob("data/served/day=*/*.parquet"))) > 2
    assert ids_of(read_lists(settings, [SECOND])) == [one.id for one in lists]


def test_old_days_go_and_so_does_what_nobody_took_over(settings: Settings):
    now = time.time()
    today = datetime.now(load_zone(settings)).date()
    for days in (3, 12):
        moment = now - days * 86_400
        record(settings, [served(0, time=moment, id=_id(moment))])
    take_over(settings)
    record(settings, [served(1)])
    record(settings, [served(2)])
    old, _ = sorted(sealed_lists(settings).iterdir())
    os.utime(old, (now - 864_000, now - 864_000))
    config = OutcomesConfig(keep_served_days=9)
    dry = Removal(settings, dry_run=True)
    prune_served(settings, config, dry)
    assert len(served_days(settings)) == 2
    removal = Removal(settings)
    prune_served(settings, config, removal)
    [day] = served_days(settings)
    assert today - day < timedelta(days=5)
    assert list(sealed_lists(settings).iterdir()) not in ([], [old])
    assert removal.execute([])["served lists"]["count"] == 1
    assert removal.execute([])["served segments"]["count"] == 1
    assert dry.execute([]).keys() == removal.execute([]).keys()


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.BaseContext]:
    """Processes that are there at once: what they import is imported before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recsys.outcomes.partitions", __name__])
    return context


def set_aside_until(settings: Settings, operation: int) -> None:
    until(operation)
    lost_lists(settings, [SECOND])
    os._exit(0)


def test_killed_before_any_of_its_steps_a_damaged_file_is_counted_and_told(
    settings: Settings, tmp_path: Path, processes
):
    record(settings, around_midnight(30), lost=2)
    take_over(settings)
    [path] = settings.home.glob(f"data/served/day={SECOND}/*.parquet")
    cut_off(path)
    for operation in range(1, 20):
        copy = Settings(tmp_path / str(operation))
        shutil.copytree(settings.home, copy.home)
        process = processes.Process(target=set_aside_until, args=(copy, operation))
        process.start()
        process.join()
        assert lost_lists(copy, [SECOND]) == {SECOND: 17}
        assert [one.name for one in (copy.quarantine / "served").iterdir()] == [
            f"{SECOND}.{path.name}"
        ]
        # As the health check does for who died while he told.
        AlertManager(copy, clock=lambda: datetime.now(UTC) + timedelta(hours=1)).retry_undelivered()
        told = (copy.logs / "service" / "alerts.log").read_text()
        assert told.count("served_lists_damaged triggered") == 1
        if process.exitcode == 0:
            break
    assert operation > 2


def take_over_until(settings: Settings, operation: int) -> None:
    """End before the so-manieth change of a name; in a process of its own."""
    until(operation)
    take_over(settings)
    os._exit(0)


def until(operation: int) -> None:
    """End this process before the so-manieth change of a name."""
    left = [operation]

    def stop(event: str, _: object) -> None:
        if event in ("os.rename", "os.remove"):
            left[0] -= 1
            if not left[0]:
                os._exit(9)

    sys.addaudithook(stop)


def test_killed_before_any_of_its_steps_it_takes_each_list_once(
    settings: Settings, tmp_path: Path, processes
):
    lists = around_midnight(30)
    record(settings, lists[:11], lists[11:20], lost=2)
    record(settings, lists[20:])
    for operation in range(1, 40):
        copy = Settings(tmp_path / str(operation))
        shutil.copytree(settings.home, copy.home)
        process = processes.Process(target=take_over_until, args=(copy, operation))
        process.start()
        process.join()
        take_over(copy)
        assert ids_of(read_lists(copy, [FIRST, SECOND])) == [one.id for one in lists]
        assert sum(lost_lists(copy, served_days(copy)).values()) == 2
        assert list(sealed_lists(copy).iterdir()) == []
        if process.exitcode == 0:
            break
    assert operation > 6


def test_killed_at_any_moment_while_lists_come_in_it_takes_each_once(settings, processes):
    chance, lists, lost, killed, longest = random.Random(3), [], 0, 0, 0.05
    for turn in range(36):
        fresh = around_midnight(12, start=12 * turn - 216)
        gap = turn % 3
        record(settings, fresh[:5], fresh[5:], lost=gap)
        lists += fresh
        lost += gap
        process = processes.Process(target=take_over, args=(settings,))
        process.start()
        time.sleep(chance.uniform(0, longest))
        process.kill()
        process.join()
        longest *= 1.2 if process.exitcode else 0.8
        killed += process.exitcode != 0
    assert killed > 12
    take_over(settings)
    days = served_days(settings)
    assert ids_of(read_lists(settings, days)) == sorted(one.id for one in lists)
    assert sum(lost_lists(settings, days).values()) == lost
    assert not list(open_lists(settings).glob("*.lists"))
