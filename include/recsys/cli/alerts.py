"""Commands that try out and look back at alerts."""

import json
from typing import Annotated

import typer

from recsys.alerting import AlertManager, Severity
from recsys.settings import load_settings

alerts_app = typer.Typer(no_args_is_help=True, help="Try out and look back at alerts.")


@alerts_app.command("test")
def try_out(
    severity: Annotated[
        Severity, typer.Option(help="Decides the channels: critical goes to all.")
    ] = Severity.CRITICAL,
) -> None:
    """Send a test alert and print what became of it on each channel; 1 if any did not get it."""
    manager = AlertManager(load_settings())
    results = manager.deliver(manager.test_alert(severity))
    typer.echo(json.dumps(results, indent=2))
    if set(results.values()) != {"sent"}:
        raise typer.Exit(1)


@alerts_app.command()
def recent(limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20) -> None:
    """Print the last alerts as JSON, newest first, with what became of each."""
    rows = [
        {
            "at": row["at"].isoformat(timespec="seconds"),
            "alert": row["alert"].name,
            "severity": row["alert"].severity,
            "resolved_notice": row["alert"].resolved,
            "message": row["alert"].message,
            "held_back": row["repeats"],
            "channels": row["deliveries"],
        }
        for row in AlertManager(load_settings()).recent(limit)
    ]
    typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))


def add_commands(app: typer.Typer) -> None:
    """Add the alerts' commands to the command line."""
    app.add_typer(alerts_app, name="alerts", rich_help_panel="Watching")
