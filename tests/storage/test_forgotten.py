"""Who asks one machine to be forgotten is so on all that share the state."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.ids import IdRules
from recsys.privacy import ask_to_forget, load_forgotten, readmit
from recsys.settings import Settings
from recsys.storage import Store
from serving.forgotten import FollowedForgotten
from tests.data.shop import published_rows, refresh, row, write_shop
from tests.storage.buckets import CREDENTIALS, machine, new_bucket, s3_server


def test_a_revision_is_another_one_after_every_change(stores: tuple[Store, Store]):
    one, two = stores
    seen = [two.revision("data/note.json")]
    for content in (b"1", b"2", b"1", b"22"):
        one.change("data/note.json", lambda _, content=content: content)
        seen.append(two.revision("data/note.json"))
        assert two.revision("data/note.json") == seen[-1]
    assert seen[0] is None
    changes = list(itertools.pairwise(seen))
    assert all(before != after for before, after in changes)


def test_every_machine_follows_the_register(two: tuple[Settings, Settings]):
    here, there = two
    followed = FollowedForgotten(there)
    assert not followed.hides("KH01")
    ask_to_forget(here, ["KH01"], "lan", IdRules())
    followed.look()
    assert followed.hides("KH01")
    assert not followed.hides("KH02")
    readmit(here, ["KH01"], "lan", IdRules())
    followed.look()
    assert not followed.hides("KH01")


@pytest.mark.boots
def test_a_refresh_of_another_machine_leaves_them_out(join: Callable[[str], Settings]):
    desk, jobs = join("desk"), join("jobs")
    write_shop(jobs, [row("KH01", 1), *(row(f"u{user}", user % 5) for user in range(10))])
    ask_to_forget(desk, ["KH01"], "lan", IdRules())
    assert "KH01" in load_forgotten(jobs)
    assert refresh(jobs)["rows"]["forgotten"] == 1
    assert "KH01" not in set(published_rows(jobs)["user_id"])


@pytest.mark.boots
def test_while_the_bucket_is_away_they_stay_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server(tmp_path / "server.log") as address:
        url = new_bucket(address)
        here, there = (machine(tmp_path / name, url, address) for name in ("here", "there"))
        ask_to_forget(here, ["KH01"], "lan", IdRules())
        followed = FollowedForgotten(here)
    followed.look()
    assert followed.problem is not None
    assert (followed.hides("KH01"), followed.hides("KH02")) == (True, False)
    # Who comes up now knows nothing, and takes nobody's history.
    late = FollowedForgotten(there)
    assert (late.current, late.hides("KH01"), late.hides("KH02")) == (None, True, True)
