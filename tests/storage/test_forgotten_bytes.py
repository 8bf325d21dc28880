"""A search of all bytes of a bucket, and of all that it has kept, for ten customers."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys.data.staging import append_events, hand_in_segments
from recsys.data.versions import list_versions
from recsys.ids import IdRules
from recsys.privacy import ask_to_forget
from recsys.pseudonyms import load_pseudonyms
from recsys.served_lists import hand_in_lists
from recsys.settings import Settings
from recsys.storage import open_store
from recsys.upkeep.backup import write_backup
from recsys.upkeep.forgetting import forget_customers
from recsys.upkeep.restore import restore_backup
from recsys.upkeep.transfer import push_state
from tests.data.shop import refresh, row, write_shop
from tests.storage.buckets import keep_versions, objects, save_versions
from tests.upkeep.byte_search import search
from tests.upkeep.marked_shop import MARKED, comment_mark, make_shop, name_of, session_of

pytestmark = pytest.mark.boots

TEXTS = [way(one) for one in MARKED for way in (str, session_of, comment_mark, name_of)]


def test_nothing_is_left_in_a_bucket_nor_in_what_it_has_kept(
    join: Callable[[str], Settings], bucket: str, s3_address: str, tmp_path: Path
):
    keep_versions(s3_address, bucket)
    made, jobs, front = Settings(tmp_path / "made"), join("jobs"), join("front")
    make_shop(made, datetime.now(UTC))
    shutil.copytree(made.home, jobs.home, symlinks=True, dirs_exist_ok=True)
    push_state(jobs)
    # What was replaced and removed long ago is kept as well, and what another machine hands in.
    first, *_ = list_versions(jobs)
    open_store(jobs).remove(f"data/versions/{first}")
    event = {"event_id": "x", "user_id": MARKED[0], "product_id": "p1", "rating": 5}
    append_events(front, [event])
    hand_in_segments(front)
    hand_in_lists(jobs)
    before = search_all(bucket, s3_address, tmp_path / "before")
    assert len(before) > 15
    assert {text for texts in before.values() for text in texts} == set(TEXTS) - unwritten()

    ask_to_forget(front, MARKED, "lan", IdRules())
    done = forget_customers(jobs)
    assert (done["forgotten"], done["open"], done["left"]) == (10, 0, [])
    assert search_all(bucket, s3_address, tmp_path / "after") == {}
    names = {name for one in MARKED for name in load_pseudonyms(jobs).all_of(one)}
    found = search(tmp_path / "after", names)
    assert {Path(place).name for place in found} <= {"requests.json", "requests.last_good.json"}
    assert search(jobs.home, TEXTS) == {}


def test_a_backup_is_restored_by_the_register_in_the_bucket_which_stays_as_it_is(
    join: Callable[[str], Settings], bucket: str, s3_address: str, tmp_path: Path
):
    made, desk, there = Settings(tmp_path / "made"), join("desk"), join("there")
    write_shop(made, [row("KH01", 1), *(row(f"u{user}", user % 5) for user in range(10))])
    refresh(made)
    config = made.home / "config" / "storage.yaml"
    config.parent.mkdir(exist_ok=True)
    shutil.copy(desk.home / "config" / "storage.yaml", config)
    write_backup(made, tmp_path / "backup.tar")
    ask_to_forget(desk, ["KH01"], "lan", IdRules())
    before = objects(s3_address, bucket)
    done = restore_backup(there, tmp_path / "backup.tar")
    assert (done["forgotten"], done["left"], done["config"]) == (1, [], "config.restored")
    assert (there.home / "config.restored" / "storage.yaml").read_text() == config.read_text()
    assert search(there.home, ["KH01"]) == {}
    assert objects(s3_address, bucket) == before


def unwritten() -> set[str]:
    """Of the last, who only asked, there are no comments."""
    return {comment_mark(MARKED[-1]), name_of(MARKED[-1])}


def search_all(bucket: str, address: str, folder: Path) -> dict[str, set[str]]:
    assert save_versions(address, bucket, folder) > 30
    return search(folder, TEXTS)
