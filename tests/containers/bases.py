"""Images under the names that Dockerfile and docker-compose.yaml use, from Debian's packages: on
machines without a registry the product's own files are started as they are."""

import functools
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from recsys.settings import REPOSITORY
from tests.containers.engine import Engine

FOLDER = Path(__file__).parent / "bases"
MIRROR = "http://deb.debian.org/debian"
LABEL = "recsys.packages"
TARGETS = {
    "postgres": "postgres",
    "valkey": "valkey",
    "proxy": "nginx",
    "mail": "mail",
    "prometheus": "prometheus",
    "alertmanager": "alertmanager",
}
"""Which stage of bases/Dockerfile stands in for the image of which of compose's services."""
SUITES = {
    "bookworm": ["python3", "python3-venv", "ca-certificates"],
    "trixie": [
        "postgresql-17",
        "valkey-server",
        "valkey-tools",
        "python3-aiosmtpd",
        "netcat-openbsd",
        "prometheus",
        "prometheus-alertmanager",
        "wget",
    ],
}


def make_bases(engine: Engine) -> None:
    """A minute and a half from nothing, seconds where the engine has them: what has not changed
    must stay the same image, or all that is built from it is built again."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(functools.partial(_make_suite, engine, engine.images()), SUITES))
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder) / "context"
        shutil.copytree(FOLDER, context)
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
        for name, target in wanted_names().items():
            engine.docker("build", "--target", target, "--tag", name, str(context))


def wanted_names() -> dict[str, str]:
    """The images that our files name, each with the stage that stands in for it."""
    services = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text())["services"]
    names = {services[service]["image"]: target for service, target in TARGETS.items()}
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    python = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.M)
    assert python is not None
    return {python[1]: "python", **names}


def _make_suite(engine: Engine, images: dict[str, dict[str, Any]], suite: str) -> None:
    """A minimal Debian with the packages of all stand-ins from it."""
    name, packages = f"recsys-bases:{suite}", ",".join(SUITES[suite])
    if images.get(name, {}).get("labels", {}).get(LABEL) == packages:
        return
    command = ["mmdebstrap", "--quiet", "--variant=apt", "--include", packages]
    # A mirror may stand still: what it signed is what we want, however long ago that was.
    command += ["--aptopt=Acquire::Check-Valid-Until false"]
    command += ["--dpkgopt=force-unsafe-io"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "man", "locale")]
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "root.tar"
        subprocess.run([*command, suite, str(archive), MIRROR], check=True)
        engine.docker("import", "--change", f"LABEL {LABEL}={packages}", str(archive), name)
