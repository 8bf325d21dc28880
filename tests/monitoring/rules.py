"""The rules of ``monitoring/``, and what promtool says of them."""

import json
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.settings import REPOSITORY

MONITORING = REPOSITORY / "monitoring"
RULES = MONITORING / "rules"
_UNITS = {"s": 1, "m": 60, "h": 3600}


def program(name: str) -> str:
    """A program of the distribution's packages; skips where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: run make cluster-packages")
    return found


def alert_rules() -> dict[str, dict[str, Any]]:
    """The alert rules by name."""
    groups = yaml.safe_load((RULES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def waits(rule: dict[str, Any]) -> timedelta:
    """The ``for`` of a rule."""
    found = re.fullmatch(r"(\d+)([smh])", rule.get("for", "0s"))
    assert found
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def promtool_test(folder: Path, tests: list[dict[str, Any]], interval: str = "1m") -> None:
    """Run unit tests of the rules. What is wrong is in the error."""
    document = {
        "rule_files": [str(RULES / "recording.yml"), str(RULES / "alerts.yml")],
        "evaluation_interval": interval,
        "tests": tests,
    }
    path = folder / "tests.yml"
    path.write_text(json.dumps(document), encoding="utf-8")
    command = [program("promtool"), "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
