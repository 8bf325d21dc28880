"""Claim: at most 1 false alarm in 100 drift-free weeks, and the changes that matter are found.

Simulated shops (see `shops`) of 200 to 100,000 reviews a week. False alarms: the share of weeks
in which anything at all was raised. Detection: the change starts in some week and stays; what
share of changes is evidence in the first week, and raised by the second.

The reference measured beside it is what the naive rules do on the same weeks: PSI > 0.1 and
chi-square at p < .05 on the stars (the same two rules that this report replaces).

    python -m benchmarks.drift.power [--scale 1.0] [--sizes 200 500]
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import numpy as np

from benchmarks.drift.shops import Habits, Shop, joined, with_star_shift, with_turnover
from recsys.config import load_config
from recsys.drift.checks import Check, sentence_keys
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.drift.examination import Material, check_week, judge
from recsys.drift.ratings import count_stars
from recsys.drift.statistics import g_test, population_stability_index
from recsys.drift.weeks import Events, Week
from recsys.settings import load_settings

ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
NO_HOLIDAYS = HolidayCalendar()
FIRST = 2_700  # some week number
BURN_IN = 29
WATCHED = 30  # weeks of a shop that are judged
DETECTIONS = 6  # changes tried on a shop
# size -> shops without drift
SHOPS = {200: 36, 500: 36, 1_000: 18, 5_000: 8, 20_000: 3, 100_000: 1}
CHANGES: dict[str, Callable[[np.random.Generator], Habits]] = {
    "stars, 10 points": lambda rng: with_star_shift(0.10),
    "volume -30 %": lambda rng: Habits(volume=0.7),
    "volume +30 %": lambda rng: Habits(volume=1.3),
    "turnover 30 of 100": lambda rng: with_turnover(30, 100, rng),
}


@dataclass
class Tally:
    weeks: int = 0
    raised: int = 0
    evidence: int = 0
    medium: int = 0
    psi: int = 0
    chi_square: int = 0
    names: list[str] = field(default_factory=list)
    changes: int = 0
    first: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)


EXPECTED = {
    "stars, 10 points": "rating",
    "volume -30 %": "volume",
    "volume +30 %": "volume",
    "turnover 30 of 100": "popularity",
}


def checks_of(events: Events, number: int, config: DriftConfig) -> list[Check]:
    keys = None
    if events.comments is not None:
        keys = sentence_keys(events.comments)
    return list(check_week(Material(events, keys), Week(number, ZONE), config, NO_HOLIDAYS)[1])


def watch(task: tuple[int, int]) -> Tally:
    """One shop: judge its drift-free weeks, then let changes begin in some of them."""
    size, seed = task
    config = load_config(load_settings(), DriftConfig)
    shop, tally = Shop(size, FIRST + BURN_IN, seed), Tally()
    weeks = {FIRST + k: shop.week(FIRST + k) for k in range(BURN_IN + WATCHED)}
    before: list[Check] = []
    for number in range(FIRST + BURN_IN, FIRST + BURN_IN + WATCHED):
        events = joined([weeks[k] for k in range(number - BURN_IN + 1, number + 1)])
        checks = checks_of(events, number, config)
        if before:
            _count_quiet_week(tally, checks, before, config)
            _count_naive_rules(tally, events, number)
        before = checks
    rng = np.random.default_rng([size, seed, 1])
    starts = rng.choice(np.arange(BURN_IN, BURN_IN + WATCHED - 1), DETECTIONS, replace=False)
    for start in FIRST + starts[: max(1, DETECTIONS if size < 20_000 else 4)]:
        tally.changes += 1
        for name, change in CHANGES.items():
            habits = change(rng)
            _count_change(tally, name, shop, weeks, int(start), habits, config)
    return tally


def _count_quiet_week(
    tally: Tally, checks: list[Check], before: list[Check], config: DriftConfig
) -> None:
    verdicts = judge(checks, before, config.false_discovery_rate)
    tally.weeks += 1
    tally.raised += any(verdict.raised for verdict in verdicts)
    tally.medium += any(verdict.severity != "low" for verdict in verdicts)
    tally.evidence += any(verdict.evidence for verdict in verdicts)
    tally.names += [verdict.check.name for verdict in verdicts if verdict.raised]


def _count_naive_rules(tally: Tally, events: Events, number: int) -> None:
    new = count_stars(events.between(number, number + 1).ratings)
    old = count_stars(events.between(number - 13, number - 1).ratings)
    tally.psi += population_stability_index(old, new) > 0.1
    tally.chi_square += g_test(old, new)[1] < 0.05


def _count_change(
    tally: Tally,
    name: str,
    shop: Shop,
    weeks: dict[int, Events],
    start: int,
    habits: Habits,
    config: DriftConfig,
) -> None:
    changed = [shop.week(start, habits), shop.week(start + 1, habits)]
    history = [weeks[number] for number in range(start - BURN_IN + 1, start)]
    first = checks_of(joined([*history, changed[0]]), start, config)
    second = checks_of(joined([*history, *changed]), start + 1, config)
    quiet: list[Check] = []
    seen = {v.check.name: v for v in judge(first, quiet, config.false_discovery_rate)}
    then = {v.check.name: v for v in judge(second, first, config.false_discovery_rate)}
    expected = EXPECTED[name]
    tally.first[name] = tally.first.get(name, 0) + seen[expected].evidence
    found = seen[expected].raised or then[expected].raised
    tally.found[name] = tally.found.get(name, 0) + found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of shops")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SHOPS))
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    columns = " | ".join(CHANGES)
    print(f"| reviews a week | drift-free weeks | any alarm | PSI > 0.1 | chi-square | {columns} |")
    print("|---" * (5 + len(CHANGES)) + "|")
    with ProcessPoolExecutor(arguments.processes) as pool:
        for size in arguments.sizes:
            began = time.perf_counter()
            shops = max(1, round(SHOPS[size] * arguments.scale))
            tallies = list(pool.map(watch, [(size, seed) for seed in range(shops)]))
            _print_row(size, tallies, time.perf_counter() - began)


def _print_row(size: int, tallies: list[Tally], seconds: float) -> None:
    def total(name: str) -> int:
        return sum(getattr(tally, name) for tally in tallies)

    weeks, changes = total("weeks"), total("changes")
    cells = [
        f"{size:,}",
        f"{weeks:,}",
        f"{100 * total('raised') / weeks:.2f} %",
        f"{100 * total('psi') / weeks:.1f} %",
        f"{100 * total('chi_square') / weeks:.1f} %",
    ]
    for name in CHANGES:
        first = sum(tally.first[name] for tally in tallies)
        found = sum(tally.found[name] for tally in tallies)
        cells.append(f"{100 * found / changes:.1f} % ({100 * first / changes:.1f} %)")
    names = sorted({name for tally in tallies for name in tally.names})
    print("| " + " | ".join(cells) + " |", flush=True)
    print(
        f"<!-- {changes} changes; evidence in {100 * total('evidence') / weeks:.2f} % of quiet "
        f"weeks; raised: {names}; {seconds:.0f} s -->",
        flush=True,
    )


if __name__ == "__main__":
    main()
