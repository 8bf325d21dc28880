"""Signals of a version: read once, whoever brought them, kept as long as they count, and split."""

import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys import schema
from recsys.data.dataset import split_interactions
from recsys.data.event_log import read_events
from recsys.data.events import archives
from recsys.data.signals import NO_SIGNALS, OTHER_PRODUCT, SIGNAL_COLUMNS, split_signals
from recsys.data.staging import append_events
from recsys.data.versions import current_version, open_version
from recsys.refresh.job import RefreshError
from recsys.schema import EXCLUDED, TEST, TRAIN, VALIDATION
from recsys.settings import Settings
from tests.data.shop import quarantined, refresh, row, write_shop
from tests.data.test_dataset import view_of
from tests.data.test_event_files import CLICKS, ORDERS, describe, write_exports
from tests.data.test_refresh_properties import END as LAST
from tests.data.test_refresh_properties import (
    FIRST,
    a_home,
    content,
    few,
    good_rows,
    shops,
)

DAY = datetime(2025, 1, 5, tzinfo=UTC)


def did(kind: str, user: str, product: object, day: float, **changes):
    when = DAY + timedelta(days=day)
    return {
        "event_id": f"{kind}-{user}-{product}-{day}",
        "kind": kind,
        "user_id": user,
        "product_id": product,
        "timestamp": when,
        **changes,
    }


def rated(user: str, product: int, day: float, stars: int = 5) -> str:
    return row(user, product, stars, (DAY + timedelta(days=day)).isoformat(), f"tốt {product}")


def signals_of(settings: Settings) -> pd.DataFrame:
    return current_version(settings).signals()


def sides(settings: Settings, user: str) -> dict[tuple[str, str], str]:
    """(kind, product) -> side, of ratings and signals of a user."""
    version = current_version(settings)
    rows, signals = version.interactions(), version.signals()
    rows[schema.KIND] = "rating"
    both = pd.concat([rows, signals])
    both = both[both[schema.USER] == user]
    keys = zip(both[schema.KIND], both[schema.PRODUCT], strict=True)
    return dict(zip(keys, both[schema.SPLIT], strict=True))


@pytest.fixture
def shop(settings):
    write_shop(settings, [rated("a", 1, 0), rated("b", 2, 0)])
    return settings


# What a version has


def test_signals_are_a_file_of_the_version_beside_its_ratings(shop):
    late = did("view", "c", "1.0", 2, quantity=None)
    append_events(shop, [did("purchase", "a", 3, 1, quantity=2, value=50_000.5), late])
    summary = refresh(shop)
    found = signals_of(shop)
    assert found.columns.tolist() == [*SIGNAL_COLUMNS, schema.SPLIT]
    assert found[schema.USER].tolist() == ["a", "c"]
    assert found[schema.PRODUCT].tolist() == ["3", "1"]
    assert (found[schema.QUANTITY].tolist(), found[schema.VALUE][0]) == ([2, 1], 50_000.5)
    assert found.dtypes.astype(str).to_dict() == NO_SIGNALS.dtypes.astype(str).to_dict()
    assert summary["signals"]["by_kind"] == {"purchase": 1, "view": 1}
    assert summary["contents"]["signals"]["by_kind"] == {"purchase": 1, "view": 1}
    version = current_version(shop)
    assert version.manifest["files"][schema.SIGNALS_FILE]["rows"] == 2
    version.verify(schema.SIGNALS_FILE)
    assert version.manifest["rows"]["accepted"] == 2


def test_a_version_without_signals_has_no_file_and_no_rows(shop):
    assert "signals" not in refresh(shop)["contents"]
    version = current_version(shop)
    assert not (version.path / schema.SIGNALS_FILE).exists()
    assert version.signals().dtypes.to_dict() == NO_SIGNALS.dtypes.to_dict()
    assert version.signals([schema.USER]).columns.tolist() == [schema.USER]
    assert version.manifest["signals"]["fingerprint"] == ""


def test_new_signals_alone_make_an_incremental_version_and_old_ones_none(shop):
    refresh(shop)
    assert refresh(shop)["strategy"] == "nothing_new"
    append_events(shop, [did("cart", "a", 3, 1)])
    summary = refresh(shop)
    assert (summary["strategy"], summary["reason"]) == (
        "incremental",
        "no new interaction, but the signals changed",
    )
    assert "1 signals." in summary["note"]
    append_events(shop, [did("cart", "a", 3, 1)])  # again
    assert refresh(shop)["strategy"] == "nothing_new"
    assert len(signals_of(shop)) == 1


