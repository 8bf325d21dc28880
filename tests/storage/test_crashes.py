"""Refreshes that are killed while another machine reads what they publish."""

import multiprocessing
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys.data.staging import append_events
from recsys.data.versions import current_version, list_versions, open_version
from recsys.settings import Settings
from recsys.storage import open_store
from tests.data.shop import END, refresh, row, write_shop
from tests.storage.buckets import objects

pytestmark = pytest.mark.boots

KILLS = 10
LONGEST = 0.9  # seconds that a refresh of this shop takes with a bucket, about
LATER = END + timedelta(days=30)


def test_another_machine_reads_whole_versions_whenever_a_refresh_is_killed(
    join, bucket, s3_address, tmp_path
):
    jobs, front = join("jobs"), join("front")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recsys.refresh.job", "recsys.storage.bucket_store"])
    rows = [row(f"u{number % 7}", number % 9) for number in range(20)]
    write_shop(jobs, rows)
    refresh(jobs)
    rng = random.Random(1)
    interrupted = 0
    views = []
    for number in range(KILLS):
        rows += [row(f"r{number}", number % 9), row(f"r{number}", (number + 1) % 9)]
        write_shop(jobs, rows)
        event = {"event_id": f"e{number}", "user_id": f"s{number}", "product_id": "1"}
        append_events(jobs, [{**event, "rating": 5, "timestamp": "2025-01-02T10:00:00+07:00"}])
        child = context.Process(target=_refresh, args=(jobs.home, LATER + timedelta(days=number)))
        child.start()
        time.sleep(0.1 + rng.uniform(0, LONGEST))
        child.kill()
        child.join()
        interrupted += child.exitcode != 0
        views.append(_check(front))
    assert interrupted >= KILLS // 3
    assert views == sorted(views)

    end = LATER + timedelta(days=KILLS)
    refresh(jobs, end)
    fresh = Settings(tmp_path / "fresh")
    write_shop(fresh, [*rows, *(row(f"s{number}", 1, comment="") for number in range(KILLS))])
    refresh(fresh, end)
    found, expected = current_version(front), current_version(fresh)
    assert found.as_of == end
    assert found.interactions().equals(expected.interactions())
    assert not [key for key in objects(s3_address, bucket) if key.startswith("data/staging/")]

    store = open_store(jobs)
    store.remove_unfinished("data/versions", datetime.now(UTC) + timedelta(minutes=1))
    uploads = {
        tuple(key.split("/")[2:4])
        for key in objects(s3_address, bucket)
        if key.startswith("data/versions/") and not key.endswith(".index.json")
    }
    assert sorted(name for name, _ in uploads) == list_versions(front)


def _refresh(home: Path, end: datetime) -> None:
    refresh(Settings(home), end)


def _check(settings: Settings) -> datetime:
    for version_id in list_versions(settings):
        open_version(settings, version_id).verify()
    current = current_version(settings)
    current.verify()
    return current.as_of
