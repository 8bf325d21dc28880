"""What can become of a file, whatever it was."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path


def _removed(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _replaced(content: bytes) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        _removed(path)
        path.write_bytes(content)

    return replace


def _cut(share: float) -> Callable[[Path], None]:
    """All but the end; of a file that is not there, nothing."""

    def cut(path: Path) -> None:
        content = path.read_bytes() if path.is_file() else b""
        _replaced(content[: int(len(content) * share)] if share < 1 else content[:-1])(path)

    return cut


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes() if path.is_file() else b"x")
    for place in range(len(content) // 2, len(content), 997):
        content[place] ^= 0x55
    _replaced(bytes(content))(path)


def _folder(path: Path) -> None:
    _removed(path)
    path.mkdir()
    (path / "something").touch()


def _linked(target: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        _removed(path)
        path.symlink_to(target)

    return link


def _foreign(path: Path) -> None:
    """Somebody else's file of the same format."""
    if path.suffix != ".db":
        _replaced(b'{"colour": "red", "layout": 1, "files": 5}')(path)
        return
    _removed(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        for table in (
            "events",
            "daily",
            "requests",
            "alerts",
            "deliveries",
            "runs",
            "training_runs",
        ):
            database.execute(f"CREATE TABLE {table} (colour TEXT, number INTEGER)")
        database.execute("PRAGMA user_version = 1")


def _of_the_future(path: Path) -> None:
    if path.suffix != ".db":
        text = b'{"layout": 999, "version": 999, "as_of": "2999-01-01T00:00:00+00:00", "files": {}}'
        _replaced(text)(path)
        return
    _removed(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE later (colour TEXT)")
        database.execute("PRAGMA user_version = 999")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "missing": _removed,
    "empty": _replaced(b""),
    "junk": _replaced(b"\x00\xffjunk" * 2_000),
    "zeros": _replaced(bytes(8_192)),
    "a text": _replaced("xin chào\n".encode() * 50),
    "cut near its beginning": _cut(0.05),
    "cut in half": _cut(0.5),
    "cut at its last byte": _cut(1),
    "bits fell over": _flipped,
    "a folder in its place": _folder,
    "a link to nowhere": _linked("nowhere/at/all"),
    "a link to itself": _linked("."),
    "of somebody else": _foreign,
    "of the future": _of_the_future,
}
