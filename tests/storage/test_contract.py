"""What every store promises, with two users of it: one state root, or two machines and a bucket."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from recsys.publishing import atomic_folder

KEY = "data/versions/v1"
POINTER = "data/processed"
FILE = "artifacts/cf/registry.json"


def write_folder(settings, key=KEY, **files):
    contents = files or {"manifest.json": "{}", "rows.bin": "rows" * 1000, "empty": ""}
    with atomic_folder(settings.home / key) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "more").write_text("more")
        (folder / "link").symlink_to("../../embeddings/current")
        for name, content in contents.items():
            (folder / name).write_text(content)
    return settings.home / key


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def always(_current):
    return True


def test_a_published_folder_is_whole_for_the_other_user(two, stores):
    written = contents(write_folder(two[0]))
    stores[0].publish(KEY)
    folder = stores[1].fetch(KEY)
    assert folder == two[1].home / KEY
    assert contents(folder) == written
    assert str((folder / "link").readlink()) == "../../embeddings/current"
    assert stores[1].names("data/versions") == ["v1"]
    assert stores[1].read_file(KEY, "manifest.json") == b"{}"


def test_publishing_again_changes_nothing(two, stores):
    write_folder(two[0])
    stores[0].publish(KEY)
    stores[0].publish(KEY)
    assert stores[1].names("data/versions") == ["v1"]


def test_what_was_not_published_is_not_there(two, stores):
    with pytest.raises(FileNotFoundError, match="v1"):
        stores[0].publish(KEY)
    with pytest.raises(FileNotFoundError, match="v1"):
        stores[1].fetch(KEY)
    with pytest.raises(FileNotFoundError):
        stores[1].read_file(KEY, "manifest.json")
    assert stores[1].names("data/versions") == []
    assert stores[1].leads_to(POINTER) is None
    assert stores[1].read(FILE) is None


def test_a_removed_folder_is_gone_for_both_and_removing_it_again_is_fine(two, stores):
    write_folder(two[0])
    stores[0].publish(KEY)
    assert stores[0].remove(KEY)
    assert stores[0].remove(KEY)
    assert stores[1].names("data/versions") == []
    assert not (two[0].home / KEY).exists()
    with pytest.raises(FileNotFoundError):
        stores[1].fetch(KEY)


def test_a_pointer_leads_both_to_the_same_folder(two, stores):
    for name in ("v1", "v2"):
        write_folder(two[0], f"data/versions/{name}")
        stores[0].publish(f"data/versions/{name}")
        assert stores[0].point(POINTER, f"data/versions/{name}", always)
        assert stores[1].leads_to(POINTER) == name
    stores[1].follow(POINTER, stores[1].fetch("data/versions/v2").relative_to(two[1].home))
    for settings in two:
        assert (settings.home / POINTER).resolve() == settings.home / "data/versions/v2"


def test_a_pointer_stays_when_the_move_is_refused(two, stores):
    seen = []

    def never(current):
        seen.append(current)
        return False

    write_folder(two[0])
    stores[0].publish(KEY)
    assert not stores[0].point(POINTER, KEY, never)
    assert stores[1].leads_to(POINTER) is None
    assert stores[0].point(POINTER, KEY, always)
    assert not stores[1].point(POINTER, "data/versions/v2", never)
    assert stores[0].leads_to(POINTER) == "v1"
    assert seen == [None, "v1"]


def test_pointers_moved_by_many_at_once_never_go_backwards(two, stores):
    highest = []

    def forward(name):
        return lambda current: current is None or current < name

    def move(number):
        name = f"v{number:02}"
        stores[number % 2].point(POINTER, f"data/versions/{name}", forward(name))
        highest.append((stores[number % 2].leads_to(POINTER), name))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(move, [7, 3, 11, 1, 9, 5, 0, 10, 2, 8, 4, 6]))
    assert stores[0].leads_to(POINTER) == "v11"
    assert all(led_to >= name for led_to, name in highest)


def test_no_change_of_a_file_is_lost(two, stores):
    start = threading.Barrier(6)

    def add(number):
        start.wait()
        for step in range(5):
            stores[number % 2].change(
                FILE,
                lambda before, n=number, s=step: json.dumps(
                    [*json.loads(before or b"[]"), [n, s]]
                ).encode(),
            )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(6)))
    found = json.loads(stores[0].read(FILE))
    assert sorted(found) == [[number, step] for number in range(6) for step in range(5)]


def test_a_change_that_fails_leaves_the_file_as_it_was(stores):
    stores[0].change(FILE, lambda _: b"first")

    def fail(_before):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        stores[1].change(FILE, fail)
    assert stores[0].read(FILE) == stores[1].read(FILE) == b"first"


def test_nothing_unfinished_is_found_where_all_was_finished(two, stores):
    write_folder(two[0])
    stores[0].publish(KEY)
    later = datetime.now(UTC) + timedelta(days=1)
    assert stores[1].remove_unfinished("data/versions", later) == []
    assert contents(stores[1].fetch(KEY))


def test_a_shared_copy_is_read_whole_and_in_parts(two, stores, tmp_path):
    original = tmp_path / "elsewhere.bin"
    original.write_bytes(bytes(range(256)) * 40_000)
    moment = original.stat().st_mtime_ns
    stores[0].share_copy(original, "data/work/run/rows.bin")
    assert original.stat().st_mtime_ns == moment
    with stores[1].open("data/work/run/rows.bin") as file:
        file.seek(5_000_001)
        assert file.read(4) == bytes([65, 66, 67, 68])
        assert file.seek(0, 2) == 10_240_000
    path = stores[1].bring("data/work/run/rows.bin")
    assert path == two[1].home / "data/work/run/rows.bin"
    assert path.read_bytes() == original.read_bytes()
    for read in (stores[1].bring, stores[1].open):
        with pytest.raises(FileNotFoundError):
            read("data/work/run/none.bin")
