"""Simulated customers stay in the sample shop, and what they did is noted."""

from datetime import UTC, date, datetime

import pytest

from recsys.data.sample import write_sample_shop
from recsys.data.simulated import drop_staged, is_sample, note_traffic, read_note, require_sample
from recsys.data.sources import select_source
from recsys.data.staging import append_events, sealed_segments, segment_lines
from recsys.data.versions import current_version
from recsys.errors import InputError
from recsys.settings import Settings
from tests.data.shop import END, refresh, row, write_shop

DAY = datetime(2026, 3, 1, tzinfo=UTC)


def sample(settings: Settings, **options) -> None:
    write_sample_shop(settings, reviews=400, products=60, until=END.date(), **options)
    refresh(settings)


def test_the_sample_shop_may_have_simulated_customers(settings):
    sample(settings)
    require_sample(settings, current_version(settings))
    assert is_sample(settings, current_version(settings).version_id)


def test_a_shops_own_data_are_refused(settings):
    write_shop(settings, [row("u1", "1"), row("u2", "2")])
    refresh(settings)
    with pytest.raises(
        InputError, match="is not what `sample-data` wrote: traffic is simulated for"
    ):
        require_sample(settings, current_version(settings))
    assert not is_sample(settings, current_version(settings).version_id)
    assert not is_sample(settings, "no-such-version")


def test_a_sample_whose_files_were_changed_is_a_shops_own(settings):
    sample(settings)
    path = settings.raw / "viecomrec" / "data_reviews_purchase.csv"
    path.write_text(path.read_text() + "9999,1,2026-01-01,5,mua thật\n")
    with pytest.raises(InputError, match=r"data_reviews_purchase\.csv of the source 'viecomrec'"):
        require_sample(settings, current_version(settings))


def test_a_version_of_other_files_than_the_sample_is_refused(settings):
    write_shop(settings, [row("u1", "1"), row("u2", "2")])
    refresh(settings)
    write_sample_shop(settings, reviews=400, products=60, until=date(2025, 2, 1))
    with pytest.raises(InputError, match=r"data version \w+-\w+ was made of other files"):
        require_sample(settings, current_version(settings))


def test_a_selected_source_is_the_one_that_counts(settings, tmp_path):
    sample(settings)
    version = current_version(settings)
    own = Settings(tmp_path / "own")
    write_shop(own, [row("u1", "1"), row("u2", "2")])
    folder = own.raw / "viecomrec"
    files = folder / "data_reviews_purchase.csv", folder / "data_product.csv"
    select_source(settings, "viecomrec", *files)
    with pytest.raises(InputError, match=f"{folder}"):
        require_sample(settings, version)


def test_staged_events_of_simulated_customers_do_not_reach_another_shop(settings):
    event = {"user_id": "7", "product_id": "1", "rating": 5}
    names = ("sim-0-1", "order-1", "app/sim-0-2", "app/order-2")
    append_events(settings, [event | {"event_id": name} for name in names])
    assert drop_staged(settings) == 2
    lines = [line for at in sealed_segments(settings).glob("*") for line in segment_lines(at)]
    assert [line.split('"event_id": "')[1].split('"')[0] for line in lines] == [
        "order-1",
        "app/order-2",
    ]
    assert drop_staged(settings) == 0


def test_a_note_that_cannot_be_read_is_an_error_that_names_it(settings):
    assert read_note(settings) is None
    note_traffic(settings, DAY, DAY, lists=3, events=1)
    assert read_note(settings).lists == 3
    path = settings.home / "data" / "simulated.json"
    path.write_text('{"lists": 3}')
    with pytest.raises(InputError, match=f"{path}: cannot be read"):
        read_note(settings)
