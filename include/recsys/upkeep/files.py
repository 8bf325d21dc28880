"""Files that age: data versions, quarantine, scratch space, reports, rotated logs, leftovers."""

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from recsys.data.config import DataConfig
from recsys.data.retention import prunable, prune
from recsys.settings import Settings
from recsys.storage import ABANDONED_AFTER
from recsys.upkeep.config import MaintenanceConfig
from recsys.upkeep.removal import Removal, older_than, size_of

DAY = 86_400.0
ROTATED = re.compile(r".+\.log\.\d+(\.gz)?")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
"""What `recsys.publishing` calls files and folders that are still being written."""


def remove_old_data(settings: Settings, config: DataConfig, removal: Removal) -> None:
    """Remove quarantine files, scratch folders of dead runs and versions beyond retention."""
    removal.require_real_folder(settings.versions, settings.quarantine, settings.work)
    now = time.time()
    quarantine = settings.quarantine.glob("*.csv")
    limit = now - config.keep_quarantine_days * DAY
    removal.remove("quarantine", older_than(quarantine, limit))
    scratch = _entries(settings.work)
    removal.remove("work folders", older_than(scratch, now - ABANDONED_AFTER.total_seconds()))
    sizes = {name: size_of(settings.versions / name) for name in prunable(settings, config)}
    removed = sorted(sizes) if removal.dry_run else prune(settings, config)
    for name in removed:
        removal.count("versions", name, sizes.get(name, 0))


def remove_old_reports(
    settings: Settings, config: MaintenanceConfig, health_days: float, removal: Removal
) -> None:
    """Remove reports by age; in each folder the newest and what is called "latest" stays."""
    removal.require_real_folder(settings.reports)
    now = time.time()
    for folder in _entries(settings.reports):
        removal.require_real_folder(folder)
        days = health_days if folder.name == "health" else config.keep_report_days
        removal.remove("reports", older_than(_all_but_newest(folder), now - days * DAY))


def remove_old_logs(
    settings: Settings, airflow_logs: Path, config: MaintenanceConfig, removal: Removal
) -> None:
    """Remove rotated log files, and the task logs below `airflow_logs`, by age."""
    removal.require_real_folder(settings.logs, airflow_logs)
    now = time.time()
    rotated = [path for path in _files(settings.logs) if ROTATED.fullmatch(path.name)]
    removal.remove("rotated logs", older_than(rotated, now - config.keep_log_days * DAY))
    limit = now - config.airflow.keep_days * DAY
    removal.remove("task logs", older_than(_files(airflow_logs), limit))
    if not removal.dry_run:
        _remove_empty_folders(airflow_logs, limit)


def remove_leftovers(settings: Settings, removal: Removal) -> None:
    """Remove temporary files and folders that killed processes left behind."""
    roots = (settings.home / "data", settings.home / "artifacts", settings.logs, settings.reports)
    removal.require_real_folder(*roots)
    found: list[Path] = []
    for root in roots:
        for path in root.rglob(".*.tmp"):
            inside_another = any(TEMPORARY.fullmatch(parent.name) for parent in path.parents)
            if TEMPORARY.fullmatch(path.name) and not inside_another:
                found.append(path)
    limit = time.time() - ABANDONED_AFTER.total_seconds()
    removal.remove("leftovers", older_than(found, limit))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(folder: Path) -> Iterator[Path]:
    """Files below `folder`; linked folders are not entered."""
    return (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _all_but_newest(folder: Path) -> Iterator[Path]:
    """Dated reports of a folder: the newest of each kind, and files without a date, stay."""
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in _entries(folder):
        if re.search(r"\d{8}", path.name) and path.suffix in {".json", ".html"}:
            kinds[path.suffix].append(path)
    for same in kinds.values():
        yield from sorted(same, key=lambda path: (path.lstat().st_mtime, path.name))[:-1]


def _remove_empty_folders(root: Path, before: float) -> None:
    """Remove folders below `root` that hold nothing and have not changed since `before`.

    A folder that has just lost its last file counts as changed: the next run removes it.
    """
    folders = [path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in sorted(folders, reverse=True):
        if folder.lstat().st_mtime < before and not any(folder.iterdir()):
            folder.rmdir()
