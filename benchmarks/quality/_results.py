"""Figures that are kept: what was measured, by whom, where and when, in ``benchmarks/results``.

A file holds one row a model, and each row says how it was made, so that one model can be measured
again, or another one added, without the others."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from recsys.errors import InputError
from recsys.publishing import write_json
from recsys.settings import REPOSITORY

Row = dict[str, Any]


def provenance(benchmark: str, configuration: Mapping[str, Any], seeds: Sequence[int]) -> Row:
    """What a row says of how it was made."""
    return {
        "benchmark": benchmark,
        "configuration": dict(configuration),
        "seeds": list(seeds),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }


def read_rows(path: Path | None, data: Mapping[str, Any]) -> dict[str, Row]:
    """The rows that `path` has of earlier runs, none if it does not exist yet. Raises `InputError`
    if they were measured on other `data`."""
    if path is None or not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        rows: dict[str, Row] = kept["models"]
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path}: holds no figures; expected what an earlier run wrote") from None
    if kept.get("data") != dict(data):
        raise InputError(
            f"{path}: has figures of {kept.get('data')}, and these are of {dict(data)}; "
            "name another file"
        )
    return rows


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)


def over_seeds(runs: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Means of the figures of all `runs`, and their standard deviation where there are several."""
    means = {name: round(mean(run[name] for run in runs), 6) for name in runs[0]}
    if len(runs) < 2:
        return means, {}
    names = [name for name in means if not name.endswith(("_low", "_high"))]
    return means, {name: round(stdev(run[name] for run in runs), 6) for name in names}


def _commit() -> str:
    """The short hash, with a ``+`` if files differ from it; empty outside a repository."""

    def said(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    return said("rev-parse", "--short", "HEAD") + "+" * bool(said("status", "--porcelain", "-uno"))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
