"""Claim: of 100,000 random requests to small random shops, under random rules and placements, every
list is the one that the words of docs/placements.md make: no rule, filter, spread or availability
is broken, and no list is short while a product is left that breaks nothing.

    python -m benchmarks.serving.steering [--shops 1000] [--first 0] [--requests 100]
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.merchandising.steered_shops import cases, check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shops", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()

    paths: Counter[str] = Counter()
    wrong, full, first, started = 0, 0, "", time.perf_counter()
    for seed in range(options.first, options.first + options.shops):
        with tempfile.TemporaryDirectory() as folder:
            for case in cases(seed, Path(folder), options.requests):
                paths[case.path] += 1
                full += len(case.made.ranked.items) == case.wanted.topk
                try:
                    check(case)
                except AssertionError as error:
                    wrong, first = wrong + 1, first or f"shop {seed}: {error}"
    print(f"input: {options.shops} shops, {paths.total()} requests {dict(paths)}")
    print(f"lists that are not as the page says: {wrong} (wanted: 0) {first}")
    print(f"full lists: {full}, all others for want of products")
    print(f"seconds: {time.perf_counter() - started:.0f}")


if __name__ == "__main__":
    main()
