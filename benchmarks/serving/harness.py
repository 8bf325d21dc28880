"""What the serving benchmarks share: a shop of a given size, servers, load."""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import psutil

from recsys.models.artifacts import save_artifact
from recsys.models.base import Histories, Model
from recsys.models.complements import Complements
from recsys.models.histories import take_users
from recsys.models.model_types import model_class
from recsys.registry import Registry
from recsys.settings import REPOSITORY, Settings

SCRATCH = Path(os.environ.get("BENCH_SCRATCH", "/tmp/recsys-bench"))
SERVER_CORE, CLIENT_CORE = "0", "1"
TOKEN = "a-token-of-the-benchmark"
USERS, ITEMS = 26_000, 2_244
"""The shop that the figures of docs/serving.md are of."""
_TWO_LOOKS_SECONDS, _IDLE_SECONDS = 12.0, 0.6


def make_histories(users: int, items: int, seed: int = 0) -> Histories:
    """2 to 12 products a user, the popular ones more often; 8 tastes."""
    random = np.random.default_rng(seed)
    lengths = random.integers(2, 13, users)
    indptr = np.zeros(users + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    count = int(indptr[-1])
    taste = np.repeat(random.integers(0, 8, users), lengths)
    inside = (random.pareto(1.2, count) * 8).astype(np.int64) % (items // 8)
    return Histories(
        indptr=indptr,
        items=(taste * (items // 8) + inside).astype(np.int32),
        confidence=random.uniform(4.5, 6, count).astype(np.float32),
        weight=np.ones(count, dtype=np.float32),
        times=1_700_000_000 + np.arange(count, dtype=np.int64) * 60,
    )


def make_products(items: int) -> pd.DataFrame:
    """A catalogue with names of the usual length; 2 % are not available."""
    numbers = np.arange(items)
    return pd.DataFrame(
        {
            "product_id": [str(422_000_000 + number) for number in numbers],
            "product_name": [
                f"Sữa rửa mặt dịu nhẹ cho da nhạy cảm số {number} 150ml" for number in numbers
            ],
            "brand": [f"Thương hiệu {number % 120}" for number in numbers],
            "category": [f"Nhóm hàng {number % 30}" for number in numbers],
            "price": 10_000.0 * (1 + numbers % 90),
            "family_id": [f"f{number // 2 if number % 5 == 0 else number}" for number in numbers],
            "available": numbers % 50 != 7,
        }
    )


_ALS = {"factors": 64, "starts": 1, "iterations": 3}
FITTED_FAST: Final[Mapping[str, Mapping[str, Any]]] = {
    "als": _ALS,
    "hybrid": {
        "weights": {"item_knn": 1.0, "als": 1.0, "recent_popularity": 0.2, "self_attention": 3.0},
        "als": _ALS,
        "self_attention": {"epochs": 1},
    },
}
"""Parameters by which models are found soon; what they cost to ask does not depend on them."""


def fit_model(model_type: str) -> tuple[Model, Histories]:
    """A model of that shop, and its histories."""
    histories = make_histories(USERS, ITEMS)
    parameters = FITTED_FAST.get(model_type, {})
    return model_class(model_type).create(parameters).fit(histories, ITEMS), histories


def add_model(
    settings: Settings,
    model: Model,
    histories: Histories,
    items: int,
    model_id: str,
    complements: Complements | None = None,
) -> Path:
    """Write the fitted `model` as an artefact, register and select it."""
    products = make_products(items)
    by_id = np.array(sorted(range(histories.users), key=str))
    path = save_artifact(
        settings.artifacts / model.model_type / model_id,
        model=model,
        item_ids=products["product_id"].tolist(),
        user_ids=[str(user) for user in by_id],
        histories=take_users(histories, by_id),
        popularity=np.bincount(histories.items, minlength=items).astype(np.float32),
        products=products,
        complements=complements,
        manifest={"model_id": model_id, "data_version": "bench", "sample_users": ["0", "1", "2"]},
    )
    registry = Registry(settings)
    metrics = {"recall_at_10": 0.2, "recall_at_10_low": 0.2}
    registry.register(
        model_id,
        data_version="bench",
        model_type=model.model_type,
        hyperparameters={},
        metrics=metrics,
        baseline_comparison={"passes": True},
        training_info={},
    )
    registry.select_best("bench", selected_by="benchmark")
    return path


def fresh_home(name: str, serving_config: str = "") -> Settings:
    """An empty state root, with its own ``serving.yaml``."""
    home = SCRATCH / name
    shutil.rmtree(home, ignore_errors=True)
    (home / "config").mkdir(parents=True)
    (home / "config" / "serving.yaml").write_text(
        f"requests_per_client_minute: 100000000\n{serving_config}"
    )
    return Settings(home)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, home: Path | None = None, core: str | None = SERVER_CORE
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that answers on `port`, pinned to `core`."""
    pinned = ["taskset", "-c", core] if core is not None else []
    environment = os.environ | {
        "RECSYS_SERVICE_PORT": str(port),
        "RECSYS_ADMIN_TOKEN": TOKEN,
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'include'}",
        "OPENBLAS_NUM_THREADS": "1",
    }
    if home is not None:
        environment["RECSYS_HOME"] = str(home)
    log = (SCRATCH / f"server_{port}.log").open("wb")
    process = subprocess.Popen(
        [*pinned, sys.executable, *command],
        env=environment,
        cwd=REPOSITORY,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_until_healthy(port, process)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=40)
        log.close()


def wait_until_healthy(port: int, process: subprocess.Popen[bytes], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30).read()
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the server does not become healthy")


def post(port: int, path: str, body: object, token: str | None = None) -> dict:
    """One request; raises on any other status than 200."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.loads(answer.read())


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Processor time that the server and its workers have used: unlike a rate, it does not depend
    on what else the machine does."""
    parent = psutil.Process(process.pid)
    times = [one.cpu_times() for one in (parent, *parent.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def wait_until_idle(process: subprocess.Popen[bytes], seconds: float = 600) -> None:
    """Until the server has made in advance what it makes: it does so at looks five seconds apart,
    and then hardly anything in two of them."""
    until, before = time.monotonic() + seconds, -1.0
    while time.monotonic() < until:
        used = processor_seconds(process)
        if used - before < _IDLE_SECONDS:
            return
        before = used
        time.sleep(_TWO_LOOKS_SECONDS)
    raise RuntimeError("the server does not come to rest")


def wrk(port: int, users: int, seconds: int, connections: int = 16, placement: str = "") -> float:
    """Requests/s of POST /recommend for random known users; raises if one failed."""
    asked = f',"placement":"{placement}"' if placement else ""
    body = f"'{{\"user_id\":' .. math.random(0, {users - 1}) .. '{asked}}}'"
    return load(port, "/recommend", body, seconds, connections)


def load(port: int, path: str, body: str, seconds: int, connections: int = 16) -> float:
    """Requests/s of POST `path`, each with what the expression `body`, in Lua, says; raises if one
    failed."""
    script = SCRATCH / f"load_{port}.lua"
    script.write_text(
        'wrk.method = "POST"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
        f'request = function() return wrk.format(nil, "{path}", nil, {body}) end\n'
    )
    output = subprocess.run(
        [
            *("taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
            *("-s", str(script), f"http://127.0.0.1:{port}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(output)
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if not found:
        raise RuntimeError(output)
    return float(found.group(1))


@dataclass
class Turns:
    """Of each server by name, of every round: requests/s, and microseconds of processor time a
    request."""

    rates: dict[str, list[float]]
    costs: dict[str, list[float]]

    def rate(self, name: str) -> float:
        return statistics.median(self.rates[name])

    def cost(self, name: str) -> float:
        return statistics.median(self.costs[name])

    def ratio(self, name: str, to: str) -> float:
        """Of the rates, the median of all rounds: a shared machine's speed changes by a third
        within seconds."""
        return float(np.median(np.divide(self.rates[name], self.rates[to])))

    def cost_ratio(self, name: str, to: str) -> float:
        """Of the processor times: above 1 where `name` takes less."""
        return float(np.median(np.divide(self.costs[to], self.costs[name])))


def in_turns(
    servers: Mapping[str, tuple[int, subprocess.Popen[bytes]]],
    ask: Callable[[int, int], float],
    rounds: int,
    seconds: int,
) -> Turns:
    """Ask the `servers`, a port and process by name, in short turns, every other round in the other
    order; `ask` a port for so many seconds says its requests/s."""
    turns = Turns({name: [] for name in servers}, {name: [] for name in servers})
    for number in range(rounds):
        for name in list(servers)[:: -1 if number % 2 else 1]:
            port, process = servers[name]
            before = processor_seconds(process)
            rate = ask(port, seconds)
            turns.rates[name].append(rate)
            used = processor_seconds(process) - before
            turns.costs[name].append(used / (rate * seconds) * 1e6)
    return turns
