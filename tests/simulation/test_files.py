"""What simulated traffic leaves in files is what it says it is."""

import json
from uuid import UUID

import numpy as np
import pandas as pd

from recsys import schema
from recsys.data.simulated import read_note
from recsys.data.staging import sealed_segments, segment_lines
from recsys.served_lists import open_lists, read_segment, sealed_lists
from recsys.simulation import Disorder, Side, by_popularity, truth_of, write_traffic
from recsys.simulation.files import event_table, truth_table
from tests.simulation.worlds import END, traffic

SIDES = (Side(share=0.8), Side(by_popularity, 0.2, "holdout", "popularity"))
ALL = Disorder(late=0.1, repeated=0.1, doubled=0.1, strange=0.1)


def written_lists(settings) -> pd.DataFrame:
    segments = [read_segment(path) for path in sorted(sealed_lists(settings).glob("*"))]
    assert not any(open_lists(settings).glob("*"))
    assert sum(segment.lost for segment in segments) == 0
    blocks = [block._asdict() for segment in segments for block in segment.blocks]
    return pd.concat([pd.DataFrame(block) for block in blocks], ignore_index=True)


def written_events(settings) -> pd.DataFrame:
    paths = sorted(sealed_segments(settings).glob("*"))
    lines = [line for path in paths for line in segment_lines(path)]
    return pd.DataFrame([json.loads(line) for line in lines]).fillna("")


def test_lists_and_events_stand_in_the_files_as_they_were_made(settings):
    made = traffic(3_000, sides=SIDES, rated=0.3, disorder=ALL)
    done = write_traffic(settings, made)
    lists, events = written_lists(settings), written_events(settings)
    assert done == {"lists": len(lists), "events": len(events)}

    assert UUID(bytes=lists["id"][5]).int >> 80 == int(lists["time"][5] * 1000)
    np.testing.assert_allclose(lists["time"], made.lists.shown.times / 1000)
    assert lists["products"].map(len).eq(10).all()
    assert lists["products"][7] == tuple(made.product_ids[made.lists.products[7]])
    held_out = lists["experiment"].eq("holdout")
    assert held_out.mean() < 0.4
    assert set(lists["model_id"][held_out]) == {"simulated_popularity"}
    assert set(lists["model_id"][~held_out]) == {"simulated_taste"}
    guests = lists["user_id"].isna()
    assert 0.2 < guests.mean() < 0.5
    assert lists["session_id"].str.startswith("sim-").all()

    assert events["event_id"].str.startswith("sim-").all()
    assert (events[schema.USER].ne("") | events[schema.SESSION].ne("")).all()
    assert set(events[schema.KIND]) == {str(kind) for kind in schema.Kind}
    assert events["rating"].ne("").eq(events[schema.KIND].eq("rating")).all()
    assert events["value"].ne("").eq(events[schema.KIND].eq("purchase")).all()
    received = pd.to_datetime(events["received_at"], format="ISO8601")
    happened = pd.to_datetime(events["timestamp"], format="ISO8601")
    assert (received > happened).all()
    assert happened.max() < END


def test_the_truth_is_what_the_files_hold(settings):
    made = traffic(3_000, disorder=ALL)
    write_traffic(settings, made)
    lists, events = written_lists(settings), written_events(settings)
    truth = truth_table(truth_of(made))
    ids = [str(UUID(bytes=one)) for one in lists["id"]]
    held = dict(zip(ids, lists["products"], strict=True))
    for row in truth.itertuples():
        assert row.product_id in held[row.recommendation_id]
    named = events[events["recommendation_id"].isin(held)].drop_duplicates("event_id")
    # Each list, product and kind that an event names, and those that are found without.
    keys = ["recommendation_id", "product_id", "kind"]
    said = set(map(tuple, named[keys].to_numpy()))
    counted = set(map(tuple, truth[keys].to_numpy()))
    assert said <= counted
    assert len(said) < len(counted) == len(truth)
    assert not truth["event_id"].duplicated().any()


def test_the_same_seed_makes_the_same_events():
    first, again = (event_table(traffic(seed=3, disorder=ALL)) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)


def test_what_was_simulated_is_noted_and_added_up(settings):
    assert read_note(settings) is None
    one = write_traffic(settings, traffic(500, days=3))
    two = write_traffic(settings, traffic(500, days=10, seed=1))
    note = read_note(settings)
    assert (note.first_day, note.last_day) == ("2026-03-06", "2026-03-16")
    assert (note.lists, note.events) == (1_000, one["events"] + two["events"])
    assert str(note) == f"1,000 lists and {note.events:,} events of 2026-03-06 to 2026-03-16"
