"""Claim: /recommend for known users, request log on, makes at least 0.65 of the requests/s of a
bare FastAPI route with the same models, and its p99 is under 15 ms at 70 % of that rate.

    python -m benchmarks.serving.recommend [--seconds 8] [--rounds 3] [--model als]

Server on one core, load on the other, both servers in turns within one run.
"""

import argparse
import statistics

import numpy as np

from benchmarks.serving.harness import (
    add_model,
    free_port,
    fresh_home,
    make_histories,
    running,
    wrk,
)
from benchmarks.serving.steady import percentiles_at_rate
from recsys.models.families import family_of

USERS, ITEMS = 26_000, 2_244


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="als")
    options = parser.parse_args()

    settings = fresh_home(f"recommend_{options.model}")
    histories = make_histories(USERS, ITEMS)
    parameters = {"factors": 64, "iterations": 3} if options.model == "als" else {}
    model = family_of(options.model).create(parameters).fit(histories, ITEMS)
    add_model(settings, model, histories, ITEMS, f"{options.model}_bench")

    bare_port, port = free_port(), free_port()
    bare_rates, rates = [], []
    with (
        running(["-m", "benchmarks.serving.bare"], bare_port),
        running(["-m", "serving"], port, settings.home),
    ):
        wrk(port, USERS, 3)
        for _ in range(options.rounds):
            bare_rates.append(wrk(bare_port, USERS, options.seconds))
            rates.append(wrk(port, USERS, options.seconds))
        rate, bare = statistics.median(rates), statistics.median(bare_rates)
        latencies = percentiles_at_rate(port, USERS, 0.7 * rate, 2 * options.seconds)

    print(f"input: {USERS} users x {ITEMS} products, {options.model}, topk 10, request log on")
    print(f"bare FastAPI route: {bare:.0f} requests/s (rounds {np.round(bare_rates)})")
    print(f"/recommend:         {rate:.0f} requests/s (rounds {np.round(rates)})")
    print(f"ratio: {rate / bare:.2f} (wanted: 0.65, hybrid 0.45)")
    print(
        f"at {0.7 * rate:.0f} requests/s: p50 {latencies[50]:.2f} ms, p99 {latencies[99]:.2f} ms "
        "(wanted: p99 < 15 ms)"
    )


if __name__ == "__main__":
    main()
