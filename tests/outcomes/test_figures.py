"""A day's figures, against a count of one list and one event at a time."""

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
import pandas.testing as pdt
import pytest

from recsys import schema
from recsys.config import ConfigError, load_config
from recsys.outcomes.attribution import FATE, LIST, Fate, attribute
from recsys.outcomes.config import OutcomesConfig
from recsys.outcomes.figures import DIMENSIONS, DayFigures, day_figures
from recsys.served_lists import SOURCES
from recsys.settings import Settings
from tests.outcomes.shop import a_list, an_event, events_of, lists_of

CONFIG = OutcomesConfig()
KINDS = {"click": "clicks", "cart": "carts", "purchase": "purchases"}


def some_shop(seed: int, lists: int = 150, events: int = 200) -> tuple[list[Any], list[Any]]:
    """Random lists of five products, and events of every kind within the same hours."""
    draw = np.random.default_rng(seed)

    def one_of(*values: str) -> str:
        return str(draw.choice(values))

    served = [
        a_list(
            number,
            draw.choice(list("abcdefghij"), 5, replace=False),
            one_of("", "u", "v", "w"),
            float(draw.integers(0, 11)),
            session_id=one_of("", "s", "t"),
            placement=one_of("", "home", "cart"),
            model_id=one_of("m1", "m2"),
            fallback_method=one_of("", "popularity"),
            experiment=(side := one_of("", "holdout")),
            variant="popularity" if side else "",
            sources="".join(draw.choice([*SOURCES], 5)),
        )
        for number in range(lists)
    ]
    kinds = ("click", "view", "cart", "purchase")
    happened = [
        an_event(
            number,
            one_of(*"abcdefghijk"),
            one_of(*kinds),
            one_of("", "u", "v"),
            float(draw.integers(0, 11)),
            session_id=one_of("s", "t"),
            value=float(draw.integers(1, 9) * 1000),
        )
        for number in range(events)
    ]
    return served, happened


def figures(served: list[Any], happened: list[Any], config: OutcomesConfig = CONFIG) -> DayFigures:
    lists, events = lists_of(served), attribute([lists_of(served)], events_of(happened), config)
    return day_figures(lists, events[events[FATE] == Fate.ATTRIBUTED], events, config)


@pytest.mark.parametrize("seed", range(3))
def test_the_cube_counts_what_one_list_at_a_time_counts(seed: int) -> None:
    served, happened = some_shop(seed)
    found = figures(served, happened)
    events = attribute([lists_of(served)], events_of(happened), CONFIG)
    by_id = {row[schema.RECOMMENDATION]: row for row in served}
    true: dict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    users: dict[tuple[str, ...], set[Any]] = defaultdict(set)
    for row in served:
        dimensions = tuple(row[name] for name in DIMENSIONS)
        unit = row["user_id"] or row["session_id"] or row[schema.RECOMMENDATION]
        for letter in row["sources"]:
            true[*dimensions, SOURCES[letter]]["items"] += 1
        for letter in set(row["sources"]):
            true[*dimensions, SOURCES[letter]]["lists"] += 1
            users[*dimensions, SOURCES[letter]].add(unit)
    counted = set()
    for event in events[events[FATE] == Fate.ATTRIBUTED].itertuples():
        once = event.list_id, event.product_id, event.kind
        if once in counted:
            continue
        counted.add(once)
        row = by_id[event.list_id]
        cell = true[(*(row[n] for n in DIMENSIONS), SOURCES[row["sources"][event.position]])]
        if event.kind in KINDS:
            cell[KINDS[event.kind]] += 1
        if event.kind == "purchase":
            cell["value"] += event.value
    names = ["lists", "items", *KINDS.values(), "value"]
    for row in found.cube.itertuples(index=False):
        key = tuple(row[: len(DIMENSIONS) + 1])
        assert {name: getattr(row, name) for name in names} == {n: true[key][n] for n in names}
        assert row.users == len(users[key])
    assert len(found.cube) == len(users)
    assert len(found.events) == len(counted)


