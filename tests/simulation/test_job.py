"""Days of simulated traffic for the sample shop: from its products and customers to files."""

from datetime import UTC, datetime

import numpy as np
import pytest

from recsys import schema
from recsys.data.sample import write_sample_shop
from recsys.data.simulated import read_note
from recsys.data.versions import VersionError, current_version
from recsys.errors import InputError
from recsys.simulation.job import simulate_days, simulate_past
from recsys.simulation.shop import shop_of_sample, shop_of_version
from recsys.simulation.world import World
from tests.data.shop import refresh, row, write_shop
from tests.simulation.test_files import written_events, written_lists

TODAY = datetime.now(UTC)


@pytest.fixture
def shop(settings):
    write_sample_shop(settings, reviews=1_500, products=96)
    refresh(settings, end=TODAY)
    return settings


def test_days_of_the_published_version_stand_in_the_files_without_ratings(shop):
    done = simulate_past(shop, 3, 400, seed=0, ratings=False)
    lists, events = written_lists(shop), written_events(shop)
    assert (done["lists"], done["events"]) == (1_200, len(events)) == (len(lists), len(events))
    assert done["attributable"]["clicks"] > done["attributable"]["purchases"] > 0
    products = set(current_version(shop).products()[schema.PRODUCT])
    assert set(lists["products"].explode()) <= products
    assert "rating" not in set(events["kind"])
    known = set(current_version(shop).user_metadata()[schema.USER])
    users = set(lists["user_id"].dropna())
    assert users & known
    assert all(user in known or user.startswith("sim-") for user in users)
    assert read_note(shop).lists == 1_200


def test_reviews_come_where_they_are_asked_for(shop):
    simulate_past(shop, 20, 200, seed=0, ratings=True)
    assert "rating" in set(written_events(shop)["kind"])


def test_the_sample_is_the_same_shop_before_and_after_its_refresh(shop):
    before, after = shop_of_sample(shop), shop_of_version(current_version(shop))
    places = np.argsort(before.product_ids), np.argsort(after.product_ids)
    for name in ("product_ids", "prices"):
        pair = (getattr(one, name)[at] for one, at in zip((before, after), places, strict=True))
        np.testing.assert_array_equal(*pair)
    assert set(before.customer_ids) == set(after.customer_ids)
    assert simulate_days(shop, before, 2, 50, seed=0, ratings=False)["lists"] == 100


def test_customers_like_what_those_like_who_had_the_same(shop):
    """What a model can learn of the version is what the customers want."""
    here = shop_of_version(current_version(shop))
    world = World(here)
    buyers, items = here.buyers, here.items
    # Of those with several products, what one of these is worth to a buyer of the others.
    several = np.flatnonzero(np.bincount(buyers)[buyers] > 2)
    drawn = world.attraction(buyers[several], np.ones(len(several), dtype=bool))
    own = drawn[np.arange(len(several)), items[several]]
    assert own.mean() > drawn.mean() + 1
    assert abs(drawn.mean()) < 0.2
    assert 0.7 < drawn.std() < 1.4


def test_a_shops_own_data_are_refused_and_nothing_is_written(settings):
    with pytest.raises(VersionError, match="no data version is published"):
        simulate_past(settings, 3, 100, seed=0, ratings=False)
    write_shop(settings, [row("u1", "1"), row("u2", "2")])
    refresh(settings)
    with pytest.raises(InputError, match="traffic is simulated for the sample shop only"):
        simulate_past(settings, 3, 100, seed=0, ratings=False)
    assert read_note(settings) is None
    assert not (settings.home / "data" / "served").exists()
