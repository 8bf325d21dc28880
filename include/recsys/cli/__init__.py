"""The command line: ``python -m recsys --help``.

Exit codes: 0 done, 1 the job or the stack failed, 2 what was given cannot be used.
Results go to standard output as JSON, progress and errors to standard error.
"""

import sys

import typer

from recsys.cli import airflow, data, jobs, registry, stack, watching
from recsys.errors import InputError
from recsys.storage import StorageError

app = typer.Typer(
    name="recsys",
    help="Run and watch the Vietnamese cosmetics recommender.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (jobs, airflow, watching, registry, stack, data):
    commands.add_commands(app)


def main() -> None:
    """Run the command line; expected errors end as one sentence, not as a traceback."""
    try:
        app()
    except InputError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(2)
    except (RuntimeError, StorageError) as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
