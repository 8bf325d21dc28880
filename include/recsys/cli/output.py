"""What commands print and where they look: results to standard output, progress beside it."""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Column, Table

from recsys.orchestration.environment import read_env
from recsys.settings import Settings

console: Final = Console(stderr=True, highlight=False)


def print_json(content: Any) -> None:
    """A command's result."""
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))


def print_table(
    title: str, columns: Sequence[str], *sections: Iterable[Sequence[object | None]]
) -> None:
    """A result for people: rows by section; a cell of None is empty."""
    # What does not fit goes on in the next line: half a time or a name is none.
    table = Table(*(Column(name, overflow="fold") for name in columns), title=title)
    for rows in sections:
        for row in rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        table.add_section()
    Console(highlight=False).print(table)


def use_stack_variables(settings: Settings) -> None:
    """Take the alert channels' variables and the service's address as the stack has them."""
    stored = read_env(settings)
    os.environ.update(stored)
    if port := stored.get("RECSYS_SERVICE_PORT"):
        os.environ.setdefault("RECSYS_SERVICE_URL", f"http://127.0.0.1:{port}")
