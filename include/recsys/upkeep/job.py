"""The steps of the job `maintenance`; each returns ``{area: {count, freed_bytes, examples}}``."""

from collections.abc import Iterable, Mapping
from typing import Any

from recsys import request_log
from recsys.config import load_config
from recsys.data.config import DataConfig
from recsys.health.config import HealthConfig
from recsys.orchestration.environment import airflow_home
from recsys.settings import Settings
from recsys.upkeep.airflow_records import clean_airflow_records
from recsys.upkeep.config import MaintenanceConfig
from recsys.upkeep.databases import remove_old_rows
from recsys.upkeep.files import (
    remove_leftovers,
    remove_old_data,
    remove_old_logs,
    remove_old_reports,
)
from recsys.upkeep.models import remove_old_models
from recsys.upkeep.removal import Removal


def clean_models(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove models that nothing refers to. Raises `InputError` if that cannot be known."""
    removal = Removal(settings, dry_run=dry_run)
    remove_old_models(settings, load_config(settings, MaintenanceConfig).models, removal)
    return removal.summary()


def clean_data(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove data versions beyond retention, old quarantine files, scratch and leftovers."""
    removal = Removal(settings, dry_run=dry_run)
    remove_old_data(settings, load_config(settings, DataConfig), removal)
    remove_leftovers(settings, removal)
    return removal.summary()


def clean_records(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove old reports, logs, requests and run records."""
    config = load_config(settings, MaintenanceConfig)
    removal = Removal(settings, dry_run=dry_run)
    health_days = load_config(settings, HealthConfig).reports.keep_days
    remove_old_reports(settings, config, health_days, removal)
    remove_old_logs(settings, airflow_home(settings) / "logs", config, removal)
    request_days = request_log.load_retention(settings).retention_days
    remove_old_rows(settings, request_days, config.keep_run_days, removal)
    return removal.summary()


def clean_airflow(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove Airflow's old records. Raises `CleaningError` while its database is busy."""
    removal = Removal(settings, dry_run=dry_run)
    clean_airflow_records(settings, load_config(settings, MaintenanceConfig).airflow, removal)
    return removal.summary()


def summarise(parts: Iterable[Mapping[str, Any]], *, dry_run: bool) -> dict[str, Any]:
    """``{dry_run, freed_bytes, removed: {area: ...}}`` of all steps together."""
    removed = {area: entry for part in parts for area, entry in part.items()}
    freed = sum(entry["freed_bytes"] for entry in removed.values())
    return {"dry_run": dry_run, "freed_bytes": freed, "removed": removed}