def test_every_slice_adds_up_to_the_whole() -> None:
    found = figures(*some_shop(7))
    adding = ["clicks", "carts", "purchases", "prompt_purchases", "value"]
    sums = found.slices.groupby("slice")[[*adding, "items", "lists"]].sum()
    assert set(sums.index) == {
        *("total", "placement", "endpoint", "model", "source", "side", "holdout", "position")
    }
    for name in sums.index:
        pdt.assert_series_equal(
            sums.loc[name, adding], sums.loc["total", adding], check_names=False
        )
        assert sums.loc[name, "items"] == 150 * 5
    whole = ["total", "placement", "endpoint", "model", "side", "holdout"]
    assert set(sums.loc[whole, "lists"]) == {150}
    assert found.cube[["clicks", "value", "items"]].sum().tolist() == [
        *sums.loc["total", ["clicks", "value", "items"]]
    ]
    assert found.products["clicks"].sum() == found.totals["clicks"]
    assert found.products["shown"].sum() == 750


def test_the_order_of_lists_and_events_changes_nothing() -> None:
    served, happened = some_shop(3)
    first, second = figures(served, happened), figures(served[::-1], happened[::-1])
    assert first.totals == second.totals
    for name in ("cube", "slices", "units", "products", "events"):
        pdt.assert_frame_equal(getattr(first, name), getattr(second, name))


def test_lists_that_are_the_same_for_everybody_are_on_no_side_of_the_holdout() -> None:
    held = {"experiment": "holdout", "variant": "popularity"}
    served = [
        a_list(1, "ab", "held", **held),
        a_list(2, "ab", "held", 1, endpoint="similar_items", **held),
        a_list(3, "ab", "u", experiment="e", variant="x"),
        a_list(4, "ab", "v", endpoint="batch_recommend"),
        a_list(5, "ab", "v", 1, endpoint="search"),
    ]
    slices = figures(served, [an_event(1, "z", "purchase", "held", 2, value=9.0)]).slices
    sides = slices[slices["slice"] == "holdout"].groupby("key")[["lists", "users", "spent"]].sum()
    assert sides.loc["holdout"].tolist() == [1, 1, 9]
    assert sides.loc["rest"].tolist() == [2, 2, 0]
    assert sides.loc["", "lists"] == 2


def test_the_units_of_each_side_have_their_sums() -> None:
    served = [
        a_list(1, "ab", "u", experiment="e", variant="x", fallback_method="popularity"),
        a_list(2, "ab", "u", 1, experiment="e", variant="x"),
        a_list(3, "ab", "v", experiment="e", variant="y"),
        a_list(4, "ab", "v"),
        a_list(5, "ab", ""),  # shown to nobody known
    ]
    happened = [
        an_event(1, "a", "purchase", "u", 2, value=100.0),
        an_event(2, "b", "click", "u", 2),
        an_event(3, "a", "cart", "v", 2),
    ]
    rows = figures(served, happened).units.set_index(["experiment", "variant", "unit"])
    assert rows.loc[("e", "x", "u")].tolist() == [2, 1, 0, 1, 100, 1]
    assert sorted(rows.index) == [("", "", "v"), ("e", "x", "u"), ("e", "y", "v")]
    assert rows["carts"].sum() == 1


def test_what_is_popular_is_no_fallback_of_a_model_that_gives_everybody_that() -> None:
    popular, more = {"fallback_method": "popularity"}, {"fallback_method": "again"}
    served = [
        a_list(1, "ab", "u", model_id="recent_popularity_20250115_100000", **popular),
        a_list(2, "ab", "u", model_id="popularity_20250115_100000", **popular),
        a_list(3, "ab", "u", model_id="popularity_20250115_100000", **more),
        a_list(4, "ab", "u", model_id="als_20250115_100000", **popular),
        a_list(5, "ab", "u", model_id="als_20250115_100000"),
    ]
    assert figures(served, []).totals["fallbacks"] == 2


