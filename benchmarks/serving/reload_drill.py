"""Claim: 300 reloads back and forth under full load with 2 workers: no failed request, no answer
that mixes two models, every answer names the model that made it.

    python -m benchmarks.serving.reload_drill [--reloads 300]
"""

import argparse
import json
import os
import threading
import time
from collections import Counter

import numpy as np
import requests

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

USERS, ITEMS, CLIENTS = 2_000, 500, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reloads", type=int, default=300)
    options = parser.parse_args()

    settings = fresh_home("reload_drill", "workers: 2\n")
    histories = make_histories(USERS, ITEMS)
    names = ("als_a", "als_b")
    for seed, name in enumerate(names):
        model = Als(AlsParameters(factors=16, iterations=3), seed=seed).fit(histories, ITEMS)
        add_model(settings, model, histories, ITEMS, name)
    port = free_port()
    answers: list[tuple[str, int, str]] = []
    failed: list[str] = []
    stop = threading.Event()

    def ask(client: int) -> None:
        session = requests.Session()
        random = np.random.default_rng(client)
        while not stop.is_set():
            user = int(random.integers(USERS))
            try:
                answer = session.post(
                    f"http://127.0.0.1:{port}/recommend", json={"user_id": user}, timeout=20
                )
                content = answer.json()
                rows = [(row["product_id"], row["score"]) for row in content["recommendations"]]
                answers.append((content["model_id"], user, json.dumps(rows)))
            except (requests.RequestException, KeyError, ValueError) as error:
                failed.append(repr(error))

    with running(["-m", "serving"], port, settings.home, core=None):
        clients = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        started = time.monotonic()
        seconds = []
        for number in range(options.reloads):
            reloaded = post(port, "/reload_model", {"model_id": names[number % 2]}, TOKEN)
            seconds.append(reloaded["seconds"])
            if reloaded["workers"] != 2:
                failed.append(f"reload {number} reached {reloaded['workers']} workers")
        elapsed = time.monotonic() - started
        stop.set()
        for client in clients:
            client.join()

    lists: dict[tuple[str, int], set[str]] = {}
    for model_id, user, rows in answers:
        lists.setdefault((model_id, user), set()).add(rows)
    mixed = sum(len(found) > 1 for found in lists.values())
    print(f"input: {options.reloads} reloads, 2 workers, {CLIENTS} clients, {os.cpu_count()} cores")
    print(
        f"answers: {len(answers)} in {elapsed:.0f} s, by model "
        f"{dict(Counter(answer[0] for answer in answers))}"
    )
    print(f"failed requests: {len(failed)} (wanted 0) {failed[:3]}")
    print(f"users with two lists of one model: {mixed} (wanted 0)")
    print(
        f"a reload took {np.median(seconds) * 1000:.0f} ms (median), "
        f"{max(seconds) * 1000:.0f} ms at most"
    )


if __name__ == "__main__":
    main()