def test_an_event_counts_once_over_staging_archive_and_exports(settings):
    write_exports(settings)
    told = did("purchase", "KH01", 1, -2, event_id="1001-1", quantity=9)
    append_events(settings, [told, did("rating", "KH05", 1, 0, event_id="1002-1", rating=4)])
    for sent_again in (0, 1):
        summary = refresh(settings)
        found = signals_of(settings).set_index(schema.EVENT)
        assert found.index.is_unique
        assert found.loc["1001-1", schema.QUANTITY] == 9
        assert "1002-1" not in found.index  # a rating that the service took
        assert summary["signals"]["repeated"] == 3 + sent_again  # and a click twice
        append_events(settings, [{**told, "quantity": 1}])


def orders_of(settings: Settings, name: str, *lines: str) -> None:
    head = ORDERS.partition("\n")[0]
    (settings.raw / "orders" / name).write_text("\n".join([head, *lines, ""]), encoding="utf-8")


def test_an_order_that_is_cancelled_later_counts_no_more(settings):
    write_exports(settings)
    told = [did("purchase", "KH07", n, -2, event_id=f"app-{n}") for n in (1, 2)]
    append_events(settings, told)
    bought = set(refresh(settings) and signals_of(settings)[schema.EVENT])
    assert {"1001-1", "1001-2", "1002-1", "app-1", "app-2"} <= bought
    day = "05/02/2025;KH01;1;1;9.000"  # a cancellation has a time of its own, or that of the order
    orders_of(
        *(settings, "2025-02.csv", f"1001-1;1001;{day};Đã hủy", f"app-1;;{day};Trả hàng"),
        *(f"1002-1;1002;{day};Đã hủy", f"1002-1;1002;{day};Đã giao"),  # and delivered after all
    )
    counts = refresh(settings)["signals"]
    left = signals_of(settings).set_index(schema.EVENT)
    assert bought - set(left.index) == {"1001-1", "app-1"}
    assert left.loc["1002-1", schema.USER] == "KH01"  # the row that stands below
    parts = ("accepted", "guests", "expired", "later", "repeated", "ignored", "quarantined")
    assert sum(counts[part] for part in parts) == counts["read"]
    beginning, end = datetime(2024, 12, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)
    known = set(read_events(settings, beginning, end)[schema.EVENT])
    assert known & bought == set(left.index) & bought
    orders_of(settings, "2025-02.csv", f"1001-1;1001;{day};Đã giao", f"x;;{day};Đã hủy")
    refresh(settings)
    assert bought <= set(signals_of(settings)[schema.EVENT])


def test_a_cancelled_row_without_an_id_takes_nothing_back(settings):
    write_exports(settings)
    describe(settings, "orders", ("    event_id: ma_dong\n", ""))
    refresh(settings)
    assert (signals_of(settings)[schema.KIND] == "purchase").sum() == 3


def test_what_became_of_every_signal_is_counted(settings):
    write_exports(settings)
    bad, guest = did("cart", "a", 3, 1, quantity=-2), did("view", "", 3, 1, session_id="s")
    old, later = did("view", "a", 3, -300), did("click", "a", 3, 400)
    append_events(settings, [bad, guest, old, later, did("purchase", "a", 3, -300)])
    counts = refresh(settings)["signals"]
    assert counts["read"] == 5 + 7 + 5
    assert counts["by_kind"] == {"purchase": 4, "view": 1}
    assert (counts["guests"], counts["expired"], counts["later"]) == (2, 1, 1)
    assert (counts["ignored"], counts["repeated"], counts["quarantined"]) == (2, 1, 5)
    parts = ("accepted", "guests", "expired", "later", "repeated", "ignored", "quarantined")
    assert sum(counts[part] for part in parts) == counts["read"]
    orders, clicks = counts["exports"]
    assert (orders["source"], orders["read"], orders["valid"], orders["ignored"]) == (
        *("orders", 7, 3, 1),
    )
    assert (clicks["valid"], clicks["repeated"], clicks["invalid_fraction"]) == (3, 1, 0)
    assert [one["rows"] for one in orders["files"]] == [7]
    found = quarantined(settings)
    where = found["file"].str.extract(r"(\w+)/[^/]*$")[0].tolist()
    assert sorted(set(where)) == ["clicks", "events", "orders"] or "sealed" in where
    assert "the quantity is not above 0 and up to 10,000" in found["reason"].tolist()


