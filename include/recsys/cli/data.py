"""Commands about files: the synthetic shop and its customers, backups, and state that machines
share. What they call takes pandas with it, and is imported when it is called."""

import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.output import AsJson, console, print_json, use_stack_variables
from recsys.cli.tables import print_table
from recsys.data.sources import source_name
from recsys.settings import load_settings
from recsys.storage import open_store

app = typer.Typer()
storage_app = typer.Typer(no_args_is_help=True, help="State that several machines share.")
source_app = typer.Typer(no_args_is_help=True, help="Files of the shop.")
app.add_typer(source_app, name="source", rich_help_panel="Data")
app.add_typer(storage_app, name="storage", rich_help_panel="Data")


@app.command(rich_help_panel="Data")
def sample_data(
    reviews: Annotated[int | None, typer.Option(help="Number of reviews.")] = None,
    users: Annotated[int | None, typer.Option(help="Number of customers.")] = None,
    products: Annotated[int | None, typer.Option(help="Number of products.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed is another shop.")] = 0,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Day after the last review; default today."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where to write; default data/raw/viecomrec.")
    ] = None,
) -> None:
    """Write a synthetic shop in the ViEcomRec layout; the same arguments give the same bytes."""
    from recsys.data.sample import DEFAULT_REVIEWS, write_sample_shop

    shop = write_sample_shop(
        folder or load_settings(),
        reviews=DEFAULT_REVIEWS if reviews is None else reviews,
        users=users,
        products=products,
        seed=seed,
        until=until.date() if until else None,
    )
    typer.echo(f"{shop.reviews_path}: {shop.reviews} reviews of {shop.users} customers")
    typer.echo(f"{shop.products_path}: {shop.products} products")


@source_app.command("check")
def check_source(
    file: Annotated[Path, typer.Argument(help="A file of reviews or of products.")],
    source: Annotated[
        str | None, typer.Option(help="Its description in config/sources; default: the shop's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a file would be read: each column, the first rows, what is refused, and what looks
    wrong. Nothing is changed; 2 if it cannot be read, 1 if no row can."""
    from recsys.data.preview import preview

    settings = load_settings()
    name = source_name(settings) if source is None else source
    found = preview(settings, name, file, datetime.now(UTC))
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        title = f"{file} as {found.kind} of {name}: {found.accepted:,} of {found.rows:,} rows"
        rows = [
            (ours, theirs, "\n".join(texts), "\n".join(values))
            for ours, theirs, texts, values in found.columns
        ]
        columns, below = ("ours", "in the file", "first rows", "read as"), {"in the file": "ours"}
        print_table(title, columns, *([row] for row in rows), text=columns[1:], below=below)
        if found.unused:
            typer.echo(f"Not read: {', '.join(found.unused)}")
        for reason, count in found.refused.items():
            typer.echo(f"Refused: {count:,} rows: {reason}")
        for row, reason, text in found.first_refused:
            typer.echo(f"  row {row}: {reason}: {text}")
        for doubt in found.doubts:
            typer.echo(f"Look: {doubt}")
    if not found.accepted:
        raise typer.Exit(1)


@app.command(rich_help_panel="Data")
def simulate_traffic(
    minutes: Annotated[float, typer.Option(min=0.01, max=1440, help="How long.")] = 3.0,
    rate: Annotated[float, typer.Option(min=0.1, max=500, help="Lists a second.")] = 20.0,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=90, help="Instead: write the last days into files, at once."),
    ] = None,
    lists_per_day: Annotated[int, typer.Option(min=1, max=100_000, help="With --days.")] = 300,
    ratings: Annotated[
        bool, typer.Option("--ratings", help="With --days: customers also review what they bought.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Other customers, other traffic.")] = 0,
) -> None:
    """Let simulated customers look, click and buy; only in the sample shop.

    They ask the running service for lists and send it what they do with them. Ctrl-C ends it.
    With `--days` traffic of the past is written into files, without the service."""
    from recsys.simulation.job import simulate_now, simulate_past

    settings = load_settings()
    if days is not None:
        print_json(simulate_past(settings, days, lists_per_day, seed=seed, ratings=ratings))
        return
    use_stack_variables(settings)
    done = simulate_now(
        *(settings, os.environ),
        seconds=60 * minutes,
        rate=rate,
        seed=seed,
        tell=lambda line: console.print(line, markup=False),
    )
    print_json(done)


@app.command(rich_help_panel="Data")
def backup(file: Annotated[Path, typer.Argument(help="Where to write; must not exist.")]) -> None:
    """Save data, models, registry, history, reports and configuration to one file."""
    from recsys.upkeep.backup import write_backup

    print_json(write_backup(load_settings(), file))


@app.command(rich_help_panel="Data")
def restore(
    file: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
    privacy: Annotated[
        Path | None, typer.Option(help="A newer copy of data/privacy, kept apart from backups.")
    ] = None,
) -> None:
    """Make an empty state root ($RECSYS_HOME) what it was when the backup was made.

    Without customers who asked to be forgotten since, as far as the register knows: that of the
    state root, which may have data/privacy already, or of a copy."""
    from recsys.upkeep.restore import restore_backup

    print_json(restore_backup(load_settings(), file, privacy))


@storage_app.command()
def check() -> None:
    """Try whether the store can be reached and honours conditional writes."""
    store = open_store(load_settings())
    store.check()
    print_json({"shared": store.shared, "sound": True})


@storage_app.command()
def push() -> None:
    """Copy this machine's state into the empty bucket that config/storage.yaml names."""
    from recsys.upkeep.transfer import push_state

    print_json(push_state(load_settings()))


@storage_app.command()
def pull() -> None:
    """Copy all shared state into this state root, for a backup or to go back to file://."""
    from recsys.upkeep.transfer import pull_state

    print_json(pull_state(load_settings()))
