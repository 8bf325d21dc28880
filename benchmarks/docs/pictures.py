"""The pictures of the docs, made anew: ``make pictures``.

    python -m benchmarks.docs.pictures [NAME ...] [--home FOLDER] [--hasaki FOLDER]

Starts the product with the sample shop on ports of its own, as `make up` does (about six minutes on
two cores), lets it do what the docs tell of, and looks at it with Chromium; what takes a year or
weeks is of records that a seed makes up. With `--home`, the product that runs there is looked at
instead. `drift-2023` is drawn from the real reviews in `--hasaki`, and left as it is without."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np
import requests
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.experiments.sequential import DAYS, simulate
from benchmarks.monitor.first_paint import running
from benchmarks.monitor.made_year import make_year
from recsys.experiments.evaluation import evaluate
from recsys.experiments.state import Definition, Experiments
from recsys.orchestration.environment import read_env
from recsys.registry import Registry
from recsys.settings import REPOSITORY, Settings
from tests.experiments.test_evaluation import SHOP, START, write_days
from tests.live_stack import LiveStack, make_home, wait_for

FOLDER: Final = REPOSITORY / "docs"
WIDTH: Final = 1400  # pixels
LOCALES: Final = {"en": "en-GB", "vi": "vi-VN"}


class Picture(NamedTuple):
    """How a picture is taken: the page, by what it is asked of and the path there, how much of it
    (pixels from the top), what is done on it first, what is there when it is ready, and in which
    language the monitor is asked for it."""

    of: str
    path: str
    height: int = 900
    first: Callable[[Page], object] = lambda page: None
    width: int = WIDTH
    ready: str = "h1"
    language: str = "en"


def _ask(kind: str, text: str) -> Callable[[Page], None]:
    def ask(page: Page) -> None:
        page.locator(f"label:has(input[value={kind}])").click()
        page.locator("#value").fill(text)
        page.locator("button[type=submit]").click()
        page.locator("#answer li").first.wait_for()

    return ask


_ENGLISH: Final = {
    "airflow-grid": Picture("airflow", "/dags", 1560, ready="text=outcomes"),
    "approval": Picture(
        "airflow",
        "/dags/model_deployment/runs/{asked}/tasks/approve/required_actions",
        ready="text=To be deployed",
    ),
    "lineage": Picture("airflow", "/assets/{data_version}", ready="text=bert_embeddings"),
    "monitor": Picture("monitor", "/"),
    "monitor-model": Picture("monitor", "/models/{model}"),
    "monitor-before": Picture("monitor", "/before"),
    "monitor-product": Picture("monitor", "/look/product?product_id={product}"),
    "monitor-run": Picture("monitor", "/runs/data_refresh/{run}"),
    "rules": Picture("monitor", "/rules/preview?placement=home"),
    "demo": Picture("service", "/demo", first=_ask("user", "1")),
    "api": Picture("service", "/docs", 700, lambda page: page.locator("summary").first.click()),
    "drift-report": Picture("report", "drift", 1100, width=1000),
    "outcomes": Picture("report", "outcomes", 1100, width=1000),
    "monitor-time": Picture("year", "/time?days=365"),
    "monitor-outcomes": Picture("year", "/outcomes?days=365", 1300),
    "experiment": Picture("year", "/experiments/blend-against-als"),
}
_IN_VIETNAMESE_TOO: Final = ("monitor", "monitor-model", "monitor-product", "monitor-run", "rules")
"""What `docs/first-hour.vi.md` shows of the monitor."""

PICTURES: Final = _ENGLISH | {
    f"{name}.vi": _ENGLISH[name]._replace(language="vi") for name in _IN_VIETNAMESE_TOO
}
"""Of the running product (`airflow`, `monitor`, `service`, its newest `report`), and of records of
a `year`."""

DRAWN: Final = frozenset({"drift-2023"})
"""Made by `benchmarks.drift.hasaki_2023` from real reviews."""

_HIDDEN: Final = """\
rules:
- name: recalled
  action: hide
  products: {{ids: ["{product}"]}}
  author: lan
  reason: the maker recalled the lot
