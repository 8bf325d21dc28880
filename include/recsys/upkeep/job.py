"""The steps of the job `maintenance`; each returns ``{area: {count, freed_bytes, examples}}``.

What may go is declared by the area that it belongs to; here all declarations come together."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from recsys.comments.scorers import scorer_retentions
from recsys.config import load_config
from recsys.content import ContentConfig
from recsys.content.embeddings import set_retention
from recsys.data.config import DataConfig
from recsys.data.retention import prune
from recsys.data.versions import list_versions, manifest_of
from recsys.errors import InputError
from recsys.health.reports import report_retention
from recsys.logs import log_retention
from recsys.orchestration.environment import airflow_home
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.daily import outcome_retentions
from recsys.outcomes.partitions import prune_served
from recsys.publishing import leftovers
from recsys.request_log import request_retention
from recsys.retention import ABANDONED_AFTER, Removal, Retention
from recsys.settings import Settings
from recsys.tracking import run_retention
from recsys.training.fits import fit_retention
from recsys.upkeep import MaintenanceConfig
from recsys.upkeep.airflow_records import clean_airflow_records
from recsys.upkeep.models import remove_old_models


def clean_models(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove models that nothing refers to. Raises `InputError` if that cannot be known."""
    removal = Removal(settings, dry_run=dry_run)
    return remove_old_models(settings, load_config(settings, MaintenanceConfig).models, removal)


def clean_data(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove data versions, embedding sets and scorers beyond retention, old served lists, outcomes
    and quarantine files, scratch and leftovers."""
    removal = Removal(settings, dry_run=dry_run)
    prune(settings, load_config(settings, DataConfig), removal)
    prune_served(settings, load_config(settings, OutcomesConfig), removal)
    keep_sets = load_config(settings, ContentConfig).keep_sets
    roots = (settings.home / "data", settings.home / "artifacts", settings.logs, settings.reports)
    return removal.execute(
        [
            set_retention(settings, keep_sets),
            *scorer_retentions(settings, lambda: _scorers_in_use(settings)),
            *outcome_retentions(settings),
            fit_retention(settings),
            *(Retention("leftovers", at, partial(leftovers, at), ABANDONED_AFTER) for at in roots),
        ]
    )


def clean_records(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove old reports, logs, requests and run records."""
    config = load_config(settings, MaintenanceConfig)
    task_logs, task_log_age = airflow_home(settings) / "logs", timedelta(config.airflow.keep_days)
    folders = [path for path in sorted(settings.reports.glob("*")) if path.name != "health"]
    summary = Removal(settings, dry_run=dry_run).execute(
        [
            report_retention(settings),
            *(_dated_reports(folder, timedelta(config.keep_report_days)) for folder in folders),
            log_retention(settings, config.keep_log_days),
            Retention("task logs", task_logs, partial(_files_below, task_logs), task_log_age),
            request_retention(settings),
            run_retention(settings),
        ]
    )
    if not dry_run:
        _remove_empty_folders(task_logs, task_log_age)
    return summary


def clean_airflow(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove Airflow's old records. Raises `StackError` while its database is busy."""
    removal = Removal(settings, dry_run=dry_run)
    clean_airflow_records(settings, load_config(settings, MaintenanceConfig).airflow, removal)
    return removal.execute([])


def summarise(parts: Iterable[Mapping[str, Any]], *, dry_run: bool) -> dict[str, Any]:
    """``{dry_run, freed_bytes, removed: {area: ...}}`` of all steps together."""
    removed = {area: entry for part in parts for area, entry in part.items()}
    freed = sum(entry["freed_bytes"] for entry in removed.values())
    return {"dry_run": dry_run, "freed_bytes": freed, "removed": removed}


def _scorers_in_use(settings: Settings) -> set[str]:
    """Those that scored the versions that are kept."""
    found = set()
    for version_id in list_versions(settings):
        with contextlib.suppress(InputError, FileNotFoundError):
            found.add(str(manifest_of(settings, version_id).get("comment_scorer")))
    return found


def _dated_reports(folder: Path, age: timedelta) -> Retention:
    """Dated reports of a folder; the newest of each kind and language stays."""

    def found() -> list[Path]:
        return [
            path
            for path in folder.glob("*")
            if re.search(r"\d{8}", path.name) and path.suffix in {".json", ".html"}
        ]

    def newest(paths: list[Path]) -> list[Path]:
        by_age = sorted(paths, key=lambda path: (path.lstat().st_mtime, path.name))
        return list({path.name.partition(".")[2]: path for path in by_age}.values())

    return Retention("reports", folder, found, age, newest)


def _files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() or path.is_symlink()]


def _remove_empty_folders(root: Path, age: timedelta) -> None:
    """Remove folders below `root` that hold nothing and have not changed for so long. One that has
    just lost its last file has: the next run removes it."""
    before = (datetime.now(UTC) - age).timestamp()
    folders = [path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in sorted(folders, reverse=True):
        if folder.lstat().st_mtime < before and not any(folder.iterdir()):
            folder.rmdir()
