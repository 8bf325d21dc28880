"""Settings and backups that somebody hands in: bombs, links, huge numbers, cut and changed files.

    python -m benchmarks.drills.handed_in

Survived: a sentence names the file, soon, and quotes no secret; nothing is run, nothing is written
outside of the state root, and a backup is restored as it was made or not at all.
"""

import gzip
import io
import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.drills._table import Attacks
from recsys.alerting.config import AlertsConfig
from recsys.comments import CommentConfig
from recsys.config import ConfigError, ConfigModel, load_config
from recsys.content import ContentConfig
from recsys.data.config import DataConfig
from recsys.deployment import DeploymentConfig
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.health.config import HealthConfig
from recsys.publishing import write_json, write_text
from recsys.schedule import SchedulerConfig
from recsys.settings import Settings
from recsys.spark.session import SparkConfig
from recsys.storage import StorageConfig
from recsys.training.config import TrainingConfig
from recsys.upkeep import MaintenanceConfig
from recsys.upkeep.backup import BackupError, write_backup
from recsys.upkeep.restore import restore_backup
from serving.config import ServingConfig

SECRET = "correct-horse-battery"
SECONDS = 3.0
MODELS: tuple[type[ConfigModel], ...] = (
    AlertsConfig, CommentConfig, ContentConfig, DataConfig, DeploymentConfig, DriftConfig,
    HealthConfig, HolidayCalendar, MaintenanceConfig, SchedulerConfig, ServingConfig, SparkConfig,
    StorageConfig, TrainingConfig,
)  # fmt: skip

# KEY is a key that the file knows, BELOW the path of something that must not come to be.
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + last] * 9)}]\n"
    for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML = {
    "a bomb of aliases": BOMB,
    "an alias of itself": "KEY: &a [*a]\n",
    "a merged mapping": "x: &a {b: c}\nKEY:\n  <<: *a\n",
    "a program": 'KEY: !!python/object/apply:os.system ["touch BELOW"]\n',
    "a new object": "KEY: !!python/object/new:os.system [touch BELOW]\n",
    "a nesting of 100,000 lists": "KEY: " + "[" * 100_000,
    "a nesting of 200 mappings": "KEY: " + "{a: " * 200 + "1" + "}" * 200,
    "a nesting by indentation": "".join(" " * n + "a:\n" for n in range(200)),
    "the same key twice": f"KEY: {SECRET}\nKEY: {SECRET}\n",
    "an integer of 4,000 digits": "KEY: 1" + "0" * 4_000 + "\n",
    "a power of powers": "KEY: 1.0e+999999999\n",
    "no number": "KEY: .nan\n",
    "infinity": "KEY: -.inf\n",
    "sixty to the power of a hundred": "KEY: 1" + ":59" * 100 + "\n",
    "a secret under an unknown name": f"pasword: {SECRET}\n",
    "a secret without its quote": f'KEY: "{SECRET}\nother: 1\n',
    "a secret behind a tab": f"KEY:\n\tpassword: {SECRET}\n",
    "a tag of nobody": f"KEY: !vault {SECRET}\n",
    "two documents": "KEY: 1\n---\nKEY: 2\n",
    "a list": "- a\n- b\n",
    "a word": "hello\n",
    "more than a person writes": "# " + "x" * 300_000 + "\nKEY: 1\n",
    "NUL": "KEY: a\0b\n",
    "a key of a list": "? [a, b]\n: c\n",
    "a date": "KEY: 2999-01-01\n",
}
RAW = {
    "bytes": bytes(range(256)) * 10,
    "no UTF-8": b"KEY: \xff\xfe\n",
    "UTF-16": "KEY: 1\n".encode("utf-16"),
    "gzip": gzip.compress(b"KEY: 1\n"),
    "a private key": b"-----BEGIN PRIVATE KEY-----\n" + SECRET.encode() + b"\n",
}
JSON = {
    "a nesting of 100,000 lists": '{"KEY": ' + "[" * 100_000,
    "the same key twice": f'{{"KEY": "{SECRET}", "KEY": "{SECRET}"}}',
    "an integer of 10,000 digits": '{"KEY": 1' + "0" * 10_000 + "}",
    "a power of powers": '{"KEY": 1e999999999}',
    "no number": '{"KEY": NaN}',
    "a secret under an unknown name": f'{{"pasword": "{SECRET}"}}',
    "a secret without its quote": f'{{"KEY": "{SECRET}',
    "a list": "[]",
    "a comment": '{"KEY": 1} // x',
    "cut off": '{"KEY": {',
}


def bad_settings(attacks: Attacks, root: Path) -> None:
    for model in MODELS:
        texts = JSON if model.FILE.endswith(".json") else YAML
        below = root / "made"
        filled = {
            name: text.replace("KEY", next(iter(model.model_fields))).replace("BELOW", str(below))
            for name, text in texts.items()
        }
        contents = {name: text.encode() for name, text in filled.items()} | RAW
        for name, content in contents.items():
            with attacks.attack("settings that are bombs or lies", f"{model.FILE}: {name}"):
                write_settings(root, model.FILE, content)
                assert_settings_are_refused(root, model)
                assert not below.exists(), "what the file says was run"
        for name, put in IN_ITS_PLACE.items():
            with attacks.attack("something else in the place of settings", f"{model.FILE}: {name}"):
                put(write_settings(root, model.FILE, b""))
                assert_settings_are_refused(root, model)


