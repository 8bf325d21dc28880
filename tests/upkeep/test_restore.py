"""A backup that cannot be trusted changes nothing."""

import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from recsys.ids import IdRules
from recsys.privacy import FORGETTING_KEY, ask_to_forget, load_forgotten
from recsys.publishing import write_json, write_text
from recsys.settings import Settings
from recsys.upkeep.backup import BackupError, remove_unpacked, unpacking, write_backup
from recsys.upkeep.forgetting import forget_customers
from recsys.upkeep.restore import restore_backup
from tests.upkeep.ageing import aged


@pytest.fixture
def shop(settings: Settings) -> Settings:
    write_json(settings.deployment_history, {"deployments": []})
    write_text(settings.home / "data" / "raw" / "reviews.csv", "a,b\n")
    (settings.home / "data" / "processed").symlink_to("versions/v1")
    write_json(settings.versions / "v1" / "manifest.json", {"layout": 2, "files": {}})
    return settings


@pytest.fixture
def backup(shop: Settings, tmp_path: Path) -> Path:
    write_backup(shop, tmp_path / "backup.tar")
    return tmp_path / "backup.tar"


@pytest.fixture
def empty(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "empty")


def rewritten(backup: Path, change) -> Path:
    """`backup` with its members and their contents passed through `change`."""
    target = backup.with_name("changed.tar")
    with tarfile.open(backup) as old, tarfile.open(target, "w") as new:
        for member in old:
            file = old.extractfile(member) if member.isreg() else None
            for changed, content in change(member, file.read() if file else b""):
                changed.size = len(content)
                new.addfile(changed, io.BytesIO(content))
    return target


def untouched(settings: Settings) -> bool:
    return not settings.home.exists() or not any(settings.home.iterdir())


def test_files_links_and_their_ages_come_back(shop, empty, tmp_path):
    aged(shop.home / "data" / "raw" / "reviews.csv", 40)
    write_backup(shop, tmp_path / "aged.tar")
    restore_backup(empty, tmp_path / "aged.tar")
    restored = empty.home / "data" / "raw" / "reviews.csv"
    assert restored.read_text() == "a,b\n"
    original = (shop.home / "data" / "raw" / "reviews.csv").stat().st_mtime
    assert restored.stat().st_mtime == pytest.approx(original, abs=1)
    assert empty.processed.readlink() == Path("versions/v1")


