"""Claim: /bought_together for carts of three products, lists recorded, makes at least a fifth of
the requests/s of a bare FastAPI route with the same models.

    python -m benchmarks.serving.together [--seconds 2] [--rounds 12]

As benchmarks.serving.recommend: servers in short turns within one run, a rate counts by its ratio
to that of the bare route in the same round. The carts are random, the lists those of the placement
cart; what goes with what is learned from the histories of the shop.
"""

import argparse
import json

import numpy as np

from benchmarks.serving.harness import (
    ITEMS,
    add_model,
    fit_model,
    free_port,
    fresh_home,
    in_turns,
    load,
    post,
    running,
)
from recsys.models.complements import learn_complements

CART = ".. ',' .. ".join(f"math.random(422000000, {422_000_000 + ITEMS - 1})" for _ in range(3))
BODY = f"""'{{"product_ids":[' .. {CART} .. '],"placement":"cart"}}'"""


def ask(port: int, seconds: int) -> float:
    return load(port, "/bought_together", BODY, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()

    settings = fresh_home("together")
    model, histories = fit_model("als")
    numbers = np.arange(ITEMS, dtype=np.int32)
    found = learn_complements(histories, numbers, 1 + numbers % 30, None)
    add_model(settings, model, histories, ITEMS, "als_bench", found)
    ports = {"bare": free_port(), "service": free_port()}
    with (
        running(["-m", "benchmarks.serving.bare"], ports["bare"]) as bare,
        running(["-m", "serving"], ports["service"], settings.home) as service,
    ):
        body = {"product_ids": [422_000_007], "placement": "cart"}
        print(json.dumps(post(ports["service"], "/bought_together", body))[:200])
        ask(ports["service"], 3)
        servers = {"bare": (ports["bare"], bare), "service": (ports["service"], service)}
        turns = in_turns(servers, ask, options.rounds, options.seconds)
    print(f"input: {ITEMS} products, carts of 3, lists of 5")
    for name in ports:
        rate, cost = turns.rate(name), turns.cost(name)
        print(f"{name}: {rate:.0f} requests/s, {cost:.0f} microseconds each")
    ratio, by_cost = turns.ratio("service", "bare"), turns.cost_ratio("service", "bare")
    print(f"/bought_together / bare: {ratio:.2f}, by processor time {by_cost:.2f}")


if __name__ == "__main__":
    main()
