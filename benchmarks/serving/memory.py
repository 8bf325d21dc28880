"""Claim: a worker takes at most 1.3 times the arrays plus 150 MB, and does not grow with requests.

    python -m benchmarks.serving.memory [--requests 1000000] [--rules]

With `--rules` ten rules and a spread decide about the lists, as in benchmarks.serving.rules. The
arrays are all .npy files of the artefact; memory is the worker's proportional set size.
"""

import argparse

import psutil

from benchmarks.serving.harness import (
    ITEMS,
    USERS,
    add_model,
    fit_model,
    free_port,
    fresh_home,
    running,
    wait_until_idle,
    wrk,
)
from benchmarks.serving.rules import PLACE, steer

_ROUND_SECONDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rules", action="store_true")
    options = parser.parse_args()
    settings = fresh_home("memory")
    if options.rules:
        steer(settings)
    placement = PLACE if options.rules else ""
    model, histories = fit_model("als")
    path = add_model(settings, model, histories, ITEMS, "als_bench")
    arrays = sum(file.stat().st_size for file in path.rglob("*.npy")) / 1e6
    port = free_port()
    with running(["-m", "serving"], port, settings.home) as parent:
        if options.rules:
            wait_until_idle(parent)
        [worker] = psutil.Process(parent.pid).children()
        sizes = [worker.memory_full_info().pss / 1e6]
        served = 0.0
        while served < options.requests:
            served += wrk(port, USERS, _ROUND_SECONDS, placement=placement) * _ROUND_SECONDS
            sizes.append(worker.memory_full_info().pss / 1e6)
    print(f"input: {USERS} users x {ITEMS} products x 64 factors, arrays {arrays:.0f} MB")
    wanted = f"at most {1.3 * arrays + 150:.0f} MB wanted"
    print(f"worker: {sizes[0]:.0f} MB before the first request, {wanted}")
    print(
        f"after {served:.0f} requests: {sizes[-1]:.0f} MB; on the way {[round(s) for s in sizes]}"
    )


if __name__ == "__main__":
    main()
