"""How long ranking takes beside the bare matrix products that it needs.

    python -m benchmarks.models.evaluation

Both are measured in the same run on the same arrays, one after the other, three times; the best of
each counts. Limit: 3 times.
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np

from recsys.arrays import Float32Array
from recsys.evaluation.ranking import BLOCK, HeldOut, rank_targets
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes

LIMIT = 3.0
ROUNDS = 3


class Factors:
    """Inner products of given user vectors; the history's time is the user's number."""

    def __init__(self, users: Float32Array, items: Float32Array) -> None:
        self.users, self.items = users, items

    def score(self, histories: Histories, now: np.ndarray) -> Float32Array:
        return self.users[now] @ self.items.T


def main() -> None:
    options = _parse()
    ratios = [_compare(options.users, options.items, factors) for factors in (64, 256)]
    if max(ratios) > LIMIT:
        sys.exit("too slow")


def _compare(users: int, items: int, factors: int) -> float:
    model, questions = _input(users, items, factors)
    bare, ranking = [], []
    for _ in range(ROUNDS):
        bare.append(_seconds(lambda: _products(model)))
        ranking.append(_seconds(lambda: rank_targets(model, questions)))
    ratio = min(ranking) / min(bare)
    print(
        f"input: {users:,} users x {items:,} items, {factors} factors: ranking "
        f"{min(ranking):.2f} s, matrix products {min(bare):.2f} s, ratio {ratio:.2f} "
        f"(limit {LIMIT:g})",
        flush=True,
    )
    return ratio


def _products(model: Factors) -> None:
    for start in range(0, len(model.users), BLOCK):
        _ = model.users[start : start + BLOCK] @ model.items.T


def _input(users: int, items: int, factors: int) -> tuple[Factors, HeldOut]:
    generator = np.random.default_rng(0)
    model = Factors(
        generator.normal(size=(users, factors)).astype(np.float32),
        generator.normal(size=(items, factors)).astype(np.float32),
    )
    entries = users * 8
    histories = histories_from_codes(
        np.repeat(np.arange(users), 8),
        generator.integers(0, items, entries),
        np.zeros(entries, dtype=np.int64),
        count=users,
    )
    targets = generator.integers(0, items, users).astype(np.int32)
    return model, HeldOut(histories, np.arange(users), np.arange(users + 1), targets)


def _seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=22_363)
    parser.add_argument("--items", type=int, default=12_101)
    return parser.parse_args()


if __name__ == "__main__":
    main()
