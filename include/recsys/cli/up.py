"""``python -m recsys up``: from nothing to recommendations."""

import time
from pathlib import Path
from typing import Annotated, Any

import requests
import typer
from rich.console import Console
from rich.table import Table

from recsys.cli.jobs import connect, run_job
from recsys.errors import InputError
from recsys.orchestration.client import AirflowClient
from recsys.orchestration.environment import airflow_home, stack_environment
from recsys.orchestration.stack import Stack, StackError, require_python
from recsys.settings import Settings, load_settings

DAG_TIMEOUT_SECONDS = 90.0
SERVICE_TIMEOUT_SECONDS = 60.0
UNKNOWN_CUSTOMER = "new-customer"

console = Console(stderr=True, highlight=False)


def up(
    source: Annotated[
        str | None, typer.Option(help="A source in config/sources/, such as hasaki.")
    ] = None,
    reviews: Annotated[Path | None, typer.Option(help="The source's reviews file.")] = None,
    products: Annotated[Path | None, typer.Option(help="The source's products file.")] = None,
) -> None:
    """Start the stack, refresh the data, train, deploy, and show recommendations."""
    require_python()
    settings = load_settings()
    stack = Stack(settings)
    with stack.exclusive():
        _prepare_data(settings, source, reviews, products)
        with console.status("Starting Airflow and the service"):
            started = stack.start()
        console.print("Stack: up" if started else "Stack: was up already")
        client = connect(settings)
        _unpause(client)
        _run_chain(settings, client)
        _show_recommendations(settings)
        _show_addresses(settings)


def _prepare_data(
    settings: Settings, source: str | None, reviews: Path | None, products: Path | None
) -> None:
    """Check and record the source that was asked for; write the sample shop if there is none."""
    from recsys.data.sources import SELECTION_NAME, select_source

    if source is None and (reviews or products):
        raise InputError("name the files' source as well, such as SOURCE=hasaki")
    if source is not None:
        select_source(settings, source, reviews, products)
    chosen = (settings.home / "data" / SELECTION_NAME).exists()
    if not chosen and not any(settings.raw.rglob("*.*")):
        from recsys.data.sample import write_sample_shop

        console.print("No raw data: writing the sample shop")
        write_sample_shop(settings)


def _unpause(client: AirflowClient) -> None:
    """Wait until Airflow has read every DAG, then let all of them run on schedule."""
    expected = _dag_files()
    deadline = time.monotonic() + DAG_TIMEOUT_SECONDS
    with console.status("Waiting for Airflow to read the DAGs"):
        while not expected <= (dags := client.dags()).keys():
            if errors := client.import_errors():
                raise StackError(f"{errors[0]['filename']}: {errors[0]['stack_trace'][-500:]}")
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(expected - dags.keys()))
                raise StackError(f"Airflow has not read these DAGs: {missing}")
            time.sleep(1)
    for dag_id, dag in dags.items():
        if dag["is_paused"]:
            client.unpause(dag_id)


def _run_chain(settings: Settings, client: AirflowClient) -> None:
    """Refresh, train and deploy; no training when the best model knows the current data."""
    from recsys.data.versions import current_version
    from recsys.registry import Registry

    run_job(client, "data_refresh", {})
    registry = Registry(settings)
    best = registry.current_best()
    version_id = current_version(settings).version_id
    if best is None or registry.get(best.model_id).data_version != version_id:
        run_job(client, "model_training", {})
    else:
        console.print(f"  model_training: {best.model_id} is trained on this data already")
    run_job(client, "model_deployment", {})


def _show_recommendations(settings: Settings) -> None:
    url = stack_environment(settings)["RECSYS_SERVICE_URL"]
    table = Table("customer", "kind", "#", "product", "brand", "price", title="Recommendations")
    for user in [*_sample_users(settings), UNKNOWN_CUSTOMER]:
        answer = _recommend(url, user)
        kind = f"fallback: {answer['fallback_method']}" if answer["fallback"] else "personal"
        for item in answer["recommendations"]:
            price = "" if item["price"] is None else f"{item['price']:,.0f} ₫"
            first = item["rank"] == 1
            table.add_row(
                str(user) if first else "",
                kind if first else "",
                str(item["rank"]),
                item["product_name"],
                item["brand"],
                price,
            )
        table.add_section()
    Console(highlight=False).print(table)


def _sample_users(settings: Settings) -> list[str]:
    """Two customers whom the model knows: the first and the middle one of the mapping."""
    from recsys.data.versions import current_version

    user_ids, _ = current_version(settings).mappings()
    return [user_ids[0], user_ids[len(user_ids) // 2]]


def _recommend(url: str, user: str) -> dict[str, Any]:
    response = requests.post(f"{url}/recommend", json={"user_id": user, "topk": 5}, timeout=10)
    if not response.ok:
        raise StackError(f"{url}/recommend: {response.status_code} {response.text[:300]}")
    return dict(response.json())


def _show_addresses(settings: Settings) -> None:
    env = stack_environment(settings)
    console.print(
        f"Airflow UI    {env['RECSYS_AIRFLOW_URL']}  (user {env['RECSYS_AIRFLOW_USER']}, "
        f"password: RECSYS_AIRFLOW_PASSWORD in {settings.home / '.env'})\n"
        f"API docs      {env['RECSYS_SERVICE_URL']}/docs\n"
        f"Log files     {settings.logs}\n"
        f"Task logs     {airflow_home(settings) / 'logs'}"
    )


def _dag_files() -> set[str]:
    from recsys.settings import REPOSITORY

    return {path.stem for path in (REPOSITORY / "dags").glob("*.py")}
