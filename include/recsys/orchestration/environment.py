"""The environment that every process of the stack runs in, and the secrets it needs."""

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from string import Template
from typing import Final

from dotenv import dotenv_values
from pydantic import Field

from recsys.config import ConfigError, ConfigModel, read_document
from recsys.orchestration.client import AirflowClient
from recsys.publishing import atomic_path, write_json
from recsys.settings import REPOSITORY, Settings

ENV_FILE = ".env"
DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
NOT_SET_UP = "nothing is set up here yet; run `make up` first"
PRIVATE = 0o600
VARIABLES: Final = dotenv_values(Path(__file__).with_name("stack.env"), interpolate=False)
"""The environment of the stack, with blanks."""

GENERATED: dict[str, Callable[[], str]] = {
    "RECSYS_AIRFLOW_PASSWORD": partial(secrets.token_urlsafe, 12),
    "RECSYS_ADMIN_TOKEN": partial(secrets.token_urlsafe, 64),
    "AIRFLOW__API_AUTH__JWT_SECRET": partial(secrets.token_urlsafe, 64),
    "AIRFLOW__API__SECRET_KEY": partial(secrets.token_urlsafe, 64),
    "AIRFLOW__CORE__FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
}
PORTS = {
    "AIRFLOW_PORT": 8080,
    "RECSYS_SERVICE_PORT": 8000,
    "AIRFLOW_EXECUTION_PORT": 8081,
    "AIRFLOW_WORKER_LOG_PORT": 8793,
    "AIRFLOW_TRIGGERER_LOG_PORT": 8794,
}


class StackError(RuntimeError):
    """The stack cannot be started, does not come up, or a command of Airflow's fails; the text says
    what to do, or what the command said last."""


def airflow_home(settings: Settings) -> Path:
    """Airflow's own files: metadata database, task logs, process control."""
    return settings.home / ".airflow"


def read_env(settings: Settings) -> dict[str, str]:
    """The variables of ``.env`` with the process environment over them; empty ones left out. Values
    are taken as they stand: ``${`` may be part of a password."""
    path = settings.home / ENV_FILE
    try:
        stored = {"RECSYS_AIRFLOW_USER": "admin", **dotenv_values(path, interpolate=False)}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    merged = {**stored, **{name: os.environ[name] for name in stored if os.environ.get(name)}}
    return {name: value for name, value in merged.items() if value}


def is_run_by_others() -> bool:
    """Whether Airflow and the service run elsewhere, as in a cluster: there the environment says it
    all, and there is no stack whose settings to work out."""
    return bool(os.environ.get("RECSYS_AIRFLOW_URL"))


def is_set_up(settings: Settings) -> bool:
    """Whether there was a first start."""
    return is_run_by_others() or (settings.home / ENV_FILE).exists()


def ensure_env(settings: Settings) -> dict[str, str]:
    """Create ``.env`` from ``.env.example`` if it is missing, generate absent secrets into it,
    and return what `read_env` does."""
    path = settings.home / ENV_FILE
    template = path if path.exists() else REPOSITORY / ".env.example"
    lines = template.read_text(encoding="utf-8").splitlines()
    filled, absent = [], dict(GENERATED)
    for line in lines:
        name, separator, value = line.partition("=")
        make = absent.pop(name, None) if separator else None
        filled.append(f"{name}={make()}" if make and not value.strip() else line)
    filled += [f"{name}={make()}" for name, make in absent.items()]
    if not path.exists() or filled != lines:
        _write_private(path, "\n".join(filled) + "\n")
    path.chmod(PRIVATE)
    return read_env(settings)


def stack_environment(settings: Settings) -> dict[str, str]:
    """The whole environment of a stack process: the caller's, ``.env``, and Airflow's settings."""
    env = read_env(settings)
    if missing := sorted(GENERATED.keys() - env.keys()):
        if not is_set_up(settings):
            raise ConfigError(f"{settings.home}: {NOT_SET_UP}")
        raise ConfigError(f"{settings.home / ENV_FILE}: no value for {', '.join(missing)}")
    paths = [str(REPOSITORY / "include"), str(REPOSITORY), os.environ.get("PYTHONPATH")]
    blanks = {name: _port(env, name, default) for name, default in PORTS.items()}
    blanks |= {"STATE_ROOT": str(settings.home), "REPOSITORY": str(REPOSITORY)}
    blanks["RECSYS_AIRFLOW_USER"] = env["RECSYS_AIRFLOW_USER"]
    computed = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        **{name: Template(text or "").substitute(blanks) for name, text in VARIABLES.items()},
    }
    # What the caller sets for Airflow explicitly wins: it is how a deployment differs.
    overrides = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")}
    merged = {**os.environ, **env, **computed, **overrides}
    if merged[DATABASE].startswith("sqlite"):
        merged.setdefault(
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS", "recsys.database.SAVEPOINTS"
        )
    return merged


def write_passwords(settings: Settings) -> None:
    """The file in which Airflow's simple auth manager looks passwords up."""
    env = read_env(settings)
    content = json.dumps({env["RECSYS_AIRFLOW_USER"]: env["RECSYS_AIRFLOW_PASSWORD"]})
    _write_private(airflow_home(settings) / "passwords.json", content)


class Pool(ConfigModel):
    """How many tasks of a kind run at a time."""

    slots: int = Field(ge=1, le=1000)
    description: str = ""
    include_deferred: bool = False


def load_pools(settings: Settings) -> dict[str, Pool]:
    """The state root's pools over the shipped ones. Raises `ConfigError` with file and key."""
    document = read_document(settings, "pools.json")
    return {
        name: document.validate(Pool, pool, at=(name,)) for name, pool in document.content.items()
    }


def write_pools(settings: Settings, path: Path) -> None:
    """One file for ``airflow pools import``. Raises as `load_pools` does."""
    write_json(path, {name: pool.model_dump() for name, pool in load_pools(settings).items()})


def run_airflow(env: Mapping[str, str], *arguments: str, timeout: float | None = None) -> str:
    """What a command of Airflow's says. Raises `StackError` if it fails."""
    result = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "airflow", *arguments],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        umask=0o027,
        timeout=timeout,
        check=False,
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.strip().splitlines()[-15:])
        raise StackError(f"airflow {' '.join(arguments)} failed:\n{tail}")
    return result.stdout


def _port(env: dict[str, str], name: str, default: int) -> str:
    text = env.get(name, str(default))
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"{name}={text!r}: expected a port between 1 and 65535")
    return str(int(text))


def _write_private(path: Path, content: str) -> None:
    with atomic_path(path) as temporary:
        temporary.touch(mode=PRIVATE)
        temporary.write_text(content, encoding="utf-8")


def commands_environment(settings: Settings) -> dict[str, str]:
    """What commands know of Airflow and the service."""
    return dict(os.environ) if is_run_by_others() else stack_environment(settings)


def connect(settings: Settings) -> AirflowClient:
    """A client of this state root's Airflow."""
    env = commands_environment(settings)
    url, user, password = (env[f"RECSYS_AIRFLOW_{name}"] for name in ("URL", "USER", "PASSWORD"))
    return AirflowClient(url, user, password, env.get("AIRFLOW__API__BASE_URL"))
