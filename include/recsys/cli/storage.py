"""Commands for state that machines share."""

import json

import typer

from recsys.settings import load_settings

storage_app = typer.Typer(no_args_is_help=True, help="State that several machines share.")


@storage_app.command()
def check() -> None:
    """Try whether the store can be reached and honours conditional writes."""
    from recsys.storage import open_store

    store = open_store(load_settings())
    store.check()
    typer.echo(json.dumps({"shared": store.shared, "sound": True}))


@storage_app.command()
def push() -> None:
    """Copy this machine's state into the empty bucket that config/storage.yaml names."""
    from recsys.upkeep.transfer import push_state

    typer.echo(json.dumps(push_state(load_settings()), indent=2))


@storage_app.command()
def pull() -> None:
    """Copy all shared state into this state root, for a backup or to go back to file://."""
    from recsys.upkeep.transfer import pull_state

    typer.echo(json.dumps(pull_state(load_settings()), indent=2))


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(storage_app, name="storage", rich_help_panel="Data")