- name: spring-skincare
  action: boost
  products: {{categories: [Serum, Kem chống nắng]}}
  placements: [home]
  strength: 0.3
  author: minh
  reason: spring campaign
"""
_EXPERIMENT: Final = {
    "name": "blend-against-als",
    "question": "Do customers click more when the blend recommends?",
    "variants": [{"name": "today", "share": 0.5}, {"name": "blend", "share": 0.5}],
    "primary_metric": "clicks_per_list",
}


def use(stack: LiveStack) -> None:
    """Let the product do what the docs tell of: another model comes into service and is taken back,
    a product is hidden, a past day is run again."""
    registry = Registry(stack.settings)
    served = registry.current_best()
    other = next(
        entry.model_id
        for entry in registry.list()
        if entry.baseline_comparison["passes"] and entry != served
    )
    day = str((datetime.now(UTC) - timedelta(days=3)).date())
    for arguments in (
        ("model-deployment", "--model-id", other),
        ("model-deployment", "--rollback"),
        ("backfill", "data_refresh", "--from-date", day, "--to-date", day),
        ("outcomes",),
        ("health-check",),
    ):
        done = stack.recsys(*arguments, timeout=600)
        if done.returncode:
            raise SystemExit(f"./recsys {' '.join(arguments)}: {done.stderr}")
    hidden = requests.get(f"{stack.service_url}/demo/examples", timeout=20).json()["product"][1]
    rules = stack.settings.home / "config" / "rules.yaml"
    rules.parent.mkdir(exist_ok=True)
    rules.write_text(_HIDDEN.format(product=hidden["id"]), encoding="utf-8")
    ask_for_approval(stack, other)


def ask_for_approval(stack: LiveStack, model_id: str) -> None:
    """Let a run wait for a person who approves `model_id`."""
    (stack.settings.home / "config" / "deployment.yaml").write_text("require_approval: true\n")
    token = stack.airflow("GET", "/dags/model_deployment")["file_token"]
    stack.airflow("PUT", f"/parseDagFile/{token}")
    wait_for(lambda: "ask_if_needed" in tasks_of_deployment(stack), 120, "the approval in the job")
    stack.client.trigger("model_deployment", {"model_id": model_id})
    wait_for(
        lambda: any(not one["response_received"] for one in approvals(stack)),
        300,
        "the form of the approval",
    )


def tasks_of_deployment(stack: LiveStack) -> set[str]:
    tasks = stack.airflow("GET", "/dags/model_deployment/tasks")["tasks"]
    return {task["task_id"] for task in tasks}


def approvals(stack: LiveStack) -> list[dict[str, Any]]:
    """What people were asked, what waits for an answer first, then the newest."""
    found = stack.airflow("GET", "/dags/~/dagRuns/~/hitlDetails?order_by=-created_at")
    return sorted(found["hitl_details"], key=lambda one: bool(one["response_received"]))


def make_records(settings: Settings) -> None:
    """A year of runs, and an experiment of seven weeks."""
    make_year(settings, datetime.now(UTC))
    Experiments(settings).start(Definition.model_validate(_EXPERIMENT), by="lan", now=START)
    visits = simulate(np.random.default_rng(1), SHOP, DAYS, uplift=0.14)
    write_days(settings, visits, name="blend-against-als", names=("today", "blend"))
    evaluate(settings, START + timedelta(days=DAYS - 0.5))


@contextmanager
def product(home: Path | None) -> Iterator[LiveStack]:
    """The product that runs in `home`; without, one with the sample shop that runs meanwhile."""
    if home is not None:
        yield LiveStack(Settings(home), {})
        return
    with tempfile.TemporaryDirectory() as folder:
        stack = make_home(Path(folder) / "home")
        try:
            done = stack.recsys("up", timeout=1_800)
            if done.returncode:
                raise SystemExit(f"the product did not start: {done.stderr}")
            use(stack)
            yield stack
        finally:
            stack.recsys("scheduler", "stop")


def addresses(stack: LiveStack) -> dict[str, str]:
    """Where each kind of page is, and the names that stand for ids in their paths."""
    airflow = stack.client.url
    served = Registry(stack.settings).current_best()
    assert served is not None
    assets = stack.airflow("GET", "/assets?name_pattern=data_version")["assets"]
    runs = stack.airflow("GET", "/dags/data_refresh/dagRuns?order_by=-start_date")["dag_runs"]
    offered = requests.get(f"{stack.service_url}/demo/examples", timeout=20).json()["product"]
    return {
        "airflow": airflow,
        "monitor": f"{airflow}/recsys",
        "service": stack.service_url,
        "data_version": str(assets[0]["id"]),
        "model": served.model_id,
        "product": offered[0]["id"],
        "run": quote(runs[0]["dag_run_id"], safe=""),
        "asked": quote(approvals(stack)[0]["task_instance"]["dag_run_id"], safe=""),
    }


def newest_report(settings: Settings, kind: str) -> str:
    return max((settings.reports / kind).glob("*.en.html")).as_uri()


def log_in(page: Page, stack: LiveStack) -> None:
    """As Airflow's login does it: a cookie with a token."""
    stored = read_env(stack.settings)
    names = {"username": "RECSYS_AIRFLOW_USER", "password": "RECSYS_AIRFLOW_PASSWORD"}
    given = {name: stored[variable] for name, variable in names.items()}
    answer = requests.post(f"{stack.client.url}/auth/token", json=given, timeout=30)
    answer.raise_for_status()
    token = {"name": "_token", "value": answer.json()["access_token"], "url": stack.client.url}
    page.context.add_cookies([token])


