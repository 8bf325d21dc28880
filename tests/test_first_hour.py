"""The newcomer's page, typed by a shell."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.settings import REPOSITORY
from tests.documented import pages

pytestmark = pytest.mark.boots


def test_the_file_of_ones_own_is_checked_as_the_page_shows(tmp_path: Path) -> None:
    text = pages()["docs/first-hour.md"]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    [shown] = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    home = tmp_path / "recsys"
    (home / ".venv").parent.mkdir()
    (home / ".venv").symlink_to(Path(sys.executable).parents[1])
    (home / "recsys").symlink_to(REPOSITORY / "recsys")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(blocks)],
        cwd=home,
        env=os.environ | {"RECSYS_HOME": str(home), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in shown.splitlines():
        assert re.sub(r"\d+ days", "", line) in re.sub(r"\d+ days", "", done.stdout)
    assert "189000.0" in done.stdout  # a price with a dot for thousands
