"""What a pass of the sequence model costs, and what one customer waits for its scores.

    python -m benchmarks.models.sequence --data ../shared/data/amazon_beauty/Beauty.txt

Reference of the same run: the fold-in of ALS (four starts of 32 factors), which the service has
asked so far. Single-threaded as a worker of the service is, one customer at a time, all products
scored. Limits: p50 at most 2 ms, NumPy within 1e-4 of torch.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.quality.sequences import Sequences
from recsys.arrays import Float64Array
from recsys.models import self_attention_training as training
from recsys.models.als import Als
from recsys.models.base import Histories, Model
from recsys.models.histories import histories_from_codes, take_users, user_rows
from recsys.models.self_attention import SelfAttention

CUSTOMERS = 1_000
P50_MS, PARITY = 2.0, 1e-4


def main() -> None:
    options = _parse()
    data = Sequences(options.data)
    print(f"{data.training.users:,} users, {data.items:,} items, {torch.get_num_threads()} threads")
    model = SelfAttention.create({"epochs": options.passes}, seed=1)
    begun = time.monotonic()

    def progress(number: int, measured: dict[str, float]) -> None:
        nonlocal begun
        now = time.monotonic()
        print(f"pass {number}: {now - begun:.1f} s, loss {measured['loss']:.4f}", flush=True)
        begun = now

    model.fit(data.training, data.items, progress)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory of the process: {memory:.2f} GB")
    als = Als.create({"iterations": 2}, seed=1).fit(data.training, data.items)
    chosen = np.random.default_rng(0).choice(data.test.users, CUSTOMERS, replace=False)
    asked = take_users(data.test.histories, chosen)
    with threadpool_limits(limits=1, user_api="blas"):
        waits = {one.model_type: waits_of(one, asked) for one in (als, model)}
    for name, milliseconds in waits.items():
        p50, p99 = np.percentile(milliseconds, [50, 99])
        print(f"{name}: one customer p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    apart = parity(model, asked)
    print(f"NumPy and torch: at most {apart:.1e} apart")
    if np.median(waits["self_attention"]) > P50_MS or apart > PARITY:
        sys.exit("above the limits")


def waits_of(model: Model, asked: Histories) -> Float64Array:
    """``(users,)`` milliseconds for the scores of each."""
    alone = [take_users(asked, np.array([user])) for user in range(asked.users)]
    for one in alone[:20]:
        model.score(one, 0)
    waits = np.empty(len(alone))
    for place, one in enumerate(alone):
        begun = time.perf_counter()
        model.score(one, 0)
        waits[place] = 1_000 * (time.perf_counter() - begun)
    return waits


def parity(model: SelfAttention, asked: Histories) -> float:
    """The largest difference of a score of `asked` by torch and by NumPy."""
    chosen = model._parameters
    asked = take_users(asked, np.flatnonzero(np.diff(asked.indptr) <= chosen.length))
    network = training.Network(len(model.item_vectors), chosen).eval()
    # Torch answers what comes after each moment: some product a day later.
    users = np.arange(asked.users)
    more = histories_from_codes(
        np.concatenate([user_rows(asked), users]),
        np.concatenate([asked.items, np.zeros_like(users)]),
        np.concatenate([asked.times, np.full(len(users), asked.times.max() + 1)]),
        count=len(users),
    )
    lessons = training.Lessons(more, chosen.length)
    with torch.no_grad():
        for name, array in {**model._weights, "vectors": model.item_vectors[:, :-1]}.items():
            network.get_parameter(name).copy_(torch.from_numpy(np.array(array)))
        batch = training._batch(lessons, users, chosen.length, torch.device("cpu"))
        answered = network(batch).numpy()[np.cumsum(lessons.answers) - 1]
    return float(np.abs(answered @ model.item_vectors[:, :-1].T - model.score(asked, 0)).max())


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the file of sequences")
    parser.add_argument("--passes", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
