"""Claim: a worker takes at most 1.3 times the arrays plus 150 MB, and does not grow with requests.

    python -m benchmarks.serving.memory [--requests 1000000]

The arrays are all .npy files of the artefact; memory is the worker's proportional set size.
"""

import argparse

import psutil

from benchmarks.serving.harness import (
    add_model,
    free_port,
    fresh_home,
    make_histories,
    running,
    wrk,
)
from recsys.models.als import Als, AlsParameters

USERS, ITEMS = 26_000, 2_244
_ROUND_SECONDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    options = parser.parse_args()
    settings = fresh_home("memory")
    histories = make_histories(USERS, ITEMS)
    model = Als(AlsParameters(factors=64, starts=1, iterations=3)).fit(histories, ITEMS)
    path = add_model(settings, model, histories, ITEMS, "als_bench")
    arrays = sum(file.stat().st_size for file in path.rglob("*.npy")) / 1e6
    port = free_port()
    with running(["-m", "serving"], port, settings.home) as parent:
        [worker] = psutil.Process(parent.pid).children()
        sizes = [worker.memory_full_info().pss / 1e6]
        served = 0.0
        while served < options.requests:
            served += wrk(port, USERS, _ROUND_SECONDS) * _ROUND_SECONDS
            sizes.append(worker.memory_full_info().pss / 1e6)
    print(f"input: {USERS} users x {ITEMS} products x 64 factors, arrays {arrays:.0f} MB")
    print(f"worker: {sizes[0]:.0f} MB at start, at most {1.3 * arrays + 150:.0f} MB wanted")
    print(
        f"after {served:.0f} requests: {sizes[-1]:.0f} MB; on the way {[round(s) for s in sizes]}"
    )


if __name__ == "__main__":
    main()
