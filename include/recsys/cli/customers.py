"""Commands for customers' rights: what is kept of them, and what was asked for."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.output import console, print_json, print_table
from recsys.privacy import Register, add_key
from recsys.settings import load_settings

app = typer.Typer()
customer_app = typer.Typer(no_args_is_help=True, help="What is kept of a customer.")
app.add_typer(customer_app, name="customer", rich_help_panel="Customers")


@customer_app.command()
def export(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The customer's id, or many.")],
    to: Annotated[
        Path | None, typer.Option(help="An empty folder for a file each; needed for several.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who asked; by default who runs this.")] = None,
) -> None:
    """Write all that is kept of a customer as JSON: what, where, why and until when.

    It goes to standard output, and the request to the register. Somebody of whom nothing is kept
    is an answer, and no error."""
    from recsys.upkeep.customers import export_customers

    settings, asked_by = load_settings(), by or getpass.getuser()
    done = export_customers(settings, ids, to, asked_by=asked_by, to=sys.stdout)
    if not done["records"]:
        console.print("Nothing is kept of them." if len(ids) > 1 else "Nothing is kept.")
    if done["unread"]:
        console.print(f"{done['unread']} files could not be read: see not_read in the export.")
    if to is not None:
        print_json(done)


@customer_app.command()
def requests(
    customer: Annotated[str | None, typer.Argument(help="The id; by default those of all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what was asked for on behalf of customers, by whom, until when, and what came of it.

    Customers are named by their pseudonyms: the register knows no ids."""
    from recsys.upkeep.customers import told

    found = [told(one) for one in Register(load_settings()).requests(customer)]
    if as_json:
        print_json(found)
        return
    names = ("number", "kind", "pseudonym", "asked_at", "asked_by", "due_at", "done_at", "proof")
    rows = [[one.get(name) for name in names] for one in found]
    print_table("Requests of customers", [name.replace("_", " ") for name in names], rows)


@customer_app.command()
def new_key() -> None:
    """Begin with another key for pseudonyms; those of before are still found.

    The service takes it when it starts again."""
    print_json({"keys": add_key(load_settings())})
