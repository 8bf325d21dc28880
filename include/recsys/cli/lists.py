"""Commands that make lists: of all customers for a mail, and of customers for a product."""

import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from recsys.cli.output import console, print_json
from recsys.config import ConfigModel, read_document
from recsys.experiments.definitions import Assignment
from recsys.settings import Settings, load_settings

app = typer.Typer()


class _Service(ConfigModel):
    """What of the service's configuration holds for these lists as well."""

    holdout_share: float = Field(default=0, ge=0, le=0.5)
    record_lists: bool = True


@app.command(rich_help_panel="Lists")
def export_lists(
    placement: Annotated[str, typer.Option(help="Of config/placements.yaml, such as mail.")],
    to: Annotated[Path, typer.Option(help="The .parquet file; one that is there is replaced.")],
    length: Annotated[
        int | None, typer.Option(help="Products in a list; default: as the placement says.")
    ] = None,
    record: Annotated[
        bool, typer.Option(help="Record the lists as served, so that clicks are counted for them.")
    ] = True,
    explain: Annotated[
        bool, typer.Option("--explain", help="With a reason for each product, in both languages.")
    ] = False,
) -> None:
    """Write the lists of all customers into one file, for the mailing tool.

    Killed, it goes on where it was when it is started again with the same options."""
    from recsys.merchandising.exporting import export_lists as export

    settings = load_settings()
    service = _service(settings)
    lot = Assignment((), service.holdout_share)
    done = export(
        *(settings, placement, to),
        length=length,
        record=record and service.record_lists,
        explain=explain,
        holdout=lambda user: lot.assign(user, placement),
        tell=lambda line: console.print(line, markup=False),
    )
    print_json(done)


@app.command(rich_help_panel="Lists")
def audience(
    product_id: Annotated[str, typer.Argument(help="The product.")],
    size: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many customers.")] = 100,
    to: Annotated[
        Path | None, typer.Option(help="Write them to this CSV file instead of printing them.")
    ] = None,
) -> None:
    """Find the customers whom a product suits best, to tell them about it.

    Nobody who had it or dismissed it; new products too."""
    from recsys.merchandising.audience import audience as find
    from recsys.merchandising.audience import write_audience
    from recsys.merchandising.exporting import check_folder

    if to is not None:
        check_folder(to)
    found = find(load_settings(), product_id, size, int(time.time()))
    if to is None:
        print_json(found)
        return
    customers = found.pop("customers")
    write_audience(customers, to)
    print_json({**found, "written": len(customers), "file": str(to)})


def _service(settings: Settings) -> _Service:
    document = read_document(settings, "serving.yaml")
    ours = {key: value for key, value in document.content.items() if key in _Service.model_fields}
    return document.validate(_Service, ours)
