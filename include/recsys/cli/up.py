"""``up``: from nothing to recommendations, told step by step."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import requests
import typer

from recsys.cli.jobs import follow_run, run_job
from recsys.cli.output import console, duration
from recsys.cli.settings import settings_problems
from recsys.cli.tables import print_table
from recsys.data.config import DataConfig
from recsys.data.simulated import drop_staged, read_note
from recsys.data.sources import (
    SELECTION_NAME,
    resolve_source,
    select_source,
    selection_kept_on_failure,
    source_name,
)
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.orchestration.client import AirflowClient
from recsys.orchestration.environment import (
    airflow_home,
    commands_environment,
    connect,
    is_run_by_others,
)
from recsys.orchestration.stack import Stack, StackError
from recsys.registry import Registry
from recsys.settings import REPOSITORY, Settings, load_settings
from recsys.storage import open_store
from recsys.tracking import PipelineTracker, tracker_database

DAG_TIMEOUT_SECONDS = 90.0
FIRST_RUN_SECONDS = 20.0
UNKNOWN_CUSTOMER = "new-customer"
DEMO_DAYS, DEMO_LISTS_PER_DAY = 21, 300
"""Of simulated traffic in a sample shop that `up` writes: enough for curves, in three seconds."""
MONITOR = "/plugin/recsys"
STEPS = {
    "data_refresh": ("clean the reviews and publish them", 30),
    "bert_embeddings": ("embed the products' texts", 30),
    "model_training": ("train, compare and select models", 150),
    "model_deployment": ("bring the best model into service, and verify it", 20),
    "health_check": ("look whether all is well", 15),
}
"""What `up` runs, and seconds that each takes with the sample shop on two cores."""

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
    nightly refresh goes on with the one of before. In a container, where Airflow and the service
    run already, nothing is started."""
    settings, begun = load_settings(), time.monotonic()
    console.print("Checking the settings, the source and its files")
    if problems := settings_problems(settings):
        raise InputError("\n".join(problems))
    stack = None if is_run_by_others() else Stack(settings)
    with stack.exclusive() if stack else contextlib.nullcontext():
        with selection_kept_on_failure(settings):
            choose_source(settings, source, reviews, products)
            if stack:
                stack.check()
            _announce(settings)
            prepare_data(settings, another=source is not None)
            console.print(f"Source: {source_name(settings)}")
            if stack:
                with console.status("Starting Airflow and the service"):
                    started = stack.start()
                console.print("Stack: up" if started else "Stack: was up already")
            client = connect(settings)
            _wait_for_dags(client)
            # The run that is due covers the days until last night; this one takes all there is.
            client.unpause("data_refresh")
            refreshed = run_job(client, "data_refresh", {})
        _tell_of_rows(settings, refreshed["summary"].get("publish", {}))
        _make_models(settings, client, other_shop=source is not None)
        _show(settings)
        _end(settings, client)
        if note := read_note(settings):
            # The job is due at once when it is unpaused; nobody has to wait for it here.
            console.print(
                f"Simulated traffic: {note}; the job outcomes shows soon what became of it"
            )
        console.print(f"Done in {duration(time.monotonic() - begun)}.")


def choose_source(
    settings: Settings, source: str | None, reviews: Path | None, products: Path | None
) -> None:
    """Check the files of the source that was asked for, and record it; else those of the one that
    is read already, if there is any raw data. Raises `InputError`."""
    if source is not None:
        select_source(settings, source, reviews, products)
    elif reviews or products:
        raise InputError("name the files' source as well, such as SOURCE=hasaki")
    elif not _is_new(settings) and not open_store(settings).shared:
        resolve_source(settings)  # files of a bucket come with the refresh


def _is_new(settings: Settings) -> bool:
    """Whether nobody has named a source of theirs or brought data: that gets the sample shop."""
    chosen = (settings.home / "data" / SELECTION_NAME).exists()
    named = chosen or source_name(settings) != DataConfig().source
    return not named and not any(settings.raw.rglob("*.*"))


def prepare_data(settings: Settings, *, another: bool) -> None:
    """Drop what was simulated if the source is another one; write the sample shop, and some days of
    traffic in it, if there is no data."""
    if another and read_note(settings) and (dropped := drop_staged(settings)):
        console.print(f"Simulated traffic: {dropped} events that no refresh has read are dropped")
    if _is_new(settings):
        from recsys.data.sample import write_sample_shop  # takes pandas with it
        from recsys.simulation.job import BASKETS, simulate_days
        from recsys.simulation.shop import shop_of_sample

        console.print("No raw data: writing the sample shop")
        write_sample_shop(settings)
        shop = shop_of_sample(settings)
        # Before the refresh: the first model learns from it, and a second `up` finds nothing new.
        days, lists = DEMO_DAYS, DEMO_LISTS_PER_DAY
        simulate_days(settings, shop, days, lists, seed=0, ratings=False, baskets=BASKETS)
        console.print(f"Simulated traffic: {read_note(settings)}")


