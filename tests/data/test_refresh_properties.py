"""What holds for every shop: incremental = full, order and batches are irrelevant, no leaks."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys import schema
from recsys.data.staging import append_events
from recsys.data.versions import PublishedVersion, current_version, list_versions, open_version
from recsys.settings import Settings
from tests.data.shop import refresh, row, write_shop

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
END = FIRST + timedelta(days=6)

properties = hypothesis_settings(
    max_examples=int(os.environ.get("RECSYS_PROPERTY_EXAMPLES", "10")),
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
few = hypothesis_settings(properties, max_examples=properties.max_examples // 2)

# Few users, products, times and texts: duplicates, ties and copied reviews are the rule.
hours = st.integers(0, 5 * 24 - 1)
good_rows = st.builds(
    lambda user, product, rating, hour, comment: row(
        f"u{user}", product, rating, (FIRST + timedelta(hours=hour)).isoformat(), comment
    ),
    st.integers(0, 5),
    st.integers(0, 12),
    st.integers(1, 5),
    st.one_of(hours, st.sampled_from([5, 30, 31])),
    st.sampled_from(["", "tốt", "tệ lắm", "dùng ổn, giao nhanh".replace(",", ""), "👍"]),
)
bad_rows = st.sampled_from(
    [
        row(user=""),
        row(product="nan"),
        row(rating=0),
        row(rating="năm"),
        row(time="30/11/-0001"),
        row(time="2999-01-01"),
        "only,three,columns",
    ]
)
shops = st.lists(good_rows, min_size=1, max_size=40)


@contextmanager
def a_home() -> Iterator[Settings]:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "home")
        config = settings.home / "config"
        config.mkdir(parents=True)
        (config / "data.yaml").write_text("source: viecomrec\nmax_invalid_fraction: 1.0\n")
        yield settings


def content(version: PublishedVersion) -> dict[str, object]:
    """All of a version that must not depend on how it came about."""
    users, items = version.mappings()
    entries = version.matrix().tocoo()
    return {
        "interactions": version.interactions().to_csv(),
        "products": version.products().to_csv(),
        "users": version.user_metadata().to_csv(),
        "matrix": sorted(
            zip(
                [users[number] for number in entries.row],
                [items[number] for number in entries.col],
                entries.data.tolist(),
                strict=True,
            )
        ),
        "popularity": dict(zip(items, version.popularity().tolist(), strict=True)),
        "sales": dict(zip(items, version.recent_sales().tolist(), strict=True)),
        "stats": version.stats(),
        "rows": version.manifest["rows"],
    }


@properties
@given(shops, st.lists(good_rows, max_size=20), st.lists(bad_rows, max_size=3))
def test_incremental_equals_full(before, after, bad):
    with a_home() as merged, a_home() as fresh:
        write_shop(merged, before)
        refresh(merged, END)
        write_shop(merged, before + after + bad)
        summary = refresh(merged, END)
        write_shop(fresh, before + after + bad)
        refresh(fresh, END)
        if set(after) - set(before):
            assert summary["strategy"] == "incremental"
            assert content(current_version(merged)) == content(current_version(fresh))
        else:
            assert summary["strategy"] == "nothing_new"


@properties
@given(shops, st.randoms(use_true_random=False), st.integers(1, 3))
def test_neither_the_order_nor_the_batches_of_arrival_matter(rows, random, batches):
    shuffled = random.sample(rows, len(rows))
    with a_home() as straight, a_home() as batched:
        write_shop(straight, rows)
        refresh(straight, END)
        for batch in range(1, batches + 1):
            write_shop(batched, shuffled[: max(1, len(rows) * batch // batches)])
            refresh(batched, END)
        assert content(current_version(batched)) == content(current_version(straight))


@few
@given(shops)
def test_backfilling_day_by_day_ends_like_one_full_run(rows):
    with a_home() as daily, a_home() as once:
        write_shop(daily, rows)
        for day in range(1, 7):
            refresh(daily, FIRST + timedelta(days=day))
        write_shop(once, rows)
        refresh(once, END)
        assert content(current_version(daily)) == content(current_version(once))


@few
@given(shops)
def test_a_backfilled_day_is_what_that_day_would_have_published(rows):
    with a_home() as backfilled, a_home() as then:
        write_shop(backfilled, rows)
        refresh(backfilled, END)
        published = current_version(backfilled).version_id
        middle = FIRST + timedelta(days=2)
        past = [text for text in rows if datetime.fromisoformat(text.split(",")[3]) < middle]
        if not past:
            return
        summary = refresh(backfilled, middle)
        write_shop(then, past)
        refresh(then, middle)
        assert current_version(backfilled).version_id == published
        old, new = (
            content(open_version(backfilled, summary["version_id"])),
            content(current_version(then)),
        )
        del old["rows"], new["rows"]  # the backfill also counts the rows that are yet to come
        assert old == new


@properties
@given(shops, st.lists(good_rows, max_size=10))
def test_staged_events_count_like_rows_of_the_file(rows, staged):
    with a_home() as inbox, a_home() as file:
        write_shop(inbox, rows)
        refresh(inbox, END)
        names = ("user_id", "product_id", "rating", "timestamp", "comment")
        append_events(
            inbox,
            [
                {"event_id": number, **dict(zip(names, text.split(","), strict=True))}
                for number, text in enumerate(staged)
            ],
        )
        refresh(inbox, END)
        refresh(inbox, END, force_full=True)
        write_shop(file, rows + staged)
        refresh(file, END)
        expected, found = content(current_version(file)), content(current_version(inbox))
        assert found == expected


@properties
@given(shops, st.lists(bad_rows, max_size=10))
def test_every_row_read_is_accepted_superseded_quarantined_or_later(rows, bad):
    with a_home() as settings:
        write_shop(settings, rows + bad)
        end = END - timedelta(days=3)
        summary = refresh(settings, end)
        if not summary["new_version"]:
            return
        assert summary["rows"]["read"] == len(rows) + len(bad)
        parts = ("accepted", "superseded", "quarantined", "later")
        assert sum(summary["rows"][part] for part in parts) == summary["rows"]["read"]
        assert summary["rows"]["quarantined"] == len(bad)


@properties
@given(shops)
def test_the_split_never_leaks(rows):
    with a_home() as settings:
        write_shop(settings, rows)
        refresh(settings, END)
        version = current_version(settings)
        table = version.interactions()
        assert (table.groupby(schema.EVENT)[schema.SPLIT].nunique() == 1).all()
        for _, mine in table.groupby(schema.USER):
            check_one_user(mine, version)


@few
@given(shops)
def test_the_split_does_not_change_with_the_families(rows):
    kinds = ("Sữa rửa mặt", "Kem dưỡng", "Son", "Phấn", "Nước hoa", "Mặt nạ", "Xịt", "Gel", "Dầu")
    siblings = [f"{number},Kem dưỡng da {number + 1}0ml,Cocoon,,," for number in range(13)]
    strangers = [f"{number},{kinds[number % 9]} số {number},,,," for number in range(13)]
    with a_home() as one_family, a_home() as many:
        for settings, products in ((one_family, siblings), (many, strangers)):
            write_shop(settings, rows, products)
            refresh(settings, END)
        joined, apart = current_version(one_family), current_version(many)
        families = joined.products()[schema.FAMILY]
        assert families.nunique() == 1 < apart.products()[schema.FAMILY].nunique()
        assert joined.interactions().equals(apart.interactions())


def check_one_user(mine: pd.DataFrame, version: PublishedVersion) -> None:
    events = mine.groupby(schema.EVENT).agg(
        time=(schema.TIMESTAMP, "first"), best=(schema.RATING, "max"), side=(schema.SPLIT, "first")
    )
    positive = events[events["best"] >= schema.POSITIVE_RATING]
    trainable = len(events) >= 2 and len(positive) >= 1
    assert trainable == (mine[schema.USER].iloc[0] in version.mappings()[0])
    held_out = events[events["side"].isin([schema.TEST, schema.VALIDATION])]
    if not trainable:
        assert held_out.empty
        return
    (test,) = events[events["side"] == schema.TEST].itertuples()
    assert test.best >= schema.POSITIVE_RATING
    assert test.time == positive["time"].max()
    validation = events[events["side"] == schema.VALIDATION]
    assert len(validation) == min(len(positive) - 1, 1)
    train = events[events["side"] == schema.TRAIN]
    assert (train["time"] <= held_out["time"].min()).all()


def test_a_run_for_a_day_without_rows_publishes_nothing(settings):
    write_shop(settings, [row()])
    summary = refresh(settings, datetime(2024, 1, 1, tzinfo=UTC))
    assert (summary["strategy"], summary["rows"]["later"]) == ("nothing_new", 1)
    assert list_versions(settings) == []
    assert not settings.processed.exists()


def test_weights_of_an_event_add_up_to_the_root_of_its_copies(settings):
    copies = [row("u1", product) for product in range(4)]
    write_shop(settings, [*copies, row("u1", 5, time="2025-01-03")])
    refresh(settings)
    table = current_version(settings).interactions()
    assert np.allclose(sorted(table[schema.WEIGHT]), [0.5] * 4 + [1])
