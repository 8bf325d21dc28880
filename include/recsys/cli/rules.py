"""Commands for the shop's rules: check, preview, look back."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from recsys import schema
from recsys.arrays import Float64Array
from recsys.cli.output import console, print_json, use_stack_variables
from recsys.config import load_config, read_document
from recsys.data.versions import PublishedVersion, current_version, published_folder
from recsys.deployment import DeploymentConfig
from recsys.deployment.client import ServiceError, connect_service
from recsys.merchandising import audit
from recsys.merchandising.catalogue import Catalogue, build_catalogue
from recsys.merchandising.placements import PlacementsConfig
from recsys.merchandising.rule_warnings import RuleWarning, warnings_of
from recsys.merchandising.rules import Rule, RulesConfig, read_rules
from recsys.settings import Settings, load_settings

app = typer.Typer()
rules_app = typer.Typer(no_args_is_help=True, help="Look after the shop's rules.")
app.add_typer(rules_app, name="rules", rich_help_panel="Watching")


@rules_app.command()
def check() -> None:
    """Print the rules of the file and what they will not get, for the published products; what is
    wrong with the file is an error. Needs no service."""
    settings, now = load_settings(), datetime.now(UTC)
    found = read_rules(settings)
    result = {
        "file": str(settings.config_file(RulesConfig.FILE)),
        "sha256": found.sha256,
        "rules": [_row(rule, now) for rule in found.rules],
        "warnings": [
            {"rule": one.rule, "kind": one.kind, "sentence": one.sentence}
            for one in _warnings(settings, found.rules, now)
        ],
    }
    print_json(result)


@rules_app.command()
def preview(
    user: Annotated[str, typer.Option(help="Whose list; default: a stranger's.")] = "",
    product: Annotated[str, typer.Option(help="Instead: what stands beside this product.")] = "",
    placement: Annotated[str, typer.Option(help="Where in the shop.")] = "",
    at: Annotated[
        str, typer.Option(help="By the rules of this moment: 2027-01-15T09:00+07:00.")
    ] = "",
) -> None:
    """Ask the running service for a list without the rules and with them, and what each rule does
    to it."""
    settings = load_settings()
    use_stack_variables(settings)
    client = connect_service(load_config(settings, DeploymentConfig))
    asked = {"user_id": user, "product_id": product, "placement": placement, "at": at}
    try:
        found = client.preview_rules({key: value for key, value in asked.items() if value})
    except ServiceError as error:
        raise RuntimeError(str(error)) from error
    print_json(found)


@rules_app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many changes.")] = 20,
) -> None:
    """Print the last changes of the rules, newest first: which, when, by whom and why."""
    print_json(audit.history(load_settings(), limit))


def _row(rule: Rule, now: datetime) -> dict[str, Any]:
    content: dict[str, Any] = rule.model_dump(mode="json", exclude_unset=True)
    return {"name": rule.name, "state": rule.state(now), **content}


def _warnings(settings: Settings, rules: tuple[Rule, ...], now: datetime) -> list[RuleWarning]:
    if not rules:
        return []
    if published_folder(settings) is None:
        console.print("Nothing is published yet: whether the shop has what they mean is not known.")
        return []
    version = current_version(settings)
    products = version.shown_products()
    catalogue = build_catalogue(list(products[schema.PRODUCT]), products, version.version_id)
    # As the service has it: what requests may name beside the configured places.
    also = read_document(settings, "serving.yaml").content.get("placements") or ()
    return warnings_of(
        rules,
        catalogue,
        load_config(settings, PlacementsConfig).placements,
        now,
        since=_since(version, catalogue),
        also_placements=also,
    )


def _since(version: PublishedVersion, catalogue: Catalogue) -> Float64Array:
    """As `Snapshot.since`, from the version."""
    if catalogue.since is not None:
        return catalogue.since
    columns = [schema.PRODUCT, schema.TIMESTAMP]
    first = version.interactions(columns).groupby(schema.PRODUCT)[schema.TIMESTAMP].min()
    seconds = first.dt.tz_localize(None).astype("datetime64[s]").astype("int64")
    return seconds.reindex(catalogue.item_ids).to_numpy(dtype="float64")
