"""Lists of two replicas with a bucket between them: either takes them over, and both read all."""

import contextlib
import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys import served_lists
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.partitions import (
    lost_lists,
    prune_served,
    read_lists,
    served_days,
    take_over,
)
from recsys.retention import Removal
from recsys.schedule import load_zone
from recsys.served_lists import SEALED_KEY, hand_in_lists, id_text, sealed_lists
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.upkeep.transfer import pull_state, push_state
from serving import housekeeping
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.outcomes.test_partitions import around_midnight, ids_of, record
from tests.serving.shops import add_model
from tests.storage.buckets import machine

pytestmark = pytest.mark.boots


def ids(settings: Settings) -> list[bytes]:
    return ids_of(read_lists(settings, served_days(settings)))


def test_what_one_replica_serves_another_takes_over_and_both_read(
    join: Callable[[str], Settings],
):
    one, two = join("one"), join("two")
    lists = around_midnight(20)
    record(one, lists[:7], lost=2)
    record(two, lists[7:])
    hand_in_lists(one)
    assert list(sealed_lists(one).iterdir()) == []
    taken = take_over(two)
    assert (len(taken.days), taken.lists, taken.lost) == (2, 20, 2)
    assert open_store(one).files(SEALED_KEY) == set()
    for settings in (one, two):
        assert ids(settings) == [one.id for one in lists]
        assert sum(lost_lists(settings, served_days(settings)).values()) == 2
    assert take_over(one).lists == 0


def test_a_damaged_copy_is_fetched_again_and_lost_only_where_all_are_damaged(
    join: Callable[[str], Settings],
):
    one, two = join("one"), join("two")
    lists = around_midnight(20)
    record(one, lists)
    take_over(one)
    assert ids(two) == [each.id for each in lists]
    [path] = two.home.glob("data/served/day=2026-03-10/*.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    assert ids(two) == [each.id for each in lists]
    assert sum(lost_lists(two, served_days(two)).values()) == 0
    assert len(list((two.quarantine / "served").iterdir())) == 1
    for settings in (one, two):
        [path] = settings.home.glob("data/served/day=2026-03-10/*.parquet")
        path.write_bytes(b"")
    open_store(one).share(path.relative_to(two.home).as_posix())
    for settings in (one, two):
        assert ids(settings) == [each.id for each in lists[:10]]
        assert sum(lost_lists(settings, served_days(settings)).values()) == 10


def test_two_services_hand_in_and_a_third_machine_takes_over(
    join: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(served_lists, "ROLL_SECONDS", 0)
    monkeypatch.setattr(housekeeping, "_HAND_IN_SECONDS", 0.2)
    replicas, jobs = (join("one"), join("two")), join("jobs")
    add_model(replicas[0], "als_1")
    store = open_store(replicas[0])
    store.publish("artifacts/cf/als/als_1")
    answered = []
    with contextlib.ExitStack() as running:
        clients = [
            running.enter_context(TestClient(create_app(one, ServiceEnvironment())))
            for one in replicas
        ]
        for user in range(1, 13):
            answer = clients[user % 2].post("/recommend", json={"user_id": user})
            answered.append(answer.json()["recommendation_id"])
        until = time.monotonic() + 20
        while take_over(jobs) and len(ids(jobs)) < 12 and time.monotonic() < until:
            time.sleep(0.1)
    assert [id_text(one) for one in ids(jobs)] == sorted(answered)
    assert ids(replicas[0]) == ids(replicas[1]) == ids(jobs)


def test_what_is_handed_in_again_after_a_kill_counts_once(join: Callable[[str], Settings]):
    one, two = join("one"), join("two")
    record(one, around_midnight(6), lost=1)
    [segment] = sealed_lists(one).iterdir()
    content = segment.read_bytes()
    hand_in_lists(one)
    take_over(two)
    segment.write_bytes(content)  # killed after it was shared, before it was removed here
    assert take_over(one).lists == take_over(two).lists == 0
    assert len(ids(one)) == 6
    assert sum(lost_lists(one, served_days(one)).values()) == 1


def test_two_replicas_that_are_killed_while_they_take_over_make_no_list_two(
    join: Callable[[str], Settings],
):
    """Both at once; what is killed between two steps is done by the other, or again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recsys.outcomes.partitions"])
    both = join("one"), join("two")
    chance, lists, lost, codes, longest = random.Random(1), [], 0, [], 0.5
    for turn in range(7):
        for settings in both:
            fresh = around_midnight(10, start=10 * len(lists) + 100)
            record(settings, fresh[:4], fresh[4:], lost=turn % 2)
            lists, lost = [*lists, *fresh], lost + turn % 2
        processes = [context.Process(target=take_over, args=(one,)) for one in both]
        for process in processes:
            process.start()
        time.sleep(chance.uniform(0, longest))
        for process in processes:
            process.kill()
            process.join()
        codes += [process.exitcode for process in processes]
        longest *= 1.5 if codes[-1] else 0.8
    assert set(codes) == {0, -signal.SIGKILL}
    for settings in (*both, *both):
        take_over(settings)
    for settings in both:
        table = read_lists(settings, served_days(settings))
        assert ids_of(table) == sorted(one.id for one in lists)
        assert sum(lost_lists(settings, served_days(settings)).values()) == lost


def test_old_days_go_from_the_bucket_and_from_both(join: Callable[[str], Settings]):
    one, two = join("one"), join("two")
    record(one, around_midnight(4))
    take_over(one)
    assert len(ids(two)) == 4
    for settings in (one, two):
        removal = Removal(settings)
        keep = (datetime.now(load_zone(settings)).date() - date(2026, 3, 9)).days - 1
        prune_served(settings, OutcomesConfig(keep_served_days=keep), removal)
        days = [path.name for path in settings.home.glob("data/served/day=*")]
        assert days == ["day=2026-03-10"]
    assert served_days(one) == [date(2026, 3, 10)]


def test_lists_go_into_a_bucket_and_back_out_of_it(
    settings: Settings, bucket: str, s3_address: str, tmp_path: Path
):
    record(settings, around_midnight(4))
    take_over(settings)
    record(settings, around_midnight(4, start=10))
    (settings.home / "config").mkdir()
    (settings.home / "config" / "storage.yaml").write_text(
        f"url: {bucket}\nendpoint: {s3_address}\nretry_seconds: 5\n"
    )
    open_store.cache_clear()
    push_state(settings)
    other = machine(tmp_path / "other", bucket, s3_address)
    pull_state(other)
    (other.home / "config" / "storage.yaml").unlink()
    open_store.cache_clear()
    assert take_over(other).lists == 4
    assert len(ids(other)) == 8