def test_secrets_scratch_and_half_written_files_are_left_out(shop, empty, tmp_path):
    write_text(shop.home / ".env", "SECRET=1")
    write_text(shop.work / "run" / "part", "x")
    write_text(shop.artifacts / "registry.json.lock", "")
    write_text(shop.versions / ".v2.0123.tmp" / "part", "x")
    write_backup(shop, tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert sorted(tar.getnames()) == [
            "data/processed",
            "data/raw/reviews.csv",
            "data/versions/v1/manifest.json",
            "logs/deployment_history.json",
            "manifest.json",
        ]


def test_a_backup_never_overwrites_and_never_lies_in_what_it_holds(shop, backup):
    with pytest.raises(BackupError, match="exists already"):
        write_backup(shop, backup)
    with pytest.raises(BackupError, match="choose another place"):
        write_backup(shop, shop.home / "data" / "backup.tar")
    with pytest.raises(BackupError, match="does not exist; make it first"):
        write_backup(shop, shop.home / "nowhere" / "backup.tar")


@pytest.mark.parametrize("target", ["/etc", "../../elsewhere"])
def test_a_link_out_of_the_state_root_is_refused(shop, tmp_path, target):
    (shop.home / "data" / "raw" / "more").symlink_to(target)
    if target == "../../elsewhere":
        (shop.home / "data" / "raw" / "more").unlink()
        (shop.home / "data" / "more").symlink_to(target)
    with pytest.raises(BackupError, match="outside of the state root"):
        write_backup(shop, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


def test_a_linked_area_is_refused(shop, tmp_path):
    (shop.home / "data").rename(tmp_path / "elsewhere")
    (shop.home / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupError, match="is a link"):
        write_backup(shop, tmp_path / "b.tar")


def test_only_an_empty_state_root_is_restored_into(backup, empty):
    write_text(empty.logs / "service" / "alerts.log", "x")
    with pytest.raises(BackupError, match="not empty"):
        restore_backup(empty, backup)
    assert not (empty.home / "data").exists()


def test_the_configuration_of_a_checkout_is_not_overwritten(shop, empty, tmp_path):
    write_text(shop.home / "config" / "data.yaml", "source: theirs\n")
    write_text(empty.home / "config" / "data.yaml", "source: ours\n")
    write_backup(shop, tmp_path / "b.tar")
    assert restore_backup(empty, tmp_path / "b.tar")["config"] == "config.restored"
    assert (empty.home / "config" / "data.yaml").read_text() == "source: ours\n"
    assert (empty.home / "config.restored" / "data.yaml").read_text() == "source: theirs\n"


def test_a_changed_file_is_noticed(backup, empty):
    def change(member, content):
        yield member, content.replace(b"a,b", b"a,c")

    with pytest.raises(BackupError, match=r"reviews\.csv: its content is not"):
        restore_backup(empty, rewritten(backup, change))
    assert untouched(empty)


def test_a_missing_file_is_noticed(backup, empty):
    def change(member, content):
        if member.name != "data/raw/reviews.csv":
            yield member, content

    with pytest.raises(BackupError, match=r"reviews\.csv"):
        restore_backup(empty, rewritten(backup, change))
    assert untouched(empty)


def test_a_backup_that_was_cut_off_is_refused_wherever_it_was_cut(backup, empty):
    content = backup.read_bytes()
    with tarfile.open(backup) as tar:
        last = tar.getmember("manifest.json")
    for length in (*range(0, last.offset_data + last.size, 300), last.offset_data + last.size - 1):
        backup.write_bytes(content[:length])
        with pytest.raises(BackupError):
            restore_backup(empty, backup)
        assert untouched(empty)


def test_something_else_than_a_backup_is_refused(empty, tmp_path):
    (tmp_path / "b.tar").write_text("hello")
    with pytest.raises(BackupError, match="cannot be read"):
        restore_backup(empty, tmp_path / "b.tar")
    with pytest.raises(BackupError, match="cannot be read"):
        restore_backup(empty, tmp_path / "missing.tar")


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/tmp/outside",
        "data/../../outside",
        "data/./x",
        "data//x",
        ".env",
        "data",
        "elsewhere/x",
        "data\\..\\x",
    ],
)
def test_a_path_outside_is_refused(backup, empty, tmp_path, name):
    def change(member, content):
        if member.name == "manifest.json":
            yield tarfile.TarInfo(name), b"evil"
        yield member, content

    with pytest.raises(BackupError, match="is not a path below"):
        restore_backup(empty, rewritten(backup, change))
    assert untouched(empty)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "../../../etc"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.DIRTYPE, ""),
    ],
)
def test_links_outwards_and_special_files_are_refused(backup, empty, kind, target):
    def change(member, content):
        if member.name == "manifest.json":
            evil = tarfile.TarInfo("data/raw/evil")
            evil.type, evil.linkname = kind, target
            yield evil, b""
        yield member, content

    with pytest.raises(BackupError, match=r"outside of the state root|only files and links"):
        restore_backup(empty, rewritten(backup, change))
    assert untouched(empty)


def test_no_file_is_written_through_a_link(backup, empty, tmp_path):
    (tmp_path / "victim").mkdir()

    def change(member, content):
        if member.name == "manifest.json":
            link = tarfile.TarInfo("data/raw/link")
            link.type, link.linkname = tarfile.SYMTYPE, "../../data"
            yield link, b""
            yield tarfile.TarInfo("data/raw/link/file"), b"evil"
        yield member, content

    with pytest.raises(BackupError):
        restore_backup(empty, rewritten(backup, change))
    assert untouched(empty)


@pytest.mark.parametrize(
    "links",
    [
        # The second one lies in the first one's folder only in name.
        {"data/raw/up": "../..", "data/raw/up/out": "../../../victim"},
        {"data/raw/a/b/c": "../../..", "data/raw/out": "a/b/c/../victim"},
        {"data/raw/up": "..", "data/raw/next": "up/..", "data/raw/out": "next/../victim"},
    ],
)
def test_links_that_lead_outwards_only_together_are_refused(backup, empty, tmp_path, links):
    (tmp_path / "victim").mkdir()

    def change(member, content):
        if member.name == "manifest.json":
            manifest = json.loads(content)
            manifest["links"] |= links
            for name, target in links.items():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, target
                yield link, b""
            content = json.dumps(manifest).encode()
            member.size = len(content)
        yield member, content

    with pytest.raises(BackupError, match="outside of the state root"):
        restore_backup(empty, rewritten(backup, change))
    assert untouched(empty)


