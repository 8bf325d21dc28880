"""``python -m recsys sample-data``: write the synthetic shop."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from recsys.settings import load_settings


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
