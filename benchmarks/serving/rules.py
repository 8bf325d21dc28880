"""Claim: with ten active rules of all actions and a spread over brands and categories, /recommend
makes at least 0.75 of the requests/s of a bare FastAPI route with the same models.

    python -m benchmarks.serving.rules [--seconds 2] [--rounds 12] [--model als]

As benchmarks.serving.recommend: known users, request log on and lists recorded, the servers in
short turns within one run, a rate counts by its ratio to that of the bare route in the same round.
Asked are lists of the placement home, which without rules are as long as those of the bare route,
when all that is made beside the requests is made.
"""

import argparse
import json

from benchmarks.serving.harness import (
    ITEMS,
    USERS,
    add_model,
    fit_model,
    free_port,
    fresh_home,
    in_turns,
    post,
    running,
    wait_until_idle,
    wrk,
)
from recsys.settings import Settings

PLACE = "home"


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


def steer(settings: Settings) -> None:
    """Let all `RULES` and a spread decide about the lists of `PLACE`."""
    spread = "placements: {home: {spread: {brand: 3, category: 4}}}\n"
    for name, text in (("rules.yaml", json.dumps({"rules": RULES})), ("placements.yaml", spread)):
        (settings.home / "config" / name).write_text(text, encoding="utf-8")


def ask(port: int, seconds: int) -> float:
    return wrk(port, USERS, seconds, placement=PLACE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--model", default="als")
    options = parser.parse_args()

    plain, steered = fresh_home("rules_none"), fresh_home("rules_ten")
    steer(steered)
    model, histories = fit_model(options.model)
    for one in (plain, steered):
        add_model(one, model, histories, ITEMS, f"{options.model}_bench")

    ports = {"bare": free_port(), "without rules": free_port(), "ten rules": free_port()}
    with (
        running(["-m", "benchmarks.serving.bare"], ports["bare"]) as bare,
        running(["-m", "serving"], ports["without rules"], plain.home) as without,
        running(["-m", "serving"], ports["ten rules"], steered.home) as service,
    ):
        wait_until_idle(service)
        body = {"user_id": 7, "placement": PLACE}
        for name in ("without rules", "ten rules"):
            listed = post(ports[name], "/recommend", body)["recommendations"]
            print(f"{name}: {[row['product_id'][-4:] for row in listed]}")
        processes = (bare, without, service)
        servers = {name: (ports[name], one) for name, one in zip(ports, processes, strict=True)}
        turns = in_turns(servers, ask, options.rounds, options.seconds)

    print(f"input: {USERS} users x {ITEMS} products, {options.model}, topk 10, {len(RULES)} rules")
    for name in ports:
        rate, cost = turns.rate(name), turns.cost(name)
        print(f"{name}: {rate:.0f} requests/s, {cost:.0f} microseconds each")
    for name in ("without rules", "ten rules"):
        ratio, by_cost = turns.ratio(name, "bare"), turns.cost_ratio(name, "bare")
        wanted = " (wanted: 0.75)" if name == "ten rules" else ""
        print(f"{name} / bare: {ratio:.2f}{wanted}, by processor time {by_cost:.2f}")
    by_rate, by_cost = (
        turns.ratio("ten rules", "without rules"),
        turns.cost_ratio("ten rules", "without rules"),
    )
    print(f"ten rules / without: {by_rate:.2f}, by processor time {by_cost:.2f}")


if __name__ == "__main__":
    main()
