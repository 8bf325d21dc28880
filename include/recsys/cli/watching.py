"""Commands that look back at runs and alerts, and repair the record of runs."""

from typing import Annotated

import typer

from recsys.alerting import AlertManager, Severity
from recsys.alerting.message import DEFAULT_CHANNELS
from recsys.cli.output import AsJson, duration, print_json, use_stack_variables
from recsys.cli.tables import print_table
from recsys.errors import InputError
from recsys.exporter.server import PORT, STATSD_PORT, serve
from recsys.logs import log_to_output
from recsys.orchestration.environment import connect
from recsys.orchestration.mirror import reconcile_runs
from recsys.schedule import load_log_format, load_zone
from recsys.settings import load_settings
from recsys.tracking import PipelineTracker, tracker_database

LONGEST_HOURS = 24 * 365
Days = Annotated[int, typer.Option(min=1, max=36_500, help="Days to look back.")]

app = typer.Typer()
alerts_app = typer.Typer(no_args_is_help=True, help="Try out and look back at alerts.")
tracker_app = typer.Typer(no_args_is_help=True, help="Repair the record of runs.")
app.add_typer(tracker_app, name="tracker", rich_help_panel="Watching")
app.add_typer(alerts_app, name="alerts", rich_help_panel="Watching")


@alerts_app.command("test")
def try_out(
    severity: Annotated[
        Severity, typer.Option(help="Decides the channels: critical goes to all.")
    ] = Severity.CRITICAL,
) -> None:
    """Send a test alert and print what became of it on each channel; 1 if any did not get it."""
    settings = load_settings()
    use_stack_variables(settings)
    manager = AlertManager(settings)
    results = manager.deliver(manager.test_alert(), DEFAULT_CHANNELS[severity])
    print_json(results)
    if set(results.values()) != {"sent"}:
        raise typer.Exit(1)


@alerts_app.command()
def recent(limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20) -> None:
    """Print the last alerts as JSON, newest first, with what became of each."""
    rows = [
        {
            "at": row["at"].isoformat(timespec="seconds"),
            "alert": row["alert"].name,
            "severity": row["alert"].severity,
            "resolved_notice": row["alert"].resolved,
            "message": row["alert"].message,
            "facts": dict(row["alert"].facts),
            "link": row["alert"].link,
            "held_back": row["repeats"],
            "channels": row["deliveries"],
        }
        for row in AlertManager(load_settings()).recent(limit)
    ]
    print_json(rows)


@app.command(rich_help_panel="Watching")
def stats(days: Days = 7, as_json: AsJson = False) -> None:
    """Show how often each pipeline ran, failed, and how long it takes."""
    found = PipelineTracker().get_stats(days)
    if as_json:
        print_json(found)
        return
    columns = ("pipeline", "succeeded", "failed", "running", "cancelled", "success rate", "mean")
    rows = [
        (
            name,
            *(one[state] or None for state in ("success", "failed", "running", "cancelled")),
            None if one["success_rate"] is None else f"{one['success_rate']:.1%}",
            duration(one["avg_duration_seconds"]),
        )
        for name, one in found["stats_by_pipeline"].items()
    ]
    below = {"cancelled": "running", "success rate": "succeeded"}
    print_table(f"Runs of the last {days} days", columns, rows, below=below)


@app.command(rich_help_panel="Watching")
def exporter(
    host: Annotated[str, typer.Option(help="Where to listen; this machine alone by default.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of /metrics.")] = PORT,
    statsd_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of Airflow's StatsD packets (UDP).")
    ] = STATSD_PORT,
) -> None:
    """Show Prometheus jobs, freshness, quality, outcomes, alerts and Airflow, until it is ended."""
    settings = load_settings()
    log_to_output(load_log_format(settings), load_zone(settings))
    serve(settings, host, port, statsd_port)


@tracker_app.command()
def reconcile(days: Days = 7) -> None:
    """Make the record agree with what Airflow knows of its runs."""
    settings = load_settings()
    tracker = PipelineTracker(tracker_database(settings))
    print_json(reconcile_runs(connect(settings), tracker, days))


@tracker_app.command()
def cleanup(
    hours: Annotated[float, typer.Option(help="Close runs that are older than this.")] = 24,
) -> None:
    """Close runs that are recorded as running and whose process is long gone."""
    if not 0 <= hours <= LONGEST_HOURS:
        raise InputError(f"--hours: expected 0 to {LONGEST_HOURS}, got {hours}")
    print_json({"closed": PipelineTracker().cleanup_stale_runs(hours)})
