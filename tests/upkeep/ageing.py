"""Makes files look as old as a test needs them."""

import os
import time
from pathlib import Path

DAY = 86_400


def aged(path: Path, days: float) -> Path:
    """Let `path`, and everything below it, have changed for the last time `days` ago."""
    moment = time.time() - days * DAY
    below = sorted(path.rglob("*"), reverse=True) if path.is_dir() else []
    for entry in [*below, path]:
        os.utime(entry, (moment, moment), follow_symlinks=False)
    return path


def write(path: Path, size: int = 1000, days: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return aged(path, days)
