"""What customers who are forgotten cost everybody else.

    python -m benchmarks.serving.forgotten [--customers 1000] [--seconds 2] [--rounds 12]

`wrk` asks for random known users, one core for it and one for the server. One service has nobody in
its register, the other has some; they run in turns within one run, every other round in the other
order. A forgotten customer is somebody whom nobody asks for: what is measured is the look whether
one is. The reference is the first service.
"""

import argparse

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
    wait_until_idle,
    wrk,
)
from recsys.ids import IdRules
from recsys.privacy import ask_to_forget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--customers", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    model, histories = fit_model("als")
    nobody, some = fresh_home("nobody_forgotten"), fresh_home("some_forgotten")
    for settings in (nobody, some):
        add_model(settings, model, histories, ITEMS, "als_bench")
    gone = [f"gone-{number}" for number in range(options.customers)]
    ask_to_forget(some, gone, "benchmark", IdRules())
    ports = {"nobody": free_port(), "some": free_port()}
    with (
        running(["-m", "serving"], ports["nobody"], nobody.home) as first,
        running(["-m", "serving"], ports["some"], some.home) as second,
    ):
        servers = {"nobody": (ports["nobody"], first), "some": (ports["some"], second)}
        for port, process in servers.values():
            ask(port, 3)
            wait_until_idle(process)
        turns = in_turns(servers, ask, options.rounds, options.seconds)
    print(f"input: {USERS} users x {ITEMS} products, als, {options.customers} who are forgotten")
    for name in servers:
        rates, costs = turns.rates[name], turns.costs[name]
        print(
            f"{name} forgotten: {turns.rate(name):.0f} requests/s, {turns.cost(name):.1f} "
            f"microseconds of processor time each (rounds {np.round(rates)}, {np.round(costs, 1)})"
        )
    print(f"rate, some / nobody: {turns.ratio('some', 'nobody'):.3f}")
    more = turns.cost("some") - turns.cost("nobody")
    print(f"processor time: {more:+.1f} microseconds a request")


def ask(port: int, seconds: int) -> float:
    return wrk(port, USERS, seconds)


if __name__ == "__main__":
    main()
