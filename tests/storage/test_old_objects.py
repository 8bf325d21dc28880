"""What a versioned bucket keeps of objects that were replaced or removed goes when it is meant."""

from collections.abc import Callable
from typing import Any

import pytest

from recsys.settings import Settings
from recsys.storage import StorageError, old_objects, open_store
from tests.storage.buckets import keep_versions, versions

pytestmark = pytest.mark.boots


@pytest.fixture
def settings(bucket: str, s3_address: str, join: Callable[[str], Settings]) -> Settings:
    keep_versions(s3_address, bucket)
    return join("a")


def change(settings: Settings, key: str, *contents: bytes) -> None:
    for content in contents:
        open_store(settings).change(key, lambda _, content=content: content)


def test_old_versions_go_and_objects_stay(settings: Settings, bucket: str, s3_address: str):
    store = open_store(settings)
    change(settings, "data/privacy/ids.json", b"1", b"2", b"3")
    change(settings, "data/privacy/other.json", b"1", b"2")
    change(settings, "data/a b+c/khách %41.json", b"1")
    store.discard("data/a b+c/khách %41.json")
    assert len(versions(s3_address, bucket)) == 7
    assert store.remove_old("data/privacy", lambda key: key.endswith("ids.json")) == 2
    assert store.read("data/privacy/ids.json") == b"3"
    assert store.remove_old("data", lambda key: "khách %41" in key) == 2
    left = [key.rpartition("/")[2] for key in versions(s3_address, bucket)]
    assert sorted(left) == ["ids.json", "other.json", "other.json"]
    assert store.remove_old("data/privacy", lambda key: key.endswith("ids.json")) == 0


def test_files_of_folders_are_known_by_their_own_names(
    settings: Settings, bucket: str, s3_address: str
):
    store, seen = open_store(settings), set[str]()
    for turn in range(2):
        folder = settings.home / "data" / "versions" / "v1"
        folder.mkdir(parents=True)
        (folder / "a.parquet").write_text(str(turn))
        store.publish("data/versions/v1")
        store.remove("data/versions/v1")
    store.remove_old("data/versions", lambda key: not seen.add(key))
    assert seen == {"data/versions/v1/a.parquet", "data/versions/v1.index.json"}
    assert versions(s3_address, bucket) == []


def test_more_than_one_answer_holds_go(
    settings: Settings, bucket: str, s3_address: str, monkeypatch
):
    monkeypatch.setattr(old_objects, "_AT_ONCE", 7)
    change(settings, "data/x.json", *(str(n).encode() for n in range(25)))
    change(settings, "data/y.json", *(str(n).encode() for n in range(3)))
    assert open_store(settings).remove_old("data", lambda key: True) == 26
    assert len(versions(s3_address, bucket)) == 2


def test_a_deleted_object_does_not_come_back_when_only_half_goes(
    settings: Settings, bucket: str, s3_address: str, monkeypatch
):
    store = open_store(settings)
    change(settings, "data/x.json", b"1", b"2")
    store.discard("data/x.json")

    deletes = old_objects.OldObjects._delete

    def once(self: old_objects.OldObjects, these: list[Any]) -> None:
        deletes(self, these)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(old_objects.OldObjects, "_delete", once)
        with pytest.raises(KeyboardInterrupt):
            store.remove_old("data", lambda key: True)
    assert store.read("data/x.json") is None
    assert store.remove_old("data", lambda key: True) == 1
    assert versions(s3_address, bucket) == []


def test_a_bucket_without_versions_needs_no_keys(join: Callable[[str], Settings], monkeypatch):
    settings = join("a")
    change(settings, "data/x.json", b"1", b"2")
    monkeypatch.setattr(old_objects.OldObjects, "__init__", None)
    assert open_store(settings).remove_old("data", lambda key: True) == 0


def test_without_keys_in_the_environment_it_says_what_is_needed(settings: Settings, monkeypatch):
    change(settings, "data/x.json", b"1", b"2")
    open_store(settings)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="s3:DeleteObjectVersion"):
        open_store(settings).remove_old("data", lambda key: True)


def test_a_service_that_refuses_is_named_with_the_rights_that_are_needed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    change(settings, "data/x.json", b"1", b"2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StorageError, match=r"403 SignatureDoesNotMatch.*s3:DeleteObjectVersion"):
        open_store(settings).remove_old("data", lambda key: True)