def _announce(settings: Settings) -> None:
    """What is about to be done, and how long it takes: as long as lately, if it was done before."""
    lately: Mapping[str, Any] = {}
    if settings.pipeline_db.exists():
        tracker = PipelineTracker(tracker_database(settings))
        lately = tracker.get_stats(days=90)["stats_by_pipeline"]
    seconds = {
        job: lately.get(job, {}).get("avg_duration_seconds") or usual
        for job, (_, usual) in STEPS.items()
    }
    console.print(f"About {duration(60 + sum(seconds.values()))}: start Airflow and the service,")
    for job, (what, _) in STEPS.items():
        console.print(f"  {job:<17} {what} ({duration(seconds[job])})")


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


def _tell_of_rows(settings: Settings, published: Mapping[str, Any]) -> None:
    version = current_version(settings)
    refused = sum(published.get("quarantined_by_reason", {}).values())
    where = f", see data/quarantine/{version.version_id}.csv" if refused else ""
    stats = version.stats()
    rows = f"{stats['interactions']:,} reviews" if "interactions" in stats else version.version_id
    console.print(f"Data: {rows}, {refused:,} rows refused{where}")


def _make_models(settings: Settings, client: AirflowClient, *, other_shop: bool) -> None:
    """Embed, train and deploy.

    Nothing is trained when the best model knows the current data. The embeddings come first: the
    hybrid learns from them, and search finds only what is embedded."""
    from recsys.content.job import count_new_texts  # takes pandas with it

    best = Registry(settings).current_best()
    known = best is not None and best.data_version == current_version(settings).version_id
    if not known or count_new_texts(settings):
        _run(client, "bert_embeddings", {})
    if best is None or not known:
        trained = _run(client, "model_training", {})["summary"].get("select_best", {})
        _tell_of_winner(settings, trained.get("trained", []))
    else:
        console.print(f"  model_training: {best.model_id} is trained on this data already")
    # The gate compares with the model that serves; that of another shop is no measure.
    _run(client, "model_deployment", {"force": True} if other_shop else {})


def _tell_of_winner(settings: Settings, trained: Iterable[Mapping[str, Any]]) -> None:
    best = Registry(settings).selection()
    if best is None:
        console.print("No model was good enough to be selected")
        return
    others = sorted(trained, key=lambda one: -one["recall_at_10"])
    figures = [
        f"{one['model_id'].rsplit('_', 2)[0]} {one['recall_at_10']:.4f}"
        for one in others
        if one["model_id"] != best.model_id
    ]
    recall = {one["model_id"]: one for one in others}.get(best.model_id)
    if recall is not None:
        said = f"{best.model_id} finds {recall['recall_at_10']:.4f} of what is bought next among 10"
        beside = [*figures, f"popularity {recall['baseline_recall_at_10']:.4f}"]
        console.print(f"Best: {said} (recall@10; {', '.join(beside)})")
        # The best is not always the one with the most recall.
        console.print(f"Why: {best.reason}", markup=False)


def _run(client: AirflowClient, job: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job now. One that was paused until now is due at once, for its last interval: Airflow
    starts that run by itself, and it is the one to follow."""
    if client.dags()[job]["is_paused"]:
        asked = datetime.now(UTC)
        client.unpause(job)
        deadline = time.monotonic() + FIRST_RUN_SECONDS
        while time.monotonic() < deadline:
            if first := client.runs_queued_since(job, asked):
                return follow_run(client, job, first[0]["dag_run_id"])
            time.sleep(0.5)
    return run_job(client, job, conf)


def _show(settings: Settings) -> None:
    """Recommendations for the first and the middle customer whom the model knows, and for one whom
    it does not."""
    env = commands_environment(settings)
    users, _ = current_version(settings).mappings()
    asked = (users[0], users[len(users) // 2], UNKNOWN_CUSTOMER)
    sections = [_recommendations(env["RECSYS_SERVICE_URL"], user) for user in asked]
    columns = ("customer", "kind", "#", "product", "brand", "price")
    text, below = ("kind", "product", "brand"), {"kind": "customer", "brand": "product"}
    print_table("Recommendations", columns, *sections, text=text, below=below)


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


def _end(settings: Settings, client: AirflowClient) -> None:
    """Check that all is well, so that no page says otherwise; let all jobs run on schedule; and say
    where to look on."""
    checked = _run(client, "health_check", {})["summary"].get("evaluate", {})
    for dag_id, dag in client.dags().items():
        if dag["is_paused"]:
            client.unpause(dag_id)
    console.print(f"Health: {checked.get('status', 'not known')}")
    for problem in checked.get("problems", []):
        console.print(f"  {problem}", style="yellow", markup=False, soft_wrap=True)
    env = commands_environment(settings)
    by_others = is_run_by_others()
    airflow = env["AIRFLOW__API__BASE_URL" if by_others else "RECSYS_AIRFLOW_URL"].rstrip("/")
    where = "its environment" if by_others else settings.home / ".env"
    login = f"user {env['RECSYS_AIRFLOW_USER']}, password: RECSYS_AIRFLOW_PASSWORD in {where}"
    places = {"Monitor": f"{airflow}{MONITOR}  ({login})", "Airflow UI": airflow}
    if not by_others:  # from outside, the service is reached as the proxy has it
        service = env["RECSYS_SERVICE_URL"]
        places |= {"Demo": f"{service}/demo", "API docs": f"{service}/docs"}
        places |= {"Log files": f"{settings.logs}", "Task logs": f"{airflow_home(settings)}/logs"}
    for name, place in places.items():
        console.print(f"{name:<11} {place}", markup=False, soft_wrap=True)
