"""Claim: a hybrid with `linear` and `self_attention` in it is loaded in at most twice the time.

    python -m benchmarks.serving.reload_time [--layers 2]

What a worker does when a model is deployed: read the artefact, put the catalogue together, and make
the lists of 26,000 known users, on one thread. The reference of the same run is the hybrid without
the two. Beside it what a customer who just bought waits for: all scores of one history that the
model has not seen. Processor time counts, so that it does not matter what else the machine does.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.serving.harness import ITEMS, USERS, add_model, fresh_home, make_histories
from recsys.merchandising.snapshots import load_snapshot
from recsys.models.base import Histories, Model
from recsys.models.histories import take_users
from recsys.models.hybrid import Hybrid
from recsys.models.model_types import model_class
from recsys.settings import Settings

LIMIT = 2.0
ROUNDS = 3
NOW = 1_800_000_000
BASE = {
    "item_knn": {},
    "recent_popularity": {},
    "als": {"factors": 64, "starts": 1, "iterations": 3},
}
WEIGHTS = {
    "item_knn": 1.0,
    "als": 0.4,
    "recent_popularity": 0.5,
    "linear": 1.0,
    "self_attention": 2.0,
}


def main() -> None:
    options = _parse()
    settings, histories = fresh_home("reload_time"), make_histories(USERS, ITEMS)
    joining = {"linear": {}, "self_attention": {"layers": options.layers, "epochs": 1}}
    fitted = {
        name: model_class(name).create(parameters).fit(histories, ITEMS)
        for name, parameters in (BASE | joining).items()
    }
    print(f"input: {USERS:,} users, {ITEMS:,} products, {len(histories.items):,} entries")
    first = ratio = 0.0
    for members in ([], ["linear"], ["self_attention"], list(joining)):
        names = [*BASE, *members]
        blend = Hybrid.of_fitted(
            {name: fitted[name] for name in names}, {name: WEIGHTS[name] for name in names}
        )
        name = "-".join(["hybrid", *members])
        folder = add_model(settings, blend, histories, ITEMS, name)
        with threadpool_limits(limits=1):
            seconds = min(_loading_seconds(settings, folder, name) for _ in range(ROUNDS))
            wait = _wait_of_one(blend, histories)
        first = first or seconds
        ratio = seconds / first
        told = f"{seconds:.2f} s of processor time, {ratio:.2f} times; one customer {wait:.2f} ms"
        print(f"{name}: {told}", flush=True)
    print(f"with both: {ratio:.2f} times (at most {LIMIT} wanted)")
    if ratio > LIMIT:
        sys.exit("above the limit")


def _loading_seconds(settings: Settings, folder: Path, name: str) -> float:
    begun = time.process_time()
    load_snapshot(settings, folder, name, list_seconds=600)
    return time.process_time() - begun


def _wait_of_one(model: Model, histories: Histories) -> float:
    """Median milliseconds for the scores of one customer."""
    waits = []
    for user in range(200):
        one = take_users(histories, np.array([user]))
        begun = time.process_time()
        model.score(one, NOW)
        waits.append(time.process_time() - begun)
    return 1_000 * float(np.median(waits))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2, help="of the sequence model")
    return parser.parse_args()


if __name__ == "__main__":
    main()
