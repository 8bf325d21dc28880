"""What commands print and where they look: results to standard output, progress beside it."""

import json
import os
from typing import Any, Final

import typer
from rich.console import Console

from recsys.orchestration.environment import read_env
from recsys.settings import Settings

console: Final = Console(stderr=True, highlight=False)


def print_json(content: Any) -> None:
    """A command's result."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def use_stack_variables(settings: Settings) -> None:
    """Take the alert channels' variables and the service's address as the stack has them."""
    stored = read_env(settings)
    os.environ.update(stored)
    if port := stored.get("RECSYS_SERVICE_PORT"):
        os.environ.setdefault("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")
