"""The command that says which model served at a moment."""

from datetime import datetime
from typing import Annotated

import typer

from recsys.cli.output import print_json
from recsys.deployment.history import Stint, live_at, read_history
from recsys.errors import InputError
from recsys.schedule import load_zone
from recsys.settings import load_settings

app = typer.Typer()


@app.command("live-at", rich_help_panel="Models")
def show_live_at(
    moment: Annotated[
        str, typer.Argument(help='Local time of the shop, "2026-11-24 10:00"; or with an offset.')
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say which model served at a moment, since when and until when."""
    settings = load_settings()
    zone = load_zone(settings)
    try:
        known = datetime.fromisoformat(moment)
        known = known.astimezone(zone) if known.tzinfo else known.replace(tzinfo=zone)
    except (ValueError, OverflowError):  # the calendar ends with the year 1
        example = "expected a time such as 2026-11-24 10:00"
        raise InputError(f"moment: {moment!r} is no time; {example}") from None
    if known > datetime.now(zone):
        raise InputError(f"moment: {moment!r} is still to come")
    stint = live_at(read_history(settings), known) or Stint(None, None, None)
    since, until = (one and one.astimezone(zone) for one in (stint.since, stint.until))
    if as_json:
        ends = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        print_json({"at": known.astimezone(zone).isoformat(), "model_id": stint.model_id, **ends})
        return
    began = f"since {since:%Y-%m-%d %H:%M}" if since else "since before the history begins"
    ended = f"until {until:%Y-%m-%d %H:%M}" if until else "until now"
    asked = f"{known.astimezone(zone):%Y-%m-%d %H:%M} ({zone})"
    who = (
        f"{stint.model_id} served, {began}, {ended}" if stint.model_id else "no model is on record"
    )
    typer.echo(f"{asked}: {who}")