def test_views_and_clicks_go_when_they_are_old_and_other_kinds_stay(shop):
    config = shop.home / "config" / "data.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("source: viecomrec\nkeep_view_days: 10\n")
    kinds = ("view", "click", "cart", "purchase", "dismiss")
    append_events(shop, [did(kind, "c", 3, day) for kind in kinds for day in (0, 1)])
    refresh(shop, DAY + timedelta(days=10))
    assert len(signals_of(shop)) == 10
    summary = refresh(shop, DAY + timedelta(days=10.5))
    assert summary["reason"] == "no new interaction, but the signals changed"
    assert summary["signals"]["by_kind"] == {
        **{"cart": 2, "click": 1, "dismiss": 2, "purchase": 2, "view": 1}
    }


def test_archived_views_are_not_even_read_when_they_are_old(shop):
    append_events(shop, [did(kind, "c", 3, -400) for kind in ("view", "purchase")])
    assert refresh(shop)["signals"]["expired"] == 1
    (archive,) = archives(shop, "viecomrec")
    table = pq.read_table(archive)
    at = table.column_names.index("received_at")
    old = pa.array(["2023-12-01T00:00:00.5+00:00"] * 2, pa.large_string())
    pq.write_table(table.set_column(at, "received_at", old), archive)
    counts = refresh(shop, force_full=True)["signals"]
    assert (counts["read"], counts["expired"], counts["by_kind"]) == (1, 0, {"purchase": 1})
    events = read_events(shop, DAY - timedelta(days=401), DAY)
    assert set(events[schema.KIND]) == {"view", "purchase"}


def test_aliases_and_placeholders_hold_for_signals(settings):
    write_exports(settings)
    describe(settings, "viecomrec", ("products:\n", 'products:\n  aliases: {"422": "1"}\n'))
    append_events(settings, [did("cart", "guest", 3, 0), did("cart", "n***a", 3, 0)])
    refresh(settings)
    assert set(signals_of(settings)[schema.PRODUCT]) == {"1", "2"}
    assert set(signals_of(settings)[schema.USER]) == {"KH01", "KH02"}


def test_products_that_nobody_knows_are_counted(shop):
    append_events(shop, [did("purchase", "a", "SKU-9", 1), did("cart", "a", 3, 1)])
    assert refresh(shop)["contents"]["signals"]["of_unknown_products"] == 1
    assert sides(shop, "a")["rating", "1"] == TRAIN  # an unknown product is no event


# What a bad export does


def test_the_number_of_an_order_is_not_the_id_of_its_lines(settings):
    write_exports(settings)
    describe(settings, "orders", ("event_id: ma_dong", "event_id: ma_don"))
    summary = refresh(settings)
    found = quarantined(settings)
    (line,) = found[found["reason"] == OTHER_PRODUCT].to_dict("records")
    assert line["raw"] == f"1001 | KH01 | {line['row'] - 1} | purchase"  # row 2 or 3
    assert summary["signals"]["exports"][0]["quarantined"] == 4


def test_too_many_bad_rows_of_one_export_stop_the_run(settings):
    write_exports(settings, ORDERS + "7-1;7;vô lý;KH01;1;1;;Đã giao\n" * 9)
    with pytest.raises(RefreshError, match=r"68.8% of the rows of orders are bad.*correct the"):
        refresh(settings)
    assert (quarantined(settings)["reason"] == "the time cannot be read").sum() == 9


def test_bad_signals_of_the_service_stop_nothing(shop):
    append_events(shop, [did("cart", "a", 3, day, quantity="x") for day in range(20)])
    assert refresh(shop)["signals"]["quarantined"] == 20


@pytest.mark.parametrize("content", [None, "", "ma_dong;ngay_dat\n1;2025-01-01\n"])
def test_an_export_that_is_missing_or_useless_stops_the_run(settings, content):
    write_exports(settings)
    refresh(settings)
    before = current_version(settings).version_id
    path = settings.raw / "orders" / "2025-01.csv"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(Exception, match=r"orders"):
        refresh(settings)
    assert current_version(settings).version_id == before


def test_an_export_that_was_cut_off_stops_the_run_unless_forced(settings):
    write_exports(settings)
    refresh(settings)
    write_exports(settings, "\n".join(ORDERS.splitlines()[:2]) + "\n")
    with pytest.raises(RefreshError, match="only 1 events are left of the 3 that orders had"):
        refresh(settings)
    refresh(settings, force_full=True)
    assert (signals_of(settings)[schema.KIND] == "purchase").sum() == 1


