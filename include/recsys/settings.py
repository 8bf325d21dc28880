"""Where state lives.

The state root is the repository, or ``$RECSYS_HOME`` when set.
"""

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Cores that this process may use: as many threads as computing work is divided among."""

# Shared files, by the key under which every store has them.
REGISTRY_KEY = "artifacts/cf/registry.json"
HISTORY_KEY = "logs/deployment_history.json"


@dataclass(frozen=True)
class Settings:
    """The state root and every path below it that more than one module uses."""

    home: Path

    # data
    @property
    def raw(self) -> Path:
        return self.home / "data" / "raw"

    @property
    def staging(self) -> Path:
        return self.home / "data" / "staging"

    @property
    def quarantine(self) -> Path:
        return self.home / "data" / "quarantine"

    @property
    def versions(self) -> Path:
        """Every kept data version, one immutable folder each."""
        return self.home / "data" / "versions"

    @property
    def processed(self) -> Path:
        """Symbolic link to the published version's folder."""
        return self.home / "data" / "processed"

    @property
    def embeddings(self) -> Path:
        """Embedding sets, one immutable folder each, and the ``current`` link to the newest.

        Every data version links to it as ``content_based_embeddings``.
        """
        return self.home / "data" / "embeddings"

    @property
    def work(self) -> Path:
        """Scratch space of running jobs, one folder a run; nothing reads it afterwards."""
        return self.home / "data" / "work"

    # models
    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts" / "cf"

    @property
    def registry(self) -> Path:
        return self.home / REGISTRY_KEY

    # what happened
    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def pipeline_db(self) -> Path:
        return self.logs / "pipeline_metrics.db"

    @property
    def training_db(self) -> Path:
        return self.logs / "training_metrics.db"

    @property
    def service_db(self) -> Path:
        return self.logs / "service_metrics.db"

    @property
    def deployment_history(self) -> Path:
        return self.home / HISTORY_KEY

    @property
    def reports(self) -> Path:
        return self.home / "reports"

    def config_file(self, name: str) -> Path:
        """The path of configuration file `name`: the state root's own, else the repository's."""
        own = self.home / "config" / name
        return own if own.exists() else REPOSITORY / "config" / name


def load_settings(home: str | Path | None = None) -> Settings:
    """Settings for `home`, else ``$RECSYS_HOME``, else the repository."""
    root = home or os.environ.get("RECSYS_HOME") or REPOSITORY
    return Settings(Path(root).expanduser().resolve())
