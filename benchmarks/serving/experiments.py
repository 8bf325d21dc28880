"""Claim: two further models in a running experiment cost a worker their arrays and the lists made
in advance, and /recommend at most 3 microseconds a request.

    python -m benchmarks.serving.experiments [--seconds 8] [--rounds 3]

Memory is the worker's proportional set size. The reference is the same service without the
experiment, asked in turns within one run; its processor time a request is compared, which does not
depend on what else the machine does.
"""

import argparse
import statistics

import psutil

from benchmarks.serving.harness import (
    SERVER_CORE,
    add_model,
    free_port,
    fresh_home,
    make_histories,
    processor_seconds,
    running,
    wrk,
)
from recsys.experiments.definitions import Definition
from recsys.experiments.state import Experiments
from recsys.models.als import Als, AlsParameters

USERS, ITEMS = 26_000, 2_244
MODELS = 3
_BYTES_OF_A_LIST = 400


def definition() -> Definition:
    """A third of the customers for each model; the first one is the deployed."""
    sides = [{"name": "today", "share": 0.34}]
    sides += [{"name": f"side{n}", "share": 0.33, "model_id": f"als_{n}"} for n in (1, 2)]
    asked = {"question": "Which?", "variants": sides, "primary_metric": "clicks_per_list"}
    return Definition.model_validate({"name": "three", **asked})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    histories = make_histories(USERS, ITEMS)
    settings, alone = fresh_home("experiments"), fresh_home("experiments_none")
    parameters = AlsParameters(factors=64, starts=1, iterations=3)
    arrays = []
    for number in reversed(range(MODELS)):  # the last one is selected
        model = Als(parameters, seed=number).fit(histories, ITEMS)
        path = add_model(settings, model, histories, ITEMS, f"als_{number}")
        arrays.append(sum(file.stat().st_size for file in path.rglob("*.npy")) / 1e6)
    add_model(alone, model, histories, ITEMS, "als_0")
    Experiments(settings).start(definition(), by="benchmark")

    ports = {"three models": free_port(), "one model": free_port()}
    costs: dict[str, list[float]] = {name: [] for name in ports}
    sizes: dict[str, float] = {}
    with (
        running(["-m", "serving"], ports["three models"], settings.home, SERVER_CORE) as three,
        running(["-m", "serving"], ports["one model"], alone.home, SERVER_CORE) as one,
    ):
        processes = {"three models": three, "one model": one}
        for name, process in processes.items():
            wrk(ports[name], USERS, 3)
            [worker] = psutil.Process(process.pid).children()
            sizes[name] = worker.memory_full_info().pss / 1e6
        for _ in range(options.rounds):
            for name, port in ports.items():
                before = processor_seconds(processes[name])
                rate = wrk(port, USERS, options.seconds)
                used = processor_seconds(processes[name]) - before
                costs[name].append(used / (rate * options.seconds) * 1e6)
    lists = _BYTES_OF_A_LIST * USERS / 1e6
    allowed = sum(arrays[:-1]) + (MODELS - 1) * lists
    more = sizes["three models"] - sizes["one model"]
    print(
        f"input: {USERS} users x {ITEMS} products x 64 factors, arrays {arrays[-1]:.0f} MB a model"
    )
    print(f"one model {sizes['one model']:.0f} MB, three models {sizes['three models']:.0f} MB")
    print(f"two further models: {more:.0f} MB; arrays and lists of theirs: {allowed:.0f} MB")
    found = {name: statistics.median(cost) for name, cost in costs.items()}
    print(
        f"processor time a request: {found['three models']:.1f} microseconds with the experiment, "
        f"{found['one model']:.1f} without (wanted: at most 3 more); rounds "
        f"{ {name: [round(one, 1) for one in cost] for name, cost in costs.items()} }"
    )


if __name__ == "__main__":
    main()