def with_headers(backup: Path, headers: dict[str, str]) -> Path:
    """`backup` with a further file, and with these extended headers of it."""
    target = backup.with_name("changed.tar")
    with tarfile.open(backup) as old, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as new:
        for member in old:
            file = old.extractfile(member) if member.isreg() else None
            if member.name == "manifest.json":
                evil = tarfile.TarInfo("data/raw/evil")
                evil.pax_headers = headers
                new.addfile(evil)
            member.pax_headers = {}
            new.addfile(member, file)
    return target


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(10**12),
         "GNU.sparse.map": f"{10**12},0", "GNU.sparse.name": "data/raw/evil"},
        {"size": str(10**12)},
        {"size": "-5"},
        {"size": "9" * 5000},
        {"mtime": "nan"},
        {"mtime": "1e400"},
        {"mtime": str(10**30)},
    ],
    ids=["sparse", "beyond-the-end", "negative", "huge", "no-time", "endless", "far-away"],
)  # fmt: skip
def test_headers_that_lie_end_as_a_sentence(backup, empty, headers):
    changed = with_headers(backup, headers)
    with pytest.raises(BackupError, match=r"evil|changed\.tar: cannot be read"):
        restore_backup(empty, changed)
    assert untouched(empty)


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"layout": 2, "layout": 2}', "stands there twice"),
        ('{"layout": ' + "9" * 5000 + "}", "digits"),
        ('{"secret": "hunter2"}', "required"),
    ],
)
def test_a_manifest_of_nonsense_ends_as_a_sentence(backup, empty, manifest, said):
    def change(member, content):
        yield member, manifest.encode() if member.name == "manifest.json" else content

    with pytest.raises(BackupError, match=said) as refused:
        restore_backup(empty, rewritten(backup, change))
    assert "hunter2" not in str(refused.value)
    assert untouched(empty)


def run_with_little_space(settings, program: str) -> str:
    """The error of `program` in a process whose files may have 2,000 bytes at most."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    home = f"settings = Settings(Path({str(settings.home)!r})); "
    imports = "from pathlib import Path; from recsys.settings import Settings; "
    done = subprocess.run(
        [sys.executable, "-c", imports + home + program.replace("START", limit)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.splitlines()[-1]


def test_what_is_no_copy_of_the_register_is_refused(backup, empty, tmp_path):
    safe = tmp_path / "safe"
    (safe / "privacy").mkdir(parents=True)
    (safe / "privacy" / "requests.json").write_text('{"requests": []}')
    for wrong, why in (
        (tmp_path / "elsewhere", "there is no register in it"),
        (safe, "there is no register in it"),
        (safe / "privacy", "its register is empty"),
    ):
        with pytest.raises(BackupError, match=why) as told:
            restore_backup(empty, backup, wrong)
        assert str(wrong) in str(told.value)
        assert untouched(empty)


def test_a_copy_of_the_register_that_cannot_be_read_is_said_to_be_that(backup, empty, tmp_path):
    (tmp_path / "requests.json").write_text('{"requests": []}')
    (tmp_path / "keys.json").symlink_to("nowhere")
    with pytest.raises(BackupError, match=r"keys\.json: cannot be read: No such file"):
        restore_backup(empty, backup, tmp_path)
    assert untouched(empty)


def test_no_space_for_a_request_is_said_with_the_file(empty):
    program = "from recsys.privacy import ask_to_forget; from recsys.ids import IdRules; START; "
    program += "ask_to_forget(settings, [f'KH{n}' for n in range(99)], 'lan', IdRules())"
    said = run_with_little_space(empty, program)
    assert f"File too large: '{empty.home / FORGETTING_KEY}'" in said
    assert load_forgotten(empty).by_name() == {}


def test_what_a_killed_restore_has_left_goes_with_the_next_or_with_forgetting(
    backup, empty, tmp_path
):
    program = (
        "import os, signal, sys; from pathlib import Path; from recsys.settings import Settings\n"
        "from recsys.upkeep import restore\n"
        "restore._put_in_place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "restore.restore_backup(Settings(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(empty.home), str(backup)]
    for end in ("restore", "forget"):
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        [left] = empty.home.glob(".restore-*")
        assert (left / "data" / "raw" / "reviews.csv").exists()
        if end == "restore":
            with unpacking(empty.home) as folder:  # one at work is left alone, and takes the rest
                assert [*empty.home.glob(".restore-*")] == [folder]
                remove_unpacked(empty.home)
                assert folder.is_dir()
            assert untouched(empty)
    ask_to_forget(empty, ["KH01"], "lan", IdRules())
    forget_customers(empty)
    assert not left.exists()


def test_no_space_is_said_with_the_file(shop, empty, tmp_path):
    write_text(shop.home / "data" / "raw" / "large.csv", "x" * 5000)
    target = tmp_path / "full.tar"
    program = "from recsys.upkeep.backup import write_backup; START; "
    program += f"write_backup(settings, Path({str(target)!r}))"
    said = run_with_little_space(shop, program)
    assert "BackupError" in said
    assert "full.tar" in said
    assert "the backup cannot be made: File too large" in said
    assert list(tmp_path.glob("*.tar*")) == list(tmp_path.glob(".*.tmp")) == []
    write_backup(shop, target)
    program = "from recsys.upkeep.restore import restore_backup; START; "
    program += f"restore_backup(settings, Path({str(target)!r}))"
    said = run_with_little_space(empty, program)
    assert "BackupError" in said
    assert f"what {target} holds cannot be written: File too large" in said
    assert untouched(empty)
