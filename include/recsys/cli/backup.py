"""Commands that save a state root to one file, and make one from it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from recsys.settings import load_settings


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; must not exist.")],
) -> None:
    """Save data, models, registry, history, reports and configuration to one file."""
    from recsys.upkeep.backup.writing import write_backup

    typer.echo(json.dumps(write_backup(load_settings(), file), indent=2))


def restore(
    file: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
) -> None:
    """Make an empty state root ($RECSYS_HOME) what it was when the backup was made."""
    from recsys.upkeep.backup.reading import restore_backup

    typer.echo(json.dumps(restore_backup(load_settings(), file), indent=2))


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(rich_help_panel="Data")(backup)
    app.command(rich_help_panel="Data")(restore)
