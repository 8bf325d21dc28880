"""The work folder of a run, for tasks that may land on different machines."""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recsys.settings import Settings
from recsys.storage import open_store


@dataclass(frozen=True)
class Workspace:
    """The files that the tasks of a run hand to each other.

    Attributes
    ----------
    plan
        The `recsys.refresh.plan.Plan`, JSON.
    rows
        The latest row of each user and product, feather.
    row_keys
        Sorted keys of all rows of the view, npy.
    catalogue
        The products as read, feather.
    quality, scores
        COMMENT_QUALITY of each row, npy; the scorer's summary, JSON.
    version
        Folder in which the new version is built.
    """

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def rows(self) -> Path:
        return self.folder / "rows.feather"

    @property
    def row_keys(self) -> Path:
        return self.folder / "row_keys.npy"

    @property
    def catalogue(self) -> Path:
        return self.folder / "catalogue.feather"

    @property
    def quality(self) -> Path:
        return self.folder / "quality.npy"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.json"

    @property
    def version(self) -> Path:
        return self.folder / "version"

    def empty(self) -> None:
        """An empty folder, whatever an earlier try left in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def tidy(self) -> None:
        """Remove all but the plan, which a repeated last step needs."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry != self.plan:
                entry.unlink()


def workspace_of(settings: Settings, run_id: str) -> Workspace:
    """The workspace of a run; the same for all its tasks."""
    name = re.sub(r"[^0-9A-Za-z]+", "-", run_id).strip("-")[:60]
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:8]
    return Workspace(settings.work / f"data_refresh-{name}-{digest}")


@contextlib.contextmanager
def open_workspace(settings: Settings, run_id: str) -> Iterator[Workspace]:
    """The workspace as the run's last task left it, on whatever machine; handed on after the block.

    On one machine this does nothing. In a bucket, what the block wrote is shared and what it
    removed goes. A block that fails hands nothing on; its repetition replaces what it wrote.
    What this machine has kept from earlier and the last task did not leave goes before the block.
    """
    workspace = workspace_of(settings, run_id)
    store = open_store(settings)
    if not store.shared:
        yield workspace
        return
    work = workspace.folder
    key = work.relative_to(settings.home).as_posix()
    store.mirror(key, key)
    _drop_all_but(work, store.files(key))
    before = _states(work)
    yield workspace
    after = _states(work)
    for name in sorted(name for name, state in after.items() if before.get(name) != state):
        store.share(f"{key}/{name}")
    for name in sorted(before.keys() - after.keys()):
        store.discard(f"{key}/{name}")


def _drop_all_but(work: Path, names: set[str]) -> None:
    """Remove other files, and the folders that are empty then."""
    for path in sorted(work.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path.relative_to(work).as_posix() not in names:
            path.unlink()


def _states(work: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    files = (path for path in work.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(work).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    }
