"""What `up` does with the data before it starts anything."""

import json

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.cli.up import DEMO_DAYS, DEMO_LISTS_PER_DAY, choose_source, prepare_data
from recsys.data.simulated import note_traffic, read_note
from recsys.data.staging import append_events, sealed_segments
from recsys.served_lists import sealed_lists
from recsys.settings import Settings
from tests.data.shop import END, row, write_shop

NOTE = (END, END)


def test_without_data_there_is_a_sample_shop_with_simulated_traffic(settings):
    prepare_data(settings, another=False)
    assert (settings.raw / "viecomrec" / "data_product.csv").exists()
    assert read_note(settings).lists == DEMO_DAYS * DEMO_LISTS_PER_DAY
    assert any(sealed_segments(settings).iterdir())
    assert any(sealed_lists(settings).iterdir())
    before = read_note(settings)
    prepare_data(settings, another=False)
    assert read_note(settings) == before


def test_a_shop_with_data_gets_none(settings):
    write_shop(settings, [row("u1", "1")])
    prepare_data(settings, another=False)
    assert read_note(settings) is None
    assert not settings.staging.exists()


def test_another_source_does_not_get_what_was_simulated(settings, tmp_path):
    shop = Settings(tmp_path / "shop")
    write_shop(shop, [row("u1", "1")])
    folder = shop.raw / "viecomrec"
    note_traffic(settings, *NOTE, lists=1, events=1)
    append_events(settings, [{"event_id": "sim-1", "user_id": 1, "product_id": 1, "rating": 5}])
    files = folder / "data_reviews_purchase.csv", folder / "data_product.csv"
    choose_source(settings, "viecomrec", *files)
    prepare_data(settings, another=True)
    assert not any(sealed_segments(settings).iterdir())


@pytest.mark.parametrize("simulated", [True, False])
def test_the_status_says_whether_there_is_simulated_traffic(settings, monkeypatch, simulated):
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    if simulated:
        note_traffic(settings, *NOTE, lists=30, events=12)
    said = CliRunner().invoke(app, ["scheduler", "status"])
    sentence = "Simulated traffic: 30 lists and 12 events of 2025-03-01 to 2025-03-01"
    assert (sentence in " ".join(said.stderr.split())) == simulated
    found = json.loads(CliRunner().invoke(app, ["scheduler", "status", "--json"]).stdout)
    assert (found["simulated"] is not None) == simulated
