"""The work folder of a run, for tasks that may land on different machines."""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from recsys.settings import Settings
from recsys.storage import open_store


class Workspace:
    """The files in `folder` that the tasks of a run hand to each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = folder / "plan.json"
        """The `recsys.refresh.plan.Plan`."""
        self.rows = folder / "rows.feather"
        """The latest row of each user and product."""
        self.row_keys = folder / "row_keys.npy"
        """Sorted keys of all rows of the view."""
        self.catalogue = folder / "catalogue.feather"
        """The products as read."""
        self.signals = folder / "signals.feather"
        """The signals of the view, if it has any."""
        self.purchases = folder / "purchases.feather"
        """Those of them that the split of the rows must know."""
        self.quality = folder / "quality.npy"
        """COMMENT_QUALITY of each row."""
        self.scores = folder / "scores.json"
        """The scorer's summary."""
        self.version = folder / "version"
        """Folder in which the new version is built."""

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

    On one machine this does nothing. In a bucket, what this machine has kept from earlier and the
    last task did not leave goes before the block; what the block wrote is shared and what it
    removed goes. A block that fails hands nothing on; its repetition replaces what it wrote."""
    workspace = workspace_of(settings, run_id)
    store = open_store(settings)
    if not store.shared:
        yield workspace
        return
    work = workspace.folder
    key = work.relative_to(settings.home).as_posix()
    store.mirror(key, key)
    left = store.files(key)
    for path in sorted(work.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
        elif path.relative_to(work).as_posix() not in left:
            path.unlink()
    before = _states(work)
    yield workspace
    after = _states(work)
    for name, _ in sorted(after.items() - before.items()):
        store.share(f"{key}/{name}")
    for name in sorted(before.keys() - after.keys()):
        store.discard(f"{key}/{name}")


def _states(work: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    files = (path for path in work.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        path.relative_to(work).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    }
