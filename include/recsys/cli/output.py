"""What commands print and where they look: results to standard output, progress beside it."""

import json
import os
from datetime import datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer
from rich.console import Console

from recsys.orchestration.environment import read_env
from recsys.settings import Settings

console: Final = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_json(content: Any) -> None:
    """A command's result."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def duration(seconds: float | None) -> str | None:
    """``7.3 s``, ``4 min 10 s`` or ``2 h 5 min``."""
    if seconds is None:
        return None
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"


def local_time(moment: str | None, zone: ZoneInfo) -> str | None:
    """A moment as records have it, in the schedule's time zone."""
    return moment and f"{datetime.fromisoformat(moment).astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def use_stack_variables(settings: Settings) -> None:
    """Take the alert channels' variables and the service's address as the stack has them."""
    stored = read_env(settings)
    os.environ.update(stored)
    if port := stored.get("RECSYS_SERVICE_PORT"):
        os.environ.setdefault("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")