IN_ITS_PLACE: dict[str, Callable[[Path], None]] = {
    "a folder": lambda path: (path.unlink(), path.mkdir())[1],
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name))[1],
    "the memory of a process": lambda path: (path.unlink(), path.symlink_to("/proc/self/mem"))[1],
    "zeros without end": lambda path: (path.unlink(), path.symlink_to("/dev/zero"))[1],
}


def write_settings(root: Path, name: str, content: bytes) -> Path:
    shutil.rmtree(root / "config", ignore_errors=True)
    (root / "config").mkdir()
    path = root / "config" / name
    path.write_bytes(content)
    return path


def assert_settings_are_refused(root: Path, model: type[ConfigModel]) -> None:
    began = time.monotonic()
    said = ""
    try:
        load_config(Settings(root), model)
    except ConfigError as error:
        said = str(error)
    assert said, "they are taken"
    assert model.FILE in said, said[:300]
    assert SECRET not in said, said[:300]
    assert len(said) < 5_000, len(said)
    assert time.monotonic() - began < SECONDS


# Backups
Member = tuple[tarfile.TarInfo, bytes]


def make_backup(root: Path) -> Path:
    shop = Settings(root / "shop")
    write_json(shop.deployment_history, {"deployments": []})
    write_text(shop.home / "data" / "raw" / "reviews.csv", "a,b\n" * 500)
    (shop.home / "data" / "processed").symlink_to("versions/v1")
    write_json(shop.versions / "v1" / "manifest.json", {"layout": 2, "files": {}})
    write_backup(shop, root / "backup.tar")
    return root / "backup.tar"


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b""
) -> Member:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, len(content)
    return made, content


NAMES = [
    "../outside", "/outside", "data/../../outside", "data/./x", "data//x", "data/", "data", "",
    ".", ".env", "elsewhere/x", "data\\..\\x", "config/../../x", "DATA/x", "C:\\x", "~/x",
    "data/raw/" + "x" * 5_000, "data/raw/\0x", "data/raw/x\n", "data/raw/..", "data/\udcff",
    "data/raw/reviews.csv", "data/raw/reviews.csv/x", "manifest.json", "data/processed",
    "data/processed/x", "artifacts",
]  # fmt: skip
LINKS = [
    (tarfile.SYMTYPE, target)
    for target in ("/etc", "../../../etc", "../../..", "raw/../../..", "/", "", "\0", "x" * 5_000)
] + [
    (tarfile.LNKTYPE, "/etc/passwd"),
    (tarfile.LNKTYPE, "data/raw/reviews.csv"),
    (tarfile.FIFOTYPE, ""),
    (tarfile.CHRTYPE, ""),
    (tarfile.BLKTYPE, ""),
    (tarfile.DIRTYPE, ""),
    (tarfile.CONTTYPE, ""),
    (tarfile.GNUTYPE_SPARSE, ""),
    (b"Z", ""),
]
CHAINS = [
    [("data/a", "."), ("data/a/b", "../../..")],
    [("data/a", "raw"), ("data/b", "a/../../..")],
    [("data/a", "b"), ("data/b", "a")],
    [("data/a", "a")],
    [("data/raw/a", "../b"), ("data/b", "../..")],
    [(f"data/{n}", f"{n + 1}") for n in range(60)],
    [("data/a", "b/../../x"), ("data/b", "raw")],
]
MANIFESTS: dict[str, Callable[[dict], object]] = {
    "of a newer layout": lambda given: given | {"layout": 999},
    "of a huge layout": lambda given: given | {"layout": 10**4000},
    "of a layout of text": lambda given: given | {"layout": "2; rm"},
    "with more files": lambda given: (
        given | {"files": given["files"] | {"data/x": {"sha256": "0"}}}
    ),
    "without files": lambda given: given | {"files": {}},
    "with a file of no sum": lambda given: given | {"files": dict.fromkeys(given["files"])},
    "with more links": lambda given: given | {"links": {"data/x": "/etc"}},
    "without links": lambda given: given | {"links": {}},
    "with unknown keys": lambda given: given | {"run": "rm"},
    "of no time": lambda given: given | {"created_at": 5},
    "of a list": lambda given: [given],
    "of nothing": lambda given: None,
}


def changed(backup: Path, change: Callable[[list[Member]], list[Member]]) -> bytes:
    """The backup with other members."""
    with tarfile.open(backup) as old:
        members = [(one, old.extractfile(one).read() if one.isreg() else b"") for one in old]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as new:
        for info, content in change(members):
            new.addfile(info, io.BytesIO(content))
    return made.getvalue()