def test_an_export_without_rows_is_no_fault_and_its_version_has_an_empty_file(settings):
    write_exports(settings, ORDERS.splitlines()[0] + "\n", clicks=[{**CLICKS[0], "phien": "s"}])
    refresh(settings)
    path = settings.raw / "clicks" / "2025-01.jsonl"
    path.write_text(json.dumps({**CLICKS[0], "loai": "tìm kiếm"}) + "\n")
    refresh(settings, force_full=True)
    assert (current_version(settings).path / schema.SIGNALS_FILE).exists()
    assert signals_of(settings).empty


def test_another_description_of_an_export_is_a_full_refresh(settings):
    write_exports(settings)
    refresh(settings)
    describe(settings, "orders", ("Trả hàng]", "Trả hàng, Chờ duyệt]"))
    assert refresh(settings)["strategy"] == "full"


# The split


def test_a_purchase_is_an_event_like_a_good_rating(shop):
    append_events(
        shop,
        [
            did("purchase", "a", 3, 1),
            did("purchase", "a", 4, 2),
            did("cart", "a", 5, 0.5),
            did("cart", "a", 6, 1.5),
            did("view", "a", 4, -3),
            did("dismiss", "a", 7, 3),
        ],
    )
    refresh(shop)
    assert sides(shop, "a") == {
        ("rating", "1"): TRAIN,
        ("purchase", "3"): VALIDATION,
        ("purchase", "4"): TEST,
        ("cart", "5"): TRAIN,
        ("cart", "6"): EXCLUDED,  # later than what is asked
        ("view", "4"): EXCLUDED,  # it would give the answer away
        ("dismiss", "7"): EXCLUDED,
    }
    users = current_version(shop).user_metadata().set_index(schema.USER)
    assert users.loc["a", ["events", "positive_events", "segment"]].tolist() == [3, 3, "trainable"]
    assert users.loc["b", "segment"] == "one_event"


def test_ratings_later_than_a_held_out_purchase_are_on_no_side(settings):
    write_shop(settings, [rated("a", 1, 0), rated("a", 2, 2, stars=2)])
    append_events(settings, [did("purchase", "a", 3, 1)])
    refresh(settings)
    assert sides(settings, "a") == {
        **{("rating", "1"): VALIDATION, ("purchase", "3"): TEST, ("rating", "2"): EXCLUDED}
    }


def test_a_purchase_that_was_rated_is_told_by_the_rating(settings):
    write_shop(settings, [rated("a", 1, 0), rated("a", 2, 3), rated("a", 3, 4, stars=1)])
    append_events(settings, [did("purchase", "a", product, 2) for product in (1, 2, 3)])
    refresh(settings)
    assert sides(settings, "a") == {
        ("rating", "1"): VALIDATION,
        ("rating", "2"): TEST,
        ("rating", "3"): EXCLUDED,
        ("purchase", "1"): EXCLUDED,  # of a held-out product
        ("purchase", "2"): EXCLUDED,
        ("purchase", "3"): EXCLUDED,  # later than the validation
    }


def test_of_several_purchases_of_a_product_the_latest_is_the_event(shop):
    append_events(shop, [did("purchase", "c", 3, day) for day in (0, 2)])
    append_events(shop, [did("purchase", "c", 4, day) for day in (1, 3)])
    refresh(shop)
    found = signals_of(shop).set_index([schema.PRODUCT, schema.TIMESTAMP])[schema.SPLIT]
    assert found["3"].tolist() == [EXCLUDED, VALIDATION]
    assert found["4"].tolist() == [EXCLUDED, TEST]
    assert "c" not in set(current_version(shop).user_metadata()[schema.USER])


# What holds for every shop

signals = st.builds(
    lambda number, kind, user, product, hour, quantity: {
        "event_id": f"s{number}",
        "kind": kind,
        "user_id": f"u{user}",
        "product_id": product,
        "timestamp": FIRST + timedelta(hours=hour),
        "quantity": quantity,
    },
    st.integers(0, 30),
    st.sampled_from(["purchase", "purchase", "cart", "click", "view", "dismiss"]),
    st.integers(0, 7),
    st.integers(0, 12),
    st.one_of(st.integers(0, 6 * 24 - 1), st.sampled_from([5, 30, 31])),
    st.integers(1, 3),
)
many = st.lists(signals, max_size=30)


def whole(version) -> dict[str, object]:
    name = schema.SIGNALS_FILE
    path = version.path / name
    return {**content(version), name: path.read_bytes() if path.exists() else b""}


@few
@given(shops, st.lists(good_rows, max_size=5), many, many)
def test_incremental_equals_full_and_batches_do_not_matter(rows, more, before, after):
    with a_home() as merged, a_home() as fresh:
        write_shop(merged, rows)
        append_events(merged, before)
        refresh(merged, LAST)
        write_shop(merged, rows + more)
        append_events(merged, after)
        refresh(merged, LAST)
        write_shop(fresh, rows + more)
        append_events(fresh, before)
        append_events(fresh, after)
        refresh(fresh, LAST)
        found, expected = whole(current_version(merged)), whole(current_version(fresh))
        assert found == expected


