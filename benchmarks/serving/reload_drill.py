"""Claim: 300 reloads back and forth under full load with 2 workers: no failed request, no answer
that mixes two models, every answer names the model that made it.

    python -m benchmarks.serving.reload_drill [--reloads 300]

The reference is what each model answered to every user while nothing was reloaded: an answer under
load must be, product by product and score by score, the one of the model that it names. The two
models differ in everything that a mix could take from the wrong one: factors, histories,
popularity, and the number and order of products.
"""

import argparse
import contextlib
import http.client
import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from benchmarks.serving.harness import (
    TOKEN,
    add_model,
    free_port,
    fresh_home,
    make_histories,
    post,
    running,
)
from recsys.models.als import Als, AlsParameters

USERS, CLIENTS, WORKERS = 2_000, 4, 2
ITEMS = {"als_a": 500, "als_b": 440}

Rows = tuple[tuple[str, float], ...]


@dataclass
class Findings:
    """What the clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=300)
    options = parser.parse_args()

    settings = fresh_home("reload_drill", f"workers: {WORKERS}\n")
    for seed, (name, items) in enumerate(ITEMS.items()):
        histories = make_histories(USERS, items, seed)
        model = Als(AlsParameters(factors=16, iterations=3), seed=seed).fit(histories, items)
        add_model(settings, model, histories, items, name)
    port = free_port()
    findings = Findings()
    with running(["-m", "serving"], port, settings.home, core=None):
        reference = {name: read_reference(port, name) for name in ITEMS}
        idle = [reload(port, name, findings) for name in [*ITEMS] * 3]
        started = time.monotonic()
        with load(port, reference, findings):
            names = list(ITEMS)
            seconds = [
                reload(port, names[number % 2], findings) for number in range(options.reloads)
            ]
            elapsed = time.monotonic() - started
    different = np.mean([one != other for one, other in zip(*reference.values(), strict=True)])
    total = findings.answers.total()
    print(
        f"input: {options.reloads} reloads, {WORKERS} workers, {CLIENTS} clients, "
        f"{os.cpu_count()} cores; {different:.0%} of {USERS} users have another list in the other "
        "model"
    )
    print(
        f"answers: {total} in {elapsed:.0f} s ({total / elapsed:.0f} a second), by model "
        f"{dict(findings.answers)}"
    )
    print(f"failed requests: {len(findings.failed)} (wanted 0) {findings.failed[:3]}")
    print(
        "answers that are not the reference's of the model they name: "
        f"{len(findings.wrong)} (wanted 0) {findings.wrong[:3]}"
    )
    under_load = float(np.median(seconds))
    print(
        f"a reload took {under_load * 1000:.0f} ms (median), {max(seconds) * 1000:.0f} ms at most, "
        f"{under_load / float(np.median(idle)):.1f} times the {np.median(idle) * 1000:.0f} ms "
        "without load"
    )
    if findings.failed or findings.wrong or set(findings.answers) != set(ITEMS):
        raise SystemExit(1)


def reload(port: int, name: str, findings: Findings) -> float:
    """Bring the model into both workers; the seconds that it took."""
    done = post(port, "/reload_model", {"model_id": name}, TOKEN)
    if done["workers"] != WORKERS:
        findings.failed.append(f"a reload reached {done['workers']} workers")
    return float(done["seconds"])


def read_reference(port: int, name: str) -> list[Rows]:
    """What every user gets from the model `name` while nothing else happens."""
    post(port, "/reload_model", {"model_id": name}, TOKEN)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    found = []
    for user in range(USERS):
        model_id, rows = ask(connection, user)
        if model_id != name:
            raise RuntimeError(f"{model_id} answers, {name} was loaded")
        found.append(rows)
    connection.close()
    return found


@contextlib.contextmanager
def load(port: int, reference: dict[str, list[Rows]], findings: Findings):
    """Clients that ask as fast as they can, and compare what they get."""
    stop = threading.Event()

    def work(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        random = np.random.default_rng(client)
        while not stop.is_set():
            user = int(random.integers(USERS))
            try:
                model_id, rows = ask(connection, user)
            except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
                findings.failed.append(repr(error))
                connection.close()
                continue
            findings.answers[model_id] += 1
            if model_id not in reference or reference[model_id][user] != rows:
                findings.wrong.append(f"user {user}, {model_id}")
        connection.close()

    clients = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        stop.set()
        for client in clients:
            client.join()


def ask(connection: http.client.HTTPConnection, user: int) -> tuple[str, Rows]:
    """The model that an answer names, and its products with their scores."""
    connection.request(
        "POST", "/recommend", json.dumps({"user_id": user}), {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    content = json.loads(answer.read())
    if answer.status != 200:
        raise ValueError(f"{answer.status}: {content}")
    rows = tuple((row["product_id"], row["score"]) for row in content["recommendations"])
    return content["model_id"], rows


if __name__ == "__main__":
    main()
