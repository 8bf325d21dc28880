"""Commands that read and repair the record of runs."""

import json
from typing import Annotated

import typer

from recsys.settings import load_settings
from recsys.tracking import PipelineTracker

tracker_app = typer.Typer(no_args_is_help=True, help="Repair the record of runs.")


def stats(days: Annotated[int, typer.Option(min=1, help="Days to look back.")] = 7) -> None:
    """Print pipeline statistics as JSON."""
    typer.echo(json.dumps(PipelineTracker(load_settings().pipeline_db).get_stats(days), indent=2))


@tracker_app.command()
def reconcile(
    days: Annotated[int, typer.Option(min=1, help="Days of runs to compare.")] = 7,
) -> None:
    """Make the record agree with what Airflow knows of its runs."""
    from recsys.orchestration.environment import connect
    from recsys.orchestration.reconcile import reconcile_runs

    settings = load_settings()
    summary = reconcile_runs(connect(settings), PipelineTracker(settings.pipeline_db), days)
    typer.echo(json.dumps(summary, indent=2))


@tracker_app.command()
def cleanup(
    hours: Annotated[float, typer.Option(help="Close runs that are older than this.")] = 24,
) -> None:
    """Close runs that are recorded as running and whose process is long gone."""
    closed = PipelineTracker(load_settings().pipeline_db).cleanup_stale_runs(hours)
    typer.echo(json.dumps({"closed": closed}))


def add_commands(app: typer.Typer) -> None:
    """Add the tracker's commands to the command line."""
    app.command(rich_help_panel="Watching")(stats)
    app.add_typer(tracker_app, name="tracker", rich_help_panel="Watching")
