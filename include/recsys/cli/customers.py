"""Commands for customers' rights: what is kept of them, and what was asked for."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from recsys.cli.output import AsJson, console, print_json
from recsys.cli.tables import print_table
from recsys.privacy import Register, ask_to_forget, readmit, told
from recsys.pseudonyms import add_key
from recsys.settings import load_settings

app = typer.Typer()
customer_app = typer.Typer(no_args_is_help=True, help="What is kept of a customer.")
app.add_typer(customer_app, name="customer", rich_help_panel="Customers")


@customer_app.command()
def export(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The customer's id, or many.")],
    to: Annotated[
        Path | None,
        typer.Option(help="A folder, empty or new, for a file each; needed for many."),
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
    if done["doubtful"]:
        console.print(
            f"{done['doubtful']} places may name them or have a number that looks alike: look at "
            "doubtful in the export, and take it out before you send the file."
        )
    if to is not None:
        print_json(done)


@customer_app.command()
def forget(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The customer's id, or many.")],
    by: Annotated[str | None, typer.Option(help="Who asked; by default who runs this.")] = None,
) -> None:
    """Ask to forget a customer: left out from now on, removed by the job `forget_customers`.

    For good: whatever comes of the id later is dropped. Until the job has run, `customer readmit`
    undoes it."""
    from recsys.data.sources import id_rules

    settings = load_settings()
    asked = ask_to_forget(settings, ids, by or getpass.getuser(), id_rules(settings))
    print_json([told(one) for one in asked])


@customer_app.command(name="readmit")
def readmit_customers(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="The customer's id, or many.")],
    by: Annotated[str | None, typer.Option(help="Who asked; by default who runs this.")] = None,
) -> None:
    """Take back that a customer is forgotten: for a wrong id, or for somebody who comes back.

    What was removed does not come back."""
    from recsys.data.sources import id_rules

    settings = load_settings()
    asked = readmit(settings, ids, by or getpass.getuser(), id_rules(settings))
    print_json([told(one) for one in asked])


@customer_app.command()
def requests(
    customer: Annotated[str | None, typer.Argument(help="The id; by default those of all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what was asked for on behalf of customers, by whom, until when, and what came of it.

    Customers are named by their pseudonyms, of which the table has the beginning: the register
    knows no ids. Whole, with times and what came of it: --json."""
    found = [told(one) for one in Register(load_settings()).requests(customer)]
    if as_json:
        print_json(found)
        return
    print_table("Requests of customers", _COLUMNS, map(_line, found), text=("asked by",))


_COLUMNS: Final = ("no.", "kind", "pseudonym", "asked on", "asked by", "due or done")


def _line(one: dict[str, Any]) -> list[str]:
    """A request, with no more of its pseudonym than tells it from others."""
    done = f"done {one['done_at'][:10]}" if "done_at" in one else f"due {one['due_at'][:10]}"
    asked = one["asked_at"][:10]
    return [
        str(one["number"]),
        one["kind"],
        one["pseudonym"][:9],
        asked,
        one["asked_by"],
        done,
    ]


@customer_app.command()
def new_key() -> None:
    """Begin with another key for pseudonyms; those of before are still found.

    The service takes it when it starts again."""
    print_json({"keys": add_key(load_settings())})
