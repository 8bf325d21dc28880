"""Where state lives: below the repository, or below ``$RECSYS_HOME`` when that is set."""

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Cores that this process may use: as many threads as computing work is divided among."""

# Shared files, by the key under which every store has them.
REGISTRY_KEY = "artifacts/cf/registry.json"
HISTORY_KEY = "logs/deployment_history.json"
EXPERIMENTS_KEY = "artifacts/experiments.json"


class _Below:
    """The path of a key below the state root; of the class itself, the key as a relative path."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __get__(self, settings: "Settings | None", owner: type) -> Path:
        return Path(self._key) if settings is None else settings.home / self._key


@dataclass(frozen=True)
class Settings:
    """The state root and every path below it that more than one module uses."""

    home: Path

    raw = _Below("data/raw")
    staging = _Below("data/staging")
    quarantine = _Below("data/quarantine")
    versions = _Below("data/versions")
    """Every kept data version, one immutable folder each."""
    processed = _Below("data/processed")
    """Symbolic link to the published version's folder."""
    embeddings = _Below("data/embeddings")
    """Embedding sets, one immutable folder each, and the ``current`` link to the newest; every data
    version links to it as ``content_based_embeddings``."""
    work = _Below("data/work")
    """Scratch space of running jobs, one folder a run; nothing reads it afterwards."""

    outcomes = _Below("data/outcomes")
    """What became of the served lists, a folder a day."""

    artifacts = _Below("artifacts/cf")
    registry = _Below(REGISTRY_KEY)

    logs = _Below("logs")
    pipeline_db = _Below("logs/pipeline_metrics.db")
    training_db = _Below("logs/training_metrics.db")
    service_db = _Below("logs/service_metrics.db")
    outcomes_db = _Below("logs/outcome_metrics.db")
    deployment_history = _Below(HISTORY_KEY)
    reports = _Below("reports")

    @property
    def config(self) -> Path:
        """The folder of the state root's own settings: ``config/local``, which git leaves alone, if
        there is one."""
        local = self.home / "config" / "local"
        return local if local.is_dir() else self.home / "config"

    @property
    def config_folders(self) -> tuple[Path, ...]:
        """Folders of settings; what an earlier one says holds."""
        folders = (self.config, self.home / "config", REPOSITORY / "config")
        return tuple(dict.fromkeys(folders))

    def config_file(self, name: str) -> Path:
        """The path of configuration file `name`: the state root's own, else the repository's."""
        files = [folder / name for folder in self.config_folders]
        return next((file for file in files if file.exists()), files[-1])


def load_settings(home: str | Path | None = None) -> Settings:
    """Settings for `home`, else ``$RECSYS_HOME``, else the repository."""
    root = home or os.environ.get("RECSYS_HOME") or REPOSITORY
    return Settings(Path(root).expanduser().resolve())
