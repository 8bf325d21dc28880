"""The work folder of a run, for tasks that may land on different machines."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from recsys.publishing import write_json
from recsys.settings import Settings
from recsys.storage import open_store

LINKS_FILE = "links.json"
"""Links of the folder, which a bucket has no word for: ``{path: where it leads}``."""


@contextlib.contextmanager
def handed_over(settings: Settings, work: Path) -> Iterator[Path]:
    """`work` as the run's last task left it, on whatever machine; handed on after the block.

    On one machine this does nothing. In a bucket, what the block wrote is shared and what it
    removed goes. A block that fails hands nothing on; its repetition replaces what it wrote.
    What this machine has kept from earlier and the last task did not leave goes before the block:
    a version that another machine published meanwhile must not be taken for a finished one.
    """
    store = open_store(settings)
    if not store.shared:
        yield work
        return
    key = work.relative_to(settings.home).as_posix()
    store.mirror(key, key)
    _drop_all_but(work, store.files(key))
    _make_links(work)
    before = _states(work)
    yield work
    _note_links(work)
    after = _states(work)
    for name in sorted(name for name, state in after.items() if before.get(name) != state):
        store.share(f"{key}/{name}")
    for name in sorted(before.keys() - after.keys()):
        store.discard(f"{key}/{name}")


def _drop_all_but(work: Path, names: set[str]) -> None:
    """Remove other files, all links (they are made anew) and the folders that are empty then."""
    for path in sorted(work.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path.is_symlink() or path.relative_to(work).as_posix() not in names:
            path.unlink()


def _states(work: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    files = (path for path in work.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(work).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    }


def _note_links(work: Path) -> None:
    links = {
        path.relative_to(work).as_posix(): str(path.readlink())
        for path in work.rglob("*")
        if path.is_symlink()
    }
    if links:
        write_json(work / LINKS_FILE, links)
    else:
        (work / LINKS_FILE).unlink(missing_ok=True)


def _make_links(work: Path) -> None:
    if not (work / LINKS_FILE).exists():
        return
    for name, target in json.loads((work / LINKS_FILE).read_text(encoding="utf-8")).items():
        link = work / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(target)
