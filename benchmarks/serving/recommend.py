"""Claim: /recommend for known users, request log on and lists recorded, makes at least 0.80 of the
requests/s of a bare FastAPI route with the same models, and its p99 at 70 % of that rate is under
15 ms and at most 1.3 times that of a service that records no lists.

    python -m benchmarks.serving.recommend [--seconds 2] [--rounds 12] [--model als]

Server on one core, load on the other, the three servers in short turns within one run, every other
round in the other order: a shared machine's speed changes by a third within seconds, so a rate
counts by its ratio to that of the bare route in the same round. The latencies of
the bare route at the same rate show what the machine and the load generator contribute.
"""

import argparse
import statistics

import numpy as np

from benchmarks.serving.harness import (
    ITEMS,
    USERS,
    add_model,
    fit_model,
    free_port,
    fresh_home,
    in_turns,
    running,
    wrk,
)
from benchmarks.serving.steady import percentiles_at_rate
from recsys.served_lists import read_segment, sealed_lists
from recsys.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--model", default="als")
    options = parser.parse_args()

    settings = fresh_home(f"recommend_{options.model}")
    silent = fresh_home(f"recommend_{options.model}_silent", "record_lists: false\n")
    model, histories = fit_model(options.model)
    for one in (settings, silent):
        add_model(one, model, histories, ITEMS, f"{options.model}_bench")

    ports = {"bare": free_port(), "service": free_port(), "no lists": free_port()}
    latencies: dict[str, list[dict[int, float]]] = {name: [] for name in ports}
    with (
        running(["-m", "benchmarks.serving.bare"], ports["bare"]) as bare,
        running(["-m", "serving"], ports["service"], settings.home) as service,
        running(["-m", "serving"], ports["no lists"], silent.home) as without,
    ):
        processes = (bare, service, without)
        servers = {name: (ports[name], one) for name, one in zip(ports, processes, strict=True)}
        for name in ("service", "no lists"):
            ask(ports[name], 3)
        turns = in_turns(servers, ask, options.rounds, options.seconds)
        rate = turns.rate("service")
        for number in range(options.rounds):
            for name, port in list(ports.items())[:: -1 if number % 2 else 1]:
                found = percentiles_at_rate(port, USERS, 0.7 * rate, options.seconds)
                latencies[name].append(found)

    rounds = {name: np.round(turns.rates[name]) for name in ports}
    print(f"input: {USERS} users x {ITEMS} products, {options.model}, topk 10, request log on")
    print(f"bare FastAPI route: {turns.rate('bare'):.0f} requests/s (rounds {rounds['bare']})")
    print(f"/recommend:         {rate:.0f} requests/s (rounds {rounds['service']})")
    print(f"without lists:      {turns.rate('no lists'):.0f} requests/s")
    print(f"ratio: {turns.ratio('service', 'bare'):.2f} (wanted: 0.80)")
    print(
        f"processor time: {turns.cost('service'):.0f} microseconds a request, bare route "
        f"{turns.cost('bare'):.0f}, ratio {turns.cost_ratio('service', 'bare'):.2f}; without lists "
        f"{turns.cost('no lists'):.0f}"
    )
    for name, found in latencies.items():
        print(
            f"{name} at {0.7 * rate:.0f} requests/s: p50 {_median(found, 50):.2f} ms, "
            f"p99 {_median(found, 99):.2f} ms (wanted: p99 < 15 ms), rounds "
            f"{[round(one[99], 2) for one in found]}"
        )
    with_lists, without_lists = (_median(latencies[name], 99) for name in ("service", "no lists"))
    print(f"p99 with lists / without: {with_lists / without_lists:.2f} (wanted: at most 1.3)")
    print(f"lists recorded: {count_lists(settings)}")


def ask(port: int, seconds: int) -> float:
    return wrk(port, USERS, seconds)


def count_lists(settings: Settings) -> int:
    """Lists in the segments; raises if one was lost."""
    segments = [read_segment(path) for path in sealed_lists(settings).glob("*.lists")]
    if lost := sum(segment.lost for segment in segments):
        raise RuntimeError(f"{lost} lists were not recorded")
    return sum(len(block.id) for segment in segments for block in segment.blocks)


def _median(found: list[dict[int, float]], level: int) -> float:
    return statistics.median(one[level] for one in found)


if __name__ == "__main__":
    main()
