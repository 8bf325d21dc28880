"""Files of the service that are missing, torn, foreign or no files, while it starts and runs.

    python -m benchmarks.drills.damaged_service

Survived: customers are served all the time, what is acknowledged is on the disk, what the service
keeps for itself is made again, and no traceback is in an answer.
"""

import contextlib
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import requests

from benchmarks.drills._damages import DAMAGES
from benchmarks.drills._table import Attacks
from recsys.alerting import AlertManager
from recsys.data.staging import open_segments, segment_lines
from recsys.data.versions import current_version
from recsys.deployment.history import append_history
from recsys.merchandising.served_model import remember_served
from recsys.settings import Settings
from tests.data.shop import refresh, row, write_shop
from tests.ports import find_free_port
from tests.serving.service_process import running_service
from tests.serving.shops import ITEMS, add_model, product_id

SERVED, BEST = "als_2", "als_1"
DATABASES = ("data/live_events.db", "logs/service_metrics.db", "logs/service/alert_state.db")
LOGS = ("logs/service/recommender.log", "logs/service/alerts.log")
NOTES = (
    "artifacts/cf/served_model.json",
    "logs/deployment_history.json",
    f"artifacts/cf/als/{SERVED}/manifest.json",
    f"artifacts/cf/als/{SERVED}/model/item_factors.npy",
)
CATALOGUE = ("manifest.json", "shown_products.jsonl", "products.parquet")
PATIENCE_SECONDS = 8.0
# SQLite does not look at pages that it does not need; and what a link ought to lead to may be a
# disk that somebody mounts in a minute.
LEFT_ALONE = ("bits fell over", "a link to nowhere")


class Customer:
    """Asks the service for everything that a shop asks for."""

    def __init__(self, home: Path, port: int) -> None:
        self.settings = Settings(home)
        self._address = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self.accepted = 0

    def ask_everything(self) -> None:
        for user in (1, "nobody", f"new{self.accepted}"):
            answer = self._ask("/recommend", {"user_id": user, "topk": 5})
            assert answer["count"] == 5, answer
        event = {"event_id": f"e{self.accepted}", "user_id": f"new{self.accepted}", "rating": 5}
        self._ask("/interactions", event | {"product_id": product_id(self.accepted % ITEMS)})
        self.accepted += 1
        health = self._session.get(f"{self._address}/health", timeout=20)
        assert health.status_code == 200, health.text

    def _ask(self, path: str, body: dict) -> dict:
        answer = self._session.post(f"{self._address}{path}", json=body, timeout=20)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:300]}"
        assert "Traceback" not in answer.text
        return answer.json()

    def see_all_stored(self) -> None:
        segments = open_segments(self.settings).glob("*.jsonl")
        lines = [json.loads(line) for segment in segments for line in segment_lines(segment)]
        stored = [line["event_id"] for line in lines if line["event_id"].startswith("e")]
        missing = {f"e{number}" for number in range(self.accepted)} - set(stored)
        assert not missing, sorted(missing)


def make_shop(home: Path) -> None:
    """A shop with data, two models and everything that a service leaves behind."""
    settings = Settings(home)
    products = [f"{product_id(n)},Kem {n},Cocoon,Kem,10000,Mô tả" for n in range(ITEMS)]
    write_shop(settings, [row(f"u{n}", product_id(n % ITEMS)) for n in range(60)], products)
    refresh(settings)
    add_model(settings, SERVED, seed=1, recall=0.1)
    add_model(settings, BEST, recall=0.2)
    remember_served(settings, SERVED)
    append_history(settings, {"model_id": SERVED, "status": "deployed"})
    AlertManager(settings).send_alert("something", "happened", "info")
    port = find_free_port()
    with running_service(settings, port):
        earlier = Customer(home, port)
        earlier.accepted = 1_000
        earlier.ask_everything()


def see_made_again(customer: Customer, file: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(sqlite3.Error, OSError):
            if is_sound(customer.settings.home / file):
                return
        time.sleep(0.1)
        use(customer, file)
    raise AssertionError("it is not made again")


def is_sound(path: Path) -> bool:
    """Whether it is a database or a log again."""
    if path.suffix != ".db":
        return path.is_file() and path.stat().st_size > 0
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        [said] = database.execute("PRAGMA quick_check").fetchone()
        return path.is_file() and tables > 1 and said == "ok"


def use(customer: Customer, file: str) -> None:
    """Have the service, or whoever alerts beside it, use what lies at `file`."""
    customer.ask_everything()
    if "alert" in file:
        AlertManager(customer.settings).send_alert(f"look {time.time()}", "something", "info")


def files_of(home: Path) -> list[str]:
    catalogue = current_version(Settings(home)).path.relative_to(home)
    return [*DATABASES, *LOGS, *NOTES, *(f"{catalogue}/{one}" for one in CATALOGUE)]


def survive(attacks: Attacks, kind: str, customer: Customer, file: str, name: str) -> None:
    with attacks.attack(f"a file {kind}", f"{file}: {name}"):
        for _ in range(3):
            use(customer, file)
        if file in (*DATABASES, *LOGS) and name not in LEFT_ALONE:
            see_made_again(customer, file)


def damaged_while_it_starts(attacks: Attacks, shop: Path, home: Path) -> None:
    """All files have the same damage at once, and each is looked at."""
    for name, damage in DAMAGES.items():
        shutil.copytree(shop, home, symlinks=True)
        files = files_of(home)
        for file in files:
            damage(home / file)
        port = find_free_port()
        customer = Customer(home, port)
        with (
            attacks.afterwards(f"it starts and ends: {name}"),
            running_service(Settings(home), port),
        ):
            for file in files:
                survive(attacks, "is damaged when the service starts", customer, file, name)
            with attacks.afterwards(f"everything acknowledged is stored: {name}"):
                customer.see_all_stored()
        shutil.rmtree(home)


def damaged_while_it_runs(attacks: Attacks, shop: Path, home: Path) -> None:
    shutil.copytree(shop, home, symlinks=True)
    files = [*files_of(home), "artifacts/cf/registry.json", "data/processed"]
    port, kept = find_free_port(), home / "kept"
    customer = Customer(home, port)
    with running_service(Settings(home), port, catalogue_check_seconds=0.2, workers=2) as output:
        for file in files:
            if file not in (*DATABASES, *LOGS):
                (home / file).rename(kept)
            for name, damage in DAMAGES.items():
                if name.startswith("cut") and kept.is_file() and not kept.is_symlink():
                    DAMAGES["missing"](home / file)
                    shutil.copy(kept, home / file)
                damage(home / file)
                survive(attacks, "is damaged under the service", customer, file, name)
            if file not in (*DATABASES, *LOGS):
                DAMAGES["missing"](home / file)
                kept.rename(home / file)
        with attacks.afterwards("everything acknowledged is stored"):
            customer.see_all_stored()
        with attacks.afterwards("the workers are those that were started"):
            text = output.read_text(encoding="utf-8")
            assert "died" not in text, text[-3000:]


def main() -> int:
    """Print a row of docs/reliability.md for each kind; 1 if anything was not survived."""
    attacks = Attacks("damaged_service")
    root = Path(tempfile.mkdtemp(prefix="recsys-drill-"))
    try:
        make_shop(root / "shop")
        damaged_while_it_starts(attacks, root / "shop", root / "starts")
        damaged_while_it_runs(attacks, root / "shop", root / "runs")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return attacks.end()


if __name__ == "__main__":
    sys.exit(main())
