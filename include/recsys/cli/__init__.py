"""The command line: ``python -m recsys --help``.

Exit codes: 0 done, 1 the job or the stack failed, 2 what was given cannot be used.
Results go to standard output, as JSON or as tables, progress and errors to standard error."""

import inspect
import sqlite3
import sys

import typer

from recsys.cli import (
    customers,
    data,
    experiments,
    jobs,
    lists,
    live,
    registry,
    rules,
    settings,
    stack,
    up,
    watching,
)
from recsys.errors import InputError, told
from recsys.orchestration.environment import NOT_SET_UP, is_set_up
from recsys.settings import load_settings
from recsys.storage import StorageError

LOOKING = ("alerts", "deployments", "experiment", "registry", "scheduler", "stats", "tracker")

app = typer.Typer(
    name="recsys",
    help="Run and watch the Vietnamese cosmetics recommender.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def before(context: typer.Context) -> None:
    """Say that there is nothing to look at yet; commands that need the stack fail by themselves."""
    home = load_settings().home
    # Looking makes files in logs/ of its own.
    empty = not any((home / name).exists() for name in ("data", "artifacts"))
    if context.invoked_subcommand in LOOKING and empty and not is_set_up(load_settings()):
        typer.secho(f"{home}: {NOT_SET_UP}", fg=typer.colors.YELLOW, err=True)


def _unwrap(commands: typer.Typer) -> None:
    """Let paragraphs of help fill the screen: Typer would keep the lines of the source."""
    for one in commands.registered_commands:
        paragraphs = (inspect.getdoc(one.callback) or "").split("\n\n")
        one.help = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    for group in commands.registered_groups:
        if group.typer_instance:
            _unwrap(group.typer_instance)


_COMMANDS = (
    *(
        jobs,
        up,
        stack,
        settings,
        watching,
        rules,
        registry,
        live,
        experiments,
        lists,
        customers,
        data,
    ),
)
for commands in _COMMANDS:
    _unwrap(commands.app)
    app.add_typer(commands.app)


def main() -> None:
    """Run the command line; expected errors end as one sentence, not as a traceback."""
    try:
        app()
    except (InputError, RuntimeError, StorageError, OSError, sqlite3.Error) as error:
        typer.secho(f"error: {told(error)}", fg=typer.colors.RED, err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)
