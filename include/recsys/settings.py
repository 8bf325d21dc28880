"""Where state lives and how configuration files become typed objects.

The state root is the repository, or ``$RECSYS_HOME`` when set. A file in ``<root>/config``
wins over the file of the same name in the repository's ``config/``, so that a deployment
overrides only what differs.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Cores that this process may use: as many threads as computing work is divided among."""

# Shared files, by the key under which every store has them.
REGISTRY_KEY = "artifacts/cf/registry.json"
HISTORY_KEY = "logs/deployment_history.json"


class ConfigError(InputError):
    """A configuration file is missing or holds a bad value; the text names file and key."""


class ConfigModel(BaseModel):
    """Base of every typed configuration section: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


ConfigT = TypeVar("ConfigT", bound=BaseModel)


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

    def read_config(self, name: str, model: type[ConfigT]) -> ConfigT:
        """Parse and validate ``config/<name>`` (YAML or JSON).

        Raises
        ------
        ConfigError
            If the file is missing or unreadable, or a key is unknown or has a bad value.
        """
        path = self.config_file(name)
        return validate_config(read_mapping(path), model, path)


def load_settings(home: str | Path | None = None) -> Settings:
    """Settings for `home`, else ``$RECSYS_HOME``, else the repository."""
    root = home or os.environ.get("RECSYS_HOME") or REPOSITORY
    return Settings(Path(root).expanduser().resolve())


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. Raises `ConfigError` naming the file otherwise."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: the file does not exist") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    return content


def validate_config(content: Mapping[str, Any], model: type[ConfigT], path: Path) -> ConfigT:
    """`content` as a `model`. Raises `ConfigError` with one line for each bad key."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(str(part) for part in problem['loc']) or '(file)'}: "
            f"{problem['msg']} (got {problem['input']!r})"
            for problem in error.errors()
        ]
        raise ConfigError("\n".join(problems)) from None
