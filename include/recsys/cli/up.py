"""``python -m recsys up``: from nothing to recommendations."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import requests
import typer

from recsys.cli.jobs import follow_run, run_job
from recsys.cli.output import console, print_table
from recsys.cli.stack import settings_problems
from recsys.data.sources import SELECTION_NAME, select_source, selection_kept_on_failure
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.orchestration.client import AirflowClient
from recsys.orchestration.environment import airflow_home, connect, stack_environment
from recsys.orchestration.stack import Stack, StackError
from recsys.registry import Registry
from recsys.settings import REPOSITORY, Settings, load_settings

DAG_TIMEOUT_SECONDS = 90.0
FIRST_RUN_SECONDS = 20.0
UNKNOWN_CUSTOMER = "new-customer"

app = typer.Typer()


@app.command(rich_help_panel="Stack")
def up(
    source: Annotated[
        str | None, typer.Option(help="A source in config/sources/, such as hasaki.")
    ] = None,
    reviews: Annotated[Path | None, typer.Option(help="The source's reviews file.")] = None,
    products: Annotated[Path | None, typer.Option(help="The source's products file.")] = None,
) -> None:
    """Start the stack, refresh, embed, train, deploy, and show recommendations.

    A source is selected for good once its data is published: after a failure before that, the
    nightly refresh goes on with the one of before.
    """
    settings = load_settings()
    if problems := settings_problems(settings):
        raise InputError("; ".join(problems))
    stack = Stack(settings)
    with stack.exclusive():
        with selection_kept_on_failure(settings):
            _prepare_data(settings, source, reviews, products)
            with console.status("Starting Airflow and the service"):
                started = stack.start()
            console.print("Stack: up" if started else "Stack: was up already")
            client = connect(settings)
            _wait_for_dags(client)
            # The run that is due covers the days until last night; this one takes all there is.
            client.unpause("data_refresh")
            run_job(client, "data_refresh", {})
        _make_models(settings, client, other_shop=source is not None)
        _show(settings)


def _prepare_data(
    settings: Settings, source: str | None, reviews: Path | None, products: Path | None
) -> None:
    """Check and record the source that was asked for; write the sample shop if there is none."""
    from recsys.data.sample import write_sample_shop  # takes pandas with it

    if source is not None:
        select_source(settings, source, reviews, products)
    elif reviews or products:
        raise InputError("name the files' source as well, such as SOURCE=hasaki")
    chosen = (settings.home / "data" / SELECTION_NAME).exists()
    if not chosen and not any(settings.raw.rglob("*.*")):
        console.print("No raw data: writing the sample shop")
        write_sample_shop(settings)


def _wait_for_dags(client: AirflowClient) -> None:
    expected = {path.stem for path in (REPOSITORY / "dags").glob("*.py")}
    deadline = time.monotonic() + DAG_TIMEOUT_SECONDS
    with console.status("Waiting for Airflow to read the DAGs"):
        while missing := expected - client.dags().keys():
            if errors := client.import_errors():
                raise StackError(f"{errors[0]['filename']}: {errors[0]['stack_trace'][-500:]}")
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing))
                raise StackError(f"Airflow has not read these DAGs: {names}")
            time.sleep(1)


def _make_models(settings: Settings, client: AirflowClient, *, other_shop: bool) -> None:
    """Embed, train and deploy, then let all other jobs run on schedule.

    Nothing is trained when the best model knows the current data. The embeddings come first: the
    hybrid learns from them.
    """
    best = Registry(settings).current_best()
    if best is None or best.data_version != current_version(settings).version_id:
        _run(client, "bert_embeddings", {})
        _run(client, "model_training", {})
    else:
        console.print(f"  model_training: {best.model_id} is trained on this data already")
    # The gate compares with the model that serves; that of another shop is no measure.
    _run(client, "model_deployment", {"force": True} if other_shop else {})
    for dag_id, dag in client.dags().items():
        if dag["is_paused"]:
            client.unpause(dag_id)


def _run(client: AirflowClient, job: str, conf: Mapping[str, Any]) -> None:
    """Run a job now. One that was paused until now is due at once, for its last interval: Airflow
    starts that run by itself, and it is the one to follow."""
    if client.dags()[job]["is_paused"]:
        asked = datetime.now(UTC)
        client.unpause(job)
        deadline = time.monotonic() + FIRST_RUN_SECONDS
        while time.monotonic() < deadline:
            if first := client.runs_queued_since(job, asked):
                follow_run(client, job, first[0]["dag_run_id"])
                return
            time.sleep(0.5)
    run_job(client, job, conf)


def _show(settings: Settings) -> None:
    """Recommendations for the first and the middle customer whom the model knows, and for one whom
    it does not; and where to look on."""
    env = stack_environment(settings)
    users, _ = current_version(settings).mappings()
    asked = (users[0], users[len(users) // 2], UNKNOWN_CUSTOMER)
    sections = [_recommendations(env["RECSYS_SERVICE_URL"], user) for user in asked]
    columns = ("customer", "kind", "#", "product", "brand", "price")
    print_table("Recommendations", columns, *sections)
    console.print(
        f"Airflow UI    {env['RECSYS_AIRFLOW_URL']}  (user {env['RECSYS_AIRFLOW_USER']}, "
        f"password: RECSYS_AIRFLOW_PASSWORD in {settings.home / '.env'})\n"
        f"API docs      {env['RECSYS_SERVICE_URL']}/docs\n"
        f"Log files     {settings.logs}\n"
        f"Task logs     {airflow_home(settings) / 'logs'}"
    )


def _recommendations(url: str, user: str) -> Iterator[tuple[object, ...]]:
    """Rows of the table: what the service recommends to `user`."""
    response = requests.post(f"{url}/recommend", json={"user_id": user, "topk": 5}, timeout=10)
    if not response.ok:
        raise StackError(f"{url}/recommend: {response.status_code} {response.text[:300]}")
    answer = response.json()
    kind = f"fallback: {answer['fallback_method']}" if answer["fallback"] else "personal"
    for item in answer["recommendations"]:
        whose = (user, kind) if item["rank"] == 1 else (None, None)
        price = None if item["price"] is None else f"{item['price']:,.0f} ₫"
        yield *whose, item["rank"], item["product_name"], item["brand"], price
