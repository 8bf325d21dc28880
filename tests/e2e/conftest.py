"""Fixtures of the tests that run the whole stack."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def home_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "home"


@pytest.fixture(scope="module")
def stopped_afterwards(home_folder: Path) -> Iterator[Path]:
    """The module's home; whatever runs in it at the end is stopped."""
    yield home_folder
    env = {**os.environ, "RECSYS_HOME": str(home_folder)}
    subprocess.run(
        [sys.executable, "-m", "recsys", "scheduler", "stop"], env=env, timeout=120, check=True
    )