def evil_backups(backup: Path) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """(kind, what, content) of backups that must not be restored."""
    content = backup.read_bytes()
    with tarfile.open(backup) as tar:
        last = tar.getmember("manifest.json")
    end = last.offset_data + last.size
    for length in range(0, end, end // 60):
        yield "a backup that was cut off", f"at {length}", lambda n=length: content[:n]
    kind = "a backup with names, links or files that no backup has"
    evils = [member(name, content=b"evil") for name in NAMES]
    evils += [member("data/raw/evil", type_, target) for type_, target in LINKS]
    for evil in evils:
        told = f"{evil[0].type!r} {evil[0].name[:40]!r} {evil[0].linkname[:40]!r}"
        yield kind, told, lambda one=evil: changed(backup, lambda m: [*m[:-1], one, m[-1]])
    for chain in CHAINS:
        evils = [member(name, tarfile.SYMTYPE, target) for name, target in chain]
        written = [*evils, member("data/a/b/x", content=b"evil")]
        yield kind, str(chain)[:60], lambda ones=written: changed(backup, lambda m: [*ones, *m])
    kind = "a backup with a manifest that lies"
    for name, lie in MANIFESTS.items():

        def lied(members: list[Member], lie: Callable[[dict], object] = lie) -> list[Member]:
            sys.set_int_max_str_digits(0)
            text = json.dumps(lie(json.loads(members[-1][1]))).encode()
            sys.set_int_max_str_digits(4300)
            return [*members[:-1], member("manifest.json", content=text)]

        yield kind, name, lambda lied=lied: changed(backup, lied)
    for name, text in (
        ("nested", b"[" * 100_000),
        ("cut off", b'{"files": {'),
        ("of bytes", b"\xff\xfe"),
        ("with a key twice", b'{"layout": 2, "layout": 2, "files": {}, "links": {}}'),
    ):
        one = member("manifest.json", content=text)
        yield kind, name, lambda one=one: changed(backup, lambda m: [*m[:-1], one])
    yield kind, "twice", lambda: changed(backup, lambda m: [*m, m[-1]])
    yield kind, "not at the end", lambda: changed(backup, lambda m: [m[-1], *m[:-1]])
    kind = "a backup that is something else"
    yield kind, "nothing", lambda: b""
    yield kind, "zeros", lambda: bytes(1_000_000)
    yield kind, "a text", lambda: b"hello\n" * 1000
    yield kind, "gzip", lambda: gzip.compress(content)
    yield kind, "a size of exabytes", lambda: with_header(content, 124, b"77777777777\0")
    yield kind, "a size of binary", lambda: with_header(content, 124, b"\x80" + b"\xff" * 11)
    yield kind, "a negative size", lambda: with_header(content, 124, b"\xff" * 12)
    yield kind, "a sparse header", lambda: with_header(content, 156, b"S")
    yield kind, "an extended header", lambda: with_header(content, 156, b"x")
    yield kind, "a long name", lambda: with_header(content, 156, b"L")


def with_header(content: bytes, at: int, field: bytes) -> bytes:
    """The first header changed, with a sum that is right again."""
    header = bytearray(content[:512])
    header[at : at + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + content[512:]


def restored(target: Path, backup: Path) -> str:
    """What is said when the backup is restored; nothing if it is."""
    try:
        restore_backup(Settings(target), backup)
    except BackupError as error:
        return str(error)
    return ""


def bad_backups(attacks: Attacks, root: Path) -> None:
    good = make_backup(root)
    tree = contents(root / "shop")
    evil, target = root / "evil.tar", root / "inside" / "target"
    before = {*root.iterdir(), evil, root / "inside"}
    for kind, what, make in evil_backups(good):
        with attacks.attack(kind, what):
            evil.write_bytes(make())
            began = time.monotonic()
            said = restored(target, evil)
            assert said, "it is restored"
            assert len(said) < 6_000, len(said)
            assert time.monotonic() - began < SECONDS
            assert not target.exists() or not any(target.iterdir()), "something is left of it"
            assert set(root.iterdir()) == before, "something lies outside"
            assert not target.exists() or [*target.parent.iterdir()] == [target]
        shutil.rmtree(root / "inside", ignore_errors=True)
        (root / "inside").mkdir()
    content = good.read_bytes()
    for place in range(7, len(content), len(content) // 120):
        with attacks.attack("a backup with a bit that fell over", f"at {place}"):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            evil.write_bytes(flipped)
            # Padding and ages have no sum: what they say may change, what the files hold may not.
            assert restored(target, evil) or contents(target) == tree
        shutil.rmtree(root / "inside", ignore_errors=True)


def contents(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def main() -> int:
    """Print a row of docs/reliability.md for each kind; 1 if an attack got through."""
    attacks = Attacks("handed_in")
    root = Path(tempfile.mkdtemp(prefix="recsys-drill-"))
    try:
        (root / "settings").mkdir()
        bad_settings(attacks, root / "settings")
        (root / "backups" / "inside").mkdir(parents=True)
        bad_backups(attacks, root / "backups")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return attacks.end()


if __name__ == "__main__":
    sys.exit(main())