def take(browser: Browser, name: str, url: str, stack: LiveStack | None = None) -> None:
    """Write ``docs/NAME.png``."""
    picture = PICTURES[name]
    size = {"width": picture.width, "height": picture.height}
    page = browser.new_context(
        viewport=size, locale=LOCALES[picture.language], timezone_id="Asia/Ho_Chi_Minh"
    ).new_page()
    language = {
        "name": "recsys_language",
        "value": picture.language,
        "url": url.partition("?")[0],
    }
    if not url.startswith("file:"):
        page.context.add_cookies([language])
    if stack is not None:
        log_in(page, stack)
    page.goto(url, wait_until="networkidle")
    page.locator(picture.ready).first.wait_for(timeout=60_000)
    picture.first(page)
    page.wait_for_timeout(1_500)
    page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")
    page.context.close()
    print(f"docs/{name}.png", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--home", type=Path, help="look at the product that runs there")
    parser.add_argument("--hasaki", type=Path, help="the folder with the real reviews.csv")
    given = parser.parse_args()
    if unknown := set(given.names) - PICTURES.keys() - DRAWN:
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    wanted = [name for name in PICTURES if name in given.names or not given.names]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        made = [name for name in wanted if PICTURES[name].of == "year"]
        if made:
            settings = Settings(Path(folder) / "records")
            make_records(settings)
            with running(settings) as url:
                for name in made:
                    take(browser, name, url + PICTURES[name].path)
        live = [name for name in wanted if name not in made]
        if live:
            with product(given.home) as stack:
                known = addresses(stack)
                for name in live:
                    of, path = PICTURES[name].of, PICTURES[name].path.format(**known)
                    report = of == "report"
                    url = newest_report(stack.settings, path) if report else known[of] + path
                    take(browser, name, url, None if report else stack)
        browser.close()
    if given.hasaki and (not given.names or DRAWN & set(given.names)):
        command = [sys.executable, "-m", "benchmarks.drift.hasaki_2023", str(given.hasaki)]
        subprocess.run([*command, "--picture", str(FOLDER / "drift-2023.png")], check=True)


if __name__ == "__main__":
    main()