def test_only_the_first_of_a_list_a_product_and_a_kind_counts() -> None:
    happened = [an_event(n, "a", "purchase", hours=n, value=n * 10.0) for n in (3, 1, 2)]
    found = figures([a_list(1, "ab")], happened)
    assert (found.totals["purchases"], found.totals["value"]) == (1, 10)
    assert found.totals["repeated"] == 2
    # Bought it was three times.
    assert (found.totals["bought"], found.totals["spent"]) == (3, 60)


def test_what_was_bought_before_the_first_list_is_nobodys_merit() -> None:
    happened = [an_event(1, "x", "purchase", hours=-1, value=5.0)]
    happened += [an_event(2, "x", "purchase", hours=1, value=7.0)]
    totals = figures([a_list(1, "ab")], happened).totals
    assert (totals["purchases"], totals["bought"], totals["spent"]) == (0, 1, 7)
    assert totals["happened"]["no_list"] == {"purchase": 2}
    assert totals["active_users"] == 1


def test_purchases_after_a_day_are_no_prompt_ones() -> None:
    happened = [an_event(n, p, "purchase", hours=h) for n, p, h in ((1, "a", 24), (2, "b", 24.1))]
    totals = figures([a_list(1, "ab")], happened).totals
    assert (totals["purchases"], totals["prompt_purchases"]) == (2, 1)
    assert totals["unvalued"] == 2


def test_robots_are_ids_as_they_stand_in_the_file(settings: Settings) -> None:
    path = settings.home / "config" / "outcomes.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('robots: [17, probe, "017"]')
    assert load_config(settings, OutcomesConfig).robots == ("17", "probe", "017")
    path.write_text("robots: [017]")
    with pytest.raises(ConfigError, match='write it in quotes, "017"'):
        load_config(settings, OutcomesConfig)


def test_robots_are_left_out_and_counted() -> None:
    config = OutcomesConfig(robot_lists_per_day=2, robots=["probe"])
    served = [a_list(n, "ab", "robot", n / 10) for n in range(3)]
    served += [a_list(5, "ab", "probe"), a_list(6, "ab", "p"), a_list(7, "ab", "", session_id="s")]
    served += [a_list(n, "ab", "") for n in range(10, 15)]  # nobody known is no robot
    happened = [an_event(1, "a", user="robot"), an_event(2, "a", user="p")]
    found = figures(served, happened, config)
    assert found.totals["robots"] == {"units": 2, "lists": 4, "outcomes": 1}
    assert (found.totals["lists"], found.totals["users"], found.totals["clicks"]) == (7, 7, 1)
    assert found.totals["anonymous_lists"] == 5


def test_a_list_whose_sources_do_not_fit_counts_as_unknown() -> None:
    found = figures([a_list(1, "ab", sources="m"), a_list(2, "ab", sources="mz")], [])
    assert found.cube[["source", "items"]].values.tolist() == [["model", 1], ["unknown", 3]]


def test_a_day_without_lists_has_figures() -> None:
    found = figures([], [an_event(1, "a")])
    assert found.totals["lists"] == found.totals["clicks"] == 0
    assert found.totals["happened"]["no_list"] == {"click": 1}
    assert found.cube.empty
    assert found.slices.empty
    assert figures([a_list(1, [])], []).totals["lists"] == 1


def test_lists_and_outcomes_may_be_of_several_chunks() -> None:
    import pyarrow as pa

    served, happened = some_shop(5)
    parts = pa.concat_tables([lists_of(served[:40]), lists_of(served[40:])])
    events = attribute([parts], events_of(happened), CONFIG)
    found = day_figures(parts, events[events[FATE] == Fate.ATTRIBUTED], events, CONFIG)
    pdt.assert_frame_equal(found.slices, figures(served, happened).slices)
    assert isinstance(found.events[LIST].iloc[0], bytes)
    assert isinstance(found.cube, pd.DataFrame)
