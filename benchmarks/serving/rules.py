"""Claim: with ten active rules of all actions and a spread over brands and categories, /recommend
makes at least 0.75 of the requests/s of a bare FastAPI route with the same models.

    python -m benchmarks.serving.rules [--seconds 2] [--rounds 12] [--model als]

As benchmarks.serving.recommend: known users, request log on and lists recorded, the servers in
short turns within one run, a rate counts by its ratio to that of the bare route in the same round.
Asked are lists of the placement home, which without rules are as long as those of the bare route.
"""

import argparse
import json
import statistics
import time

import numpy as np

from benchmarks.serving.harness import (
    add_model,
    free_port,
    fresh_home,
    make_histories,
    post,
    processor_seconds,
    running,
    wrk,
)
from benchmarks.serving.recommend import ITEMS, USERS
from recsys.models.model_types import model_class
from recsys.settings import Settings

PLACE = "home"
MADE_IN_ADVANCE_SECONDS = 60


def rule(name: str, action: str, meant: dict, **own: object) -> dict:
    return {"name": name, "action": action, "products": meant, "author": "lan", "reason": "x"} | own


def ids(*numbers: int) -> list[str]:
    return [str(422_000_000 + number) for number in numbers]


RULES = [
    rule("recalled", "hide", {"brands": ["thuong hieu 3"]}),
    rule("cheap", "hide", {"categories": ["nhom hang 4"], "max_price": 100_000}),
    rule("sets", "pin", {"ids": ids(5, 6)}, position=2),
    rule("partner", "pin", {"ids": ids(9)}, position=7),
    rule("season", "boost", {"brands": ["thuong hieu 8"]}, strength=0.5),
    rule("margin", "boost", {"categories": ["nhom hang 9"]}, strength=0.3),
    rule("low-margin", "bury", {"max_price": 50_000}, strength=0.4),
    rule("few", "limit", {"categories": ["nhom hang 1"]}, at_most=2),
    rule("dear", "limit", {"min_price": 700_000}, at_most=3),
    rule("own-brand", "quota", {"brands": ["thuong hieu 20"]}, at_least=1),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--model", default="als")
    options = parser.parse_args()

    plain, steered = fresh_home("rules_none"), fresh_home("rules_ten")
    write(steered, "rules.yaml", json.dumps({"rules": RULES}))
    spread = "placements: {home: {spread: {brand: 3, category: 4}}}\n"
    write(steered, "placements.yaml", spread)
    histories = make_histories(USERS, ITEMS)
    parameters = {"factors": 64, "starts": 1, "iterations": 3} if options.model == "als" else {}
    model = model_class(options.model).create(parameters).fit(histories, ITEMS)
    for one in (plain, steered):
        add_model(one, model, histories, ITEMS, f"{options.model}_bench")

    ports = {"bare": free_port(), "without rules": free_port(), "ten rules": free_port()}
    rates: dict[str, list[float]] = {name: [] for name in ports}
    costs: dict[str, list[float]] = {name: [] for name in ports}
    with (
        running(["-m", "benchmarks.serving.bare"], ports["bare"]) as bare,
        running(["-m", "serving"], ports["without rules"], plain.home) as without,
        running(["-m", "serving"], ports["ten rules"], steered.home) as service,
    ):
        processes = {"bare": bare, "without rules": without, "ten rules": service}
        time.sleep(MADE_IN_ADVANCE_SECONDS)
        body = {"user_id": 7, "placement": PLACE}
        for name in ("without rules", "ten rules"):
            listed = post(ports[name], "/recommend", body)["recommendations"]
            print(f"{name}: {[row['product_id'][-4:] for row in listed]}")
        for number in range(options.rounds):
            for name, port in list(ports.items())[:: -1 if number % 2 else 1]:
                before = processor_seconds(processes[name])
                rates[name].append(wrk(port, USERS, options.seconds, placement=PLACE))
                used = processor_seconds(processes[name]) - before
                costs[name].append(used / (rates[name][-1] * options.seconds) * 1e6)

    print(f"input: {USERS} users x {ITEMS} products, {options.model}, topk 10, {len(RULES)} rules")
    for name, found in rates.items():
        cost = statistics.median(costs[name])
        print(f"{name}: {statistics.median(found):.0f} requests/s, {cost:.0f} microseconds each")
    for name in ("without rules", "ten rules"):
        ratio = float(np.median(np.divide(rates[name], rates["bare"])))
        by_cost = statistics.median(costs["bare"]) / statistics.median(costs[name])
        wanted = " (wanted: 0.75)" if name == "ten rules" else ""
        print(f"{name} / bare: {ratio:.2f}{wanted}, by processor time {by_cost:.2f}")


def write(settings: Settings, name: str, text: str) -> None:
    (settings.home / "config" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
