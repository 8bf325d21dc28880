"""What only a bucket has to promise: machines that die, disagree, or find nonsense."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys.config import ConfigError
from recsys.errors import InputError
from recsys.publishing import write_bytes
from recsys.settings import REPOSITORY, Settings
from recsys.storage import DamagedError, StorageError, open_store
from tests.storage.buckets import (
    CREDENTIALS,
    delete_object,
    machine,
    new_bucket,
    objects,
    put_object,
    s3_server,
)
from tests.storage.test_contract import KEY, POINTER, always, write_folder

pytestmark = pytest.mark.boots

FILE = "artifacts/cf/registry.json"

_PUBLISHER = """
import sys
from pathlib import Path
from recsys.settings import Settings
from recsys.storage import open_store
open_store(Settings(Path(sys.argv[1]))).publish("data/versions/v1")
"""


@pytest.fixture
def a(join):
    return join("a")


@pytest.fixture
def b(join):
    return join("b")


def index_of(settings, key=KEY):
    return json.loads(open_store(settings).read(f"{key}.index.json"))


def test_a_publisher_killed_in_mid_upload_leaves_nothing_to_read_and_its_remains_are_removed(
    a, b, bucket, s3_address
):
    write_folder(a, **{f"part{number}.bin": "x" * 4_000_000 for number in range(12)})
    publisher = subprocess.Popen(
        [sys.executable, "-c", _PUBLISHER, str(a.home)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "include")},
    )
    deadline = time.monotonic() + 30
    while not objects(s3_address, bucket) and time.monotonic() < deadline:
        time.sleep(0.005)
    publisher.send_signal(signal.SIGKILL)
    publisher.wait()
    remains = objects(s3_address, bucket)
    assert remains
    assert f"{KEY}.index.json" not in remains
    store = open_store(b)
    assert store.names("data/versions") == []
    with pytest.raises(FileNotFoundError, match="v1"):
        store.fetch(KEY)

    # Published again, beside the remains, which go when they are old.
    open_store(a).publish(KEY)
    now = datetime.now(UTC)
    assert store.remove_unfinished("data/versions", now - timedelta(days=2)) == []
    assert len(store.remove_unfinished("data/versions", now + timedelta(minutes=1))) == 1
    assert not set(remains) & set(objects(s3_address, bucket))
    assert len(list(store.fetch(KEY).glob("part*.bin"))) == 12


def test_a_damaged_object_is_named_and_nothing_of_the_folder_is_used(a, b, bucket, s3_address):
    write_folder(a)
    open_store(a).publish(KEY)
    damaged = f"{KEY}/{index_of(a)['upload']}/rows.bin"
    put_object(s3_address, bucket, damaged, b"rows" * 999 + b"bows")
    with pytest.raises(DamagedError, match=f"{bucket}/{damaged}: its content is not what was"):
        open_store(b).fetch(KEY)
    assert not (b.home / KEY).exists()
    assert [path.name for path in (b.home / "data/versions").glob("*")] == [".v1.lock"]


def test_a_missing_object_is_named(a, b, bucket, s3_address):
    write_folder(a)
    open_store(a).publish(KEY)
    delete_object(s3_address, bucket, f"{KEY}/{index_of(a)['upload']}/rows.bin")
    with pytest.raises(DamagedError, match=r"v1: the index lists a file that does not exist.*rows"):
        open_store(b).fetch(KEY)


@pytest.mark.parametrize(
    ("path", "link"), [("../../../outside", False), ("/etc/outside", False), ("/etc", True)]
)
def test_an_index_that_leads_out_of_the_state_root_is_refused(a, b, bucket, s3_address, path, link):
    write_folder(a)
    open_store(a).publish(KEY)
    index = index_of(a)
    if link:
        index["links"]["link"] = path
    else:
        index["files"][path] = index["files"].pop("rows.bin")
    put_object(s3_address, bucket, f"{KEY}.index.json", json.dumps(index).encode())
    with pytest.raises(DamagedError, match="lies outside"):
        open_store(b).fetch(KEY)


@pytest.mark.parametrize("content", [b"{", b'{"format": 1}', b"[]"])
def test_nonsense_for_an_index_or_a_pointer_is_named(a, bucket, s3_address, content):
    put_object(s3_address, bucket, f"{KEY}.index.json", content)
    put_object(s3_address, bucket, POINTER, content)
    with pytest.raises(DamagedError, match=r"v1\.index\.json: is not the index"):
        open_store(a).fetch(KEY)
    with pytest.raises(DamagedError, match="data/processed: is not a pointer"):
        open_store(a).leads_to(POINTER)


def test_two_folders_of_one_name_are_refused_and_the_first_stays(a, b, join):
    write_folder(a, **{"manifest.json": "one"})
    open_store(a).publish(KEY)
    write_folder(b, **{"manifest.json": "two"})
    with pytest.raises(FileExistsError, match="already published with other content"):
        open_store(b).publish(KEY)
    third = open_store(join("c")).fetch(KEY)
    assert (third / "manifest.json").read_text() == "one"


def test_a_copy_goes_once_the_store_does_not_have_the_folder_any_more(a, b):
    for name in ("v1", "v2"):
        write_folder(a, f"data/versions/{name}")
        open_store(a).publish(f"data/versions/{name}")
    open_store(b).fetch("data/versions/v1")
    not_published = write_folder(b, "data/versions/v0")
    open_store(a).remove("data/versions/v1")
    open_store(b).fetch("data/versions/v2")
    assert not (b.home / "data/versions/v1").exists()
    assert not_published.exists()


def test_a_pointer_that_was_moved_meanwhile_is_judged_again(a, b):
    """The move of the other machine falls between this one's reading and writing."""
    write_folder(a)
    judged = []

    def judge(current):
        judged.append(current)
        if len(judged) == 1:
            open_store(b).point(POINTER, "data/versions/v9", always)
        return current is None or current < "v1"

    assert not open_store(a).point(POINTER, KEY, judge)
    assert judged == [None, "v9"]
    assert open_store(a).leads_to(POINTER) == "v9"


