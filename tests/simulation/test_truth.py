"""The truth of simulated traffic is that of the rule, looked up list by list."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from recsys.schema import Kind
from recsys.simulation import WINDOWS, Disorder, Traffic, simulate, truth_of
from recsys.simulation.traffic import KINDS
from tests.simulation.worlds import period, traffic, world

ALL = Disorder(late=0.1, repeated=0.2, doubled=0.3, strange=0.1)


def looked_up(made: Traffic) -> set[tuple[int, int, str, int]]:
    """List, product, kind and event number of all that counts, one event after the other."""
    shown, events = made.lists.shown, made.events
    held = defaultdict(list)  # by who and product: lists
    for row, products in enumerate(made.lists.products.tolist()):
        for product in products:
            held["visit", shown.visits[row], product].append(row)
            if shown.known[row]:
                held["customer", shown.customers[row], product].append(row)

    def list_of(row: int) -> int | None:
        if events.strange[row]:
            return None
        if events.named[row]:
            return int(events.lists[row])
        product, time = events.products[row], events.times[row] / 1000
        kind = KINDS[events.kinds[row]]
        found = held["visit", events.visits[row], product]
        found = [*found, *held["customer", events.customers[row], product]]
        hours = WINDOWS.get(kind, -1)
        fits = [one for one in found if 0 <= time - shown.times[one] <= hours * 3_600_000]
        return max(fits, default=None)

    first: dict[tuple[int, int, str], tuple[int, int]] = {}
    people = len(made.customer_ids) - made.robots
    for row in range(len(events)):
        kind, at = KINDS[events.kinds[row]], list_of(row)
        if kind is Kind.RATING or at is None or shown.customers[at] >= people:
            continue
        key = at, int(events.products[row]), str(kind)
        event = int(events.times[row]), int(events.numbers[row])
        first[key] = min(event, first.get(key, event))
    return {(*key, number) for key, (_, number) in first.items()}


@pytest.mark.parametrize(("seed", "days", "robots"), [(0, 9, 0), (1, 9, 0), (2, 30, 0), (3, 1, 1)])
def test_the_truth_is_what_looking_up_each_event_gives(seed, days, robots):
    disorder = replace(ALL, robots=robots)
    made = traffic(1_500, seed=seed, rated=0.2, disorder=disorder, days=days)
    truth = truth_of(made)
    events = made.events.take(truth.rows)
    columns = (truth.lists, events.products, events.kinds, events.numbers)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    found = [(at, product, str(KINDS[kind]), number) for at, product, kind, number in rows]
    assert len(found) == len(set(found))
    assert set(found) == looked_up(made)
    assert not events.named.all()


def test_totals_are_by_the_day_of_the_list_and_without_robots():
    made = traffic(2_000, disorder=replace(ALL, robots=1))
    truth = truth_of(made)
    totals, events = truth.totals(), made.events.take(truth.rows)
    assert totals["lists"].sum() == 2_000
    assert totals["clicks"].sum() == np.sum(events.kinds == KINDS.index(Kind.CLICK))
    paid = events.kinds == KINDS.index(Kind.PURCHASE)
    assert totals["value"].sum() == pytest.approx(events.values[paid].sum())
    assert len(totals) == 15
    assert (totals["users"] <= totals["lists"]).all()


def test_a_named_list_counts_however_late_the_event_is():
    made = simulate(world(customers=3_000), period(28), 20_000)
    truth = truth_of(made)
    events = made.events.take(truth.rows)
    waited = events.times / 1000 - made.lists.shown.times[truth.lists]
    week = 7 * 86_400_000
    assert (waited[events.named] > week).any()
    assert (waited[~events.named] <= week).all()
