"""When older code's version may be merged with: never."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.data.versions import current_version
from recsys.refresh.plan import code_version, shaping_files
from recsys.settings import REPOSITORY, Settings
from tests.data.shop import refresh, row, write_shop

PACKAGE = REPOSITORY / "include" / "recsys"
IMPORTED = """
import sys
from pathlib import Path
from recsys.refresh import run_refresh
import recsys.spark.refresh
print("\\n".join(module.__file__ for name, module in sys.modules.items()
                if name.split(".")[0] == "recsys"))
"""
REFRESH = """
from datetime import UTC, datetime, timedelta
from recsys.refresh import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import load_settings
end = datetime(2025, 3, 1, tzinfo=UTC)
print(run_refresh(load_settings(), DataInterval(end - timedelta(days=1), end))["strategy"])
"""


def python(code: str, package: Path, home: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "RECSYS_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def own_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its configuration, which a test may change."""
    root = tmp_path_factory.mktemp("code")
    package = root / "include" / "recsys"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPOSITORY / "config", root / "config")
    return package


def test_all_that_a_refresh_loads_shapes_its_version(tmp_path):
    """Both engines, what they import inside functions, and the packages around it."""
    loaded = {Path(line) for line in python(IMPORTED, PACKAGE, tmp_path)}
    names = {path.relative_to(PACKAGE).as_posix() for path in shaping_files()}
    assert {path.relative_to(PACKAGE).as_posix() for path in loaded} <= names | {"__init__.py"}
    assert {
        "text.py",
        "schema.py",
        "comments/job.py",
        "spark/refresh.py",
        "data/cleaning.py",
    } <= names
    assert not [name for name in names if name.startswith(("models/", "cli/", "orchestration/"))]


def test_changed_code_leads_to_a_full_refresh(own_code, tmp_path):
    settings = Settings(tmp_path)
    write_shop(settings, [row("u1"), row("u2", 2)])
    assert python(REFRESH, own_code, tmp_path) == ["full"]
    write_shop(settings, [row("u1"), row("u2", 2), row("u3")])
    with (own_code / "text.py").open("a") as file:
        file.write("# changed\n")
    assert python(REFRESH, own_code, tmp_path) == ["full"]


@pytest.mark.parametrize("name", [path.relative_to(PACKAGE) for path in shaping_files()], ids=str)
def test_every_module_that_shapes_a_version_counts(own_code, name):
    before = code_version(own_code)
    code_version.cache_clear()
    with (own_code / name).open("a") as file:
        file.write("# changed\n")
    assert code_version(own_code) != before


def test_an_incremental_run_says_what_it_merged_with(settings):
    write_shop(settings, [row("u1"), row("u2", 2)])
    assert refresh(settings)["changes"]["merged_with"] == 0
    write_shop(settings, [row("u1"), row("u2", 2), row("u3")])
    summary = refresh(settings)
    assert (summary["strategy"], summary["changes"]["merged_with"]) == ("incremental", 2)
    assert current_version(settings).manifest["changes"]["merged_with"] == 2