def test_a_store_that_does_not_answer_is_named_in_time(tmp_path, bucket, free_port):
    settings = machine(tmp_path / "alone", bucket, f"http://127.0.0.1:{free_port}")
    started = time.monotonic()
    with pytest.raises(StorageError, match=rf"{bucket}/{FILE}: .*PUT|GET"):
        open_store(settings).read(FILE)
    assert time.monotonic() - started < 15


@pytest.fixture
def silent_server(request) -> Iterator[str]:
    """Accepts every connection; sends nothing, or the beginning of an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    connection.sendall(request.param)

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for connection in held:
            connection.close()


HEAD = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 9999\r\n\r\nbegin'


READING = ("read", "change", "names", "fetch")


# What is shared has arrived as soon as the headers of the answer say so.
@pytest.mark.parametrize(
    ("silent_server", "request_of"),
    [*((b"", one) for one in (*READING, "share")), *((HEAD, one) for one in READING)],
    indirect=["silent_server"],
)
def test_a_store_that_accepts_and_never_answers_is_named_in_time(
    tmp_path, bucket, silent_server, request_of
):
    settings = machine(tmp_path / "alone", bucket, silent_server)
    (settings.home / "config" / "storage.yaml").write_text(
        f"url: {bucket}\nendpoint: {silent_server}\nretry_seconds: 1\n"
    )
    write_bytes(settings.home / FILE, b"x" * 100)
    store = open_store(settings)
    started = time.monotonic()
    with pytest.raises(StorageError, match=bucket):
        {
            "read": lambda: store.read(FILE),
            "change": lambda: store.change(FILE, lambda _: b"x"),
            "names": lambda: store.names("data/versions"),
            "fetch": lambda: store.fetch("data/versions/v1"),
            "share": lambda: store.share(FILE),
        }[request_of]()
    assert time.monotonic() - started < 20


def test_a_bucket_that_does_not_exist_is_named(tmp_path, bucket, s3_address):
    settings = machine(tmp_path / "wrong", "s3://no-such-bucket", s3_address)
    with pytest.raises(StorageError, match="s3://no-such-bucket: the bucket does not exist"):
        open_store(settings).change(FILE, lambda _: b"x")


def test_a_forked_process_gets_an_error_and_does_not_hang(a):
    store = open_store(a)
    assert store.read(FILE) is None
    child = os.fork()
    if child == 0:
        try:
            store.read(FILE)
        except StorageError as error:
            os._exit(7 if "forked" in str(error) else 1)
        os._exit(2)
    deadline = time.monotonic() + 20
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.05)
    if done == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(done[1]) == 7


@pytest.mark.parametrize("url", ["http://bucket", "s3://", "file:///elsewhere", "data"])
def test_an_address_that_is_none_names_the_key(tmp_path: Path, url: str):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "storage.yaml").write_text(f"url: {url}\n")
    with pytest.raises(ConfigError, match=r"storage\.yaml: url: .*s3://bucket/prefix"):
        open_store(Settings(tmp_path))
    assert issubclass(ConfigError, InputError)


def test_a_sound_service_passes_the_check_and_keeps_nothing_of_it(a, bucket, s3_address):
    open_store(a).check()
    assert objects(s3_address, bucket) == []


def test_a_service_that_ignores_conditions_is_refused(tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with s3_server(tmp_path / "server.log", "careless") as address:
        settings = machine(tmp_path / "a", new_bucket(address), address)
        with pytest.raises(InputError, match="ignores If-None-Match"):
            open_store(settings).check()


def test_what_is_written_in_the_second_of_a_look_is_brought_again_and_keeps_its_time(a, b):
    ours, theirs = open_store(a), open_store(b)
    brought = b.home / "data/raw/a.csv"
    for content in (b"1", b"2"):
        ours.change("data/raw/a.csv", lambda _, content=content: content)
        theirs.mirror("data/raw", "data/raw")
        assert brought.read_bytes() == content
    changed = brought.stat().st_mtime_ns
    time.sleep(2)
    theirs.mirror("data/raw", "data/raw")
    assert brought.stat().st_mtime_ns == changed


def test_what_a_machine_shared_is_not_brought_back_to_it(a):
    store, file = open_store(a), a.home / "data/raw/own.csv"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    store.share("data/raw/own.csv")
    before = file.stat().st_ino
    store.mirror("data/raw", "data/raw")
    assert file.stat().st_ino == before
    file.unlink()
    store.mirror("data/raw", "data/raw")
    assert file.read_bytes() == b"1"


def test_a_file_of_somebody_else_is_shared(a, b, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    file = a.home / "data/raw/theirs.csv"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    with monkeypatch.context() as others:
        others.setattr(os, "utime", refuse)
        open_store(a).share("data/raw/theirs.csv")
    open_store(b).mirror("data/raw", "data/raw")
    assert (b.home / "data/raw/theirs.csv").read_bytes() == b"1"