@few
@given(shops, many)
def test_a_backfilled_day_has_the_signals_before_its_end(rows, events):
    with a_home() as backfilled, a_home() as then:
        write_shop(backfilled, rows)
        append_events(backfilled, events)
        refresh(backfilled, LAST)
        middle = FIRST + timedelta(days=2)
        past = [text for text in rows if datetime.fromisoformat(text.split(",")[3]) < middle]
        first: dict[str, dict[str, object]] = {}
        for one in events:
            first.setdefault(one["event_id"], one)
        if not past:
            return
        again = [refresh(backfilled, middle, force_full=True) for _ in range(2)]
        found, repeated = (whole(open_version(backfilled, one["version_id"])) for one in again)
        assert found == repeated
        write_shop(then, past)
        append_events(then, [one for one in first.values() if one["timestamp"] < middle])
        refresh(then, middle)
        expected = whole(current_version(then))
        del found["rows"], expected["rows"]
        assert found == expected


# (user, product, stars, hour) and (user, product, kind, hour)
ratings = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 5), st.integers(0, 9)),
    min_size=1,
    max_size=12,
)
kinds = st.sampled_from([kind for kind in schema.Kind if kind is not schema.Kind.RATING])
others = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), kinds, st.integers(0, 9)), max_size=25
)


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
@given(ratings, others)
def test_the_joint_split_never_leaks(rows, events):
    view = view_of([(user, product, stars, hour, 0) for user, product, stars, hour in rows])
    signals = NO_SIGNALS.drop(columns=[schema.SPLIT])
    if events:
        user, product, kind, hour = zip(*events, strict=True)
        signals = pd.DataFrame(
            {
                schema.EVENT: [f"e{number}" for number in range(len(events))],
                schema.USER: [f"u{one}" for one in user],
                schema.PRODUCT: [f"p{one}" for one in product],
                schema.KIND: [str(one) for one in kind],
                schema.TIMESTAMP: pd.to_datetime(hour, unit="D", utc=True).as_unit("us"),
                schema.QUANTITY: 1.0,
                schema.VALUE: 1.0,
            }
        ).astype(signals.dtypes.to_dict())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.feather"
        view.to_feather(path)
        found, purchases = split_signals(path, pd.Series(["p5"], dtype="str"), signals)
    interactions, _ = split_interactions(view, purchases)
    both = pd.concat([interactions.assign(**{schema.KIND: "rating"}), found], ignore_index=True)
    if purchases.empty:
        alone, _ = split_interactions(view)
        assert interactions[schema.SPLIT].tolist() == alone[schema.SPLIT].tolist()
    held = both[both[schema.SPLIT].isin([VALIDATION, TEST])]
    assert set(held[schema.KIND]) <= {"rating", "purchase"}
    assert (held.groupby([schema.USER, schema.SPLIT])[schema.EVENT].nunique() == 1).all()
    training = both[both[schema.SPLIT] == TRAIN]
    pairs = set(zip(held[schema.USER], held[schema.PRODUCT], strict=True))
    assert not pairs & set(zip(training[schema.USER], training[schema.PRODUCT], strict=True))
    first = held.groupby(schema.USER)[schema.TIMESTAMP].min()
    for user, time in zip(training[schema.USER], training[schema.TIMESTAMP], strict=True):
        assert user not in first.index or time <= first[user]
    assert (both.groupby([schema.USER, schema.EVENT])[schema.SPLIT].nunique() == 1).all()
    asked = {
        name: set(held[held[schema.SPLIT] == name][schema.USER]) for name in (VALIDATION, TEST)
    }
    assert asked[VALIDATION] <= asked[TEST]
    bought = both[(both[schema.KIND] == "purchase") | (both[schema.RATING] >= 4)]
    for user in asked[TEST]:  # the latest positive event, but of what a rating says otherwise
        (answer,) = held[(held[schema.USER] == user) & (held[schema.SPLIT] == TEST)][
            schema.TIMESTAMP
        ].unique()
        told = set(interactions[interactions[schema.USER] == user][schema.PRODUCT])
        own = bought[bought[schema.USER] == user]
        own = own[(own[schema.KIND] == "rating") | ~own[schema.PRODUCT].isin(told)]
        assert own[schema.TIMESTAMP].max() == answer
