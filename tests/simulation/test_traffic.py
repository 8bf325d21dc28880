"""Simulated traffic is reproducible, and customers in it behave like customers."""

from dataclasses import fields
from uuid import UUID

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.schema import Kind
from recsys.simulation import Disorder, Side, Traffic, by_popularity, by_taste, simulate
from recsys.simulation.traffic import KINDS
from tests.simulation.worlds import END, period, traffic, world

ALL = Disorder(late=0.1, repeated=0.1, doubled=0.1, strange=0.1, robots=1)


@pytest.fixture(scope="module")
def usual() -> Traffic:
    return traffic(20_000, rated=0.3, sides=(Side(share=0.5), Side(by_popularity, 0.5)))


def of_kind(made: Traffic, kind: Kind):
    return made.events.take(made.events.kinds == KINDS.index(kind))


def columns(made: Traffic) -> dict[str, np.ndarray]:
    events = {one.name: getattr(made.events, one.name) for one in fields(made.events)}
    return {**events, **made.lists.shown._asdict(), "lists_of": made.lists.products}


def test_the_same_seed_gives_the_same_traffic_and_another_seed_another():
    first, again, other = (columns(traffic(seed=seed, disorder=ALL)) for seed in (1, 1, 2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    assert not np.array_equal(first["lists_of"], other["lists_of"])


def test_lists_are_clicked_less_the_further_down(usual):
    clicks = of_kind(usual, Kind.CLICK)
    rates = np.bincount(clicks.places, minlength=10) / len(usual.lists)
    assert rates[0] > 1.4 * rates[2] > 1.4 * 1.2 * rates[8]


def test_lists_by_taste_are_clicked_and_bought_from_more_often(usual):
    for kind in (Kind.CLICK, Kind.PURCHASE):
        events = of_kind(usual, kind)
        of_lists = usual.lists.sides[events.lists[events.lists >= 0]]
        taste, popular = np.bincount(of_lists) / np.bincount(usual.lists.sides)
        assert taste > 1.5 * popular


def test_a_known_uplift_is_that_of_the_clicks():
    made = traffic(
        60_000, sides=(Side(share=0.5), Side(share=0.5, experiment="e", variant="b", uplift=0.4))
    )
    clicks = of_kind(made, Kind.CLICK)
    plain, lifted = np.bincount(made.lists.sides[clicks.lists]) / np.bincount(made.lists.sides)
    assert lifted / plain == pytest.approx(1.4, abs=0.15)


def test_customers_stay_on_their_side(usual):
    shown = usual.lists.shown
    pairs = np.column_stack([shown.customers, usual.lists.sides])[shown.known]
    assert len(np.unique(pairs, axis=0)) == len(np.unique(pairs[:, 0]))


def test_nobody_is_shown_what_they_bought_before():
    made = traffic(4_000)
    paid = of_kind(made, Kind.PURCHASE)
    bought = {}
    for customer, product, time in zip(paid.customers, paid.products, paid.times, strict=True):
        key = (int(customer), int(product))
        bought[key] = min(int(time), bought.get(key, int(time)))
    # A list of the same day may have been made before.
    day = 86_400 * 10**6
    for row in np.flatnonzero(made.lists.shown.known):
        customer, at = made.lists.shown.customers[row], made.lists.shown.times[row] * 1000
        for product in made.lists.products[row]:
            assert at < bought.get((customer, product), at) + day


def test_customers_come_again_at_the_hours_of_a_shop(usual):
    shown = usual.lists.shown
    hours = np.bincount((shown.times // 3_600_000 + 7) % 24, minlength=24)
    assert hours[2:5].max() < hours[20] / 5
    visits = np.unique(np.column_stack([shown.customers, shown.visits])[shown.known], axis=0)
    assert np.mean(np.bincount(visits[:, 0]) > 2) > 0.5
    assert 0.2 < np.mean(shown.guests) < 0.4


def test_lists_have_ids_that_tell_their_time_and_events_come_after_their_lists(usual):
    times = usual.lists.shown.times
    assert (np.diff(times) > 0).all()
    for row in (0, 17, len(times) - 1):
        found = UUID(bytes=usual.lists.ids[row].tobytes())
        assert (found.version, found.int >> 80) == (7, times[row])
    events = usual.events.take(usual.events.lists >= 0)
    assert (events.times > times[events.lists] * 1000).all()
    assert usual.events.times.max() < END.timestamp() * 1e6
    of_list = usual.lists.products[events.lists, events.places]
    np.testing.assert_array_equal(of_list, events.products)


def test_every_event_is_of_a_customer_or_of_a_visit(usual):
    assert ((usual.events.customers >= 0) | (usual.events.visits >= 0)).all()
    slow = of_kind(traffic(60_000), Kind.PURCHASE)
    assert ((slow.customers >= 0) | (slow.visits >= 0)).all()


def test_purchases_come_at_once_or_days_later_and_have_a_value(usual):
    paid = of_kind(usual, Kind.PURCHASE)
    from_lists = paid.take(paid.lists >= 0)
    waited = from_lists.times / 1e6 - usual.lists.shown.times[from_lists.lists] / 1e3
    assert 0.5 < np.mean(waited < 3_600) < 0.9
    assert (waited > 4 * 86_400).any()
    assert (paid.values >= 1_000).all()
    assert (paid.quantities >= 1).all()
    assert np.isnan(of_kind(usual, Kind.CLICK).values).all()


def test_there_are_ratings_only_where_they_were_asked_for(usual):
    rated = of_kind(usual, Kind.RATING)
    assert 0 < len(rated) < len(of_kind(usual, Kind.PURCHASE))
    assert set(rated.ratings) <= {1, 2, 3, 4, 5}
    assert (rated.customers >= 0).all()
    assert len(of_kind(traffic(), Kind.RATING)) == 0


def test_disorder_is_there_on_demand():
    plain, disordered = traffic(3_000), traffic(3_000, disorder=ALL)
    assert len(np.unique(plain.events.numbers)) == len(plain.events)
    assert (np.diff(plain.events.received) >= 0).all()
    events = disordered.events
    assert 0.05 < 1 - len(np.unique(events.numbers)) / len(events) < 0.2
    assert (np.diff(events.times) < 0).mean() > 0.1
    assert np.mean(events.received - events.times > 3_600 * 10**6) > 0.05
    assert 0.02 < np.mean(events.strange) < 0.2
    robot = disordered.lists.shown.customers == len(disordered.customer_ids) - 1
    assert robot.sum() >= 1_000 * 13
    assert disordered.customer_ids[-1] == "sim-robot-1"


def test_shares_that_are_not_one_together_are_refused():
    with pytest.raises(InputError, match=r"must be 1 together: 0\.7"):
        traffic(sides=(Side(share=0.3), Side(by_taste, 0.4)))


def test_baskets_are_completed_as_often_as_they_are_to_be():
    here = world(customers=3_000)
    made = simulate(here, period(28), 30_000, baskets=0.5)
    paid = of_kind(made, Kind.PURCHASE)
    paid = paid.take(paid.customers >= 0)
    when = dict(zip(zip(paid.customers, paid.products, strict=True), paid.times, strict=True))
    alone, completed = 0, 0
    shop = here.shop
    had = set(zip(shop.customer_ids[shop.buyers], shop.items, strict=True))
    for customer, product, time in zip(paid.customers, paid.products, paid.times, strict=True):
        for partner in here.partners[product].tolist():
            if partner >= 0 and (here.customer_ids[customer], partner) not in had:
                bought = when.get((customer, partner))
                completed += bought is not None and bought - time == 60 * 10**6
                alone += bought is None or bought >= time
    assert completed > 100
    # Every second partner of what was bought by itself; what came with it brings nothing along.
    assert completed / alone == pytest.approx(0.3, abs=0.1)


def test_a_partner_is_of_another_step_of_the_routine():
    here = world()
    categories, partners = here.shop.categories, here.partners
    step = categories[partners] // 3 == categories[:, None] // 3
    assert (step | (partners < 0)).all()
    assert ((categories[partners] != categories[:, None]) | (partners < 0)).all()
    assert (partners >= 0).mean() > 0.9
    brands = here.shop.brands
    assert (brands[partners] == brands[:, None]).mean() > 0.2
    assert np.array_equal(partners, world().partners)
