"""Exports of a shop's orders and clicks, read as the shipped descriptions say."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from recsys.config import ConfigError
from recsys.data.cleaning import Limits
from recsys.data.events import limits_of, read_event_file
from recsys.data.sources import load_event_source, load_source, resolve_event_sources
from recsys.errors import SourceError
from recsys.events import BAD_VALUE, NO_KIND
from recsys.settings import REPOSITORY, Settings
from tests.data.shop import row, write_shop

ORDERS = """ma_dong;ma_don;ngay_dat;ma_khach_hang;ma_san_pham;so_luong;thanh_tien;trang_thai
1001-1;1001;02/01/2025 10:05;KH01;1;2;378.000;Đã giao
1001-2;1001;02/01/2025 10:05;KH01;2;1;1.250.000 ₫;đã giao
1002-1;1002;03/01/2025;KH02;422.0;1;;DANG GIAO
1003-1;1003;04/01/2025 08:00;KH02;3;1;99.000;Đã huỷ
1004-1;1004;05/01/2025 08:00;khách lẻ;3;1;99.000;Đã giao
1005-1;1005;06/01/2025 08:00;KH03;3;-1;99.000;Đã giao
1006-1;1006;06/01/2025 08:00;KH03;3;1;99.000;Chờ duyệt
"""
CLICKS = [
    {"ma_khach_hang": "KH01", "ma_san_pham": 1, "thoi_gian": 1735786800, "loai": "xem"},
    {
        "phien": "s-9",
        "ma_san_pham": 2,
        "thoi_gian": 1735786801500,
        "loai": "Nhấp",
        "vi_tri": "home",
    },
    {"ma_khach_hang": "guest", "ma_san_pham": 2, "thoi_gian": 1735786802, "loai": "xem"},
    {"ma_khach_hang": "KH01", "thoi_gian": 1735786803, "loai": "tìm kiếm"},
    {"ma_khach_hang": "KH01", "ma_san_pham": 1, "thoi_gian": 1735786800, "loai": "xem"},
]


def limits(settings: Settings) -> Limits:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    main = load_source(settings, "viecomrec")
    return Limits(ZoneInfo("UTC"), datetime(2000, 1, 1, tzinfo=UTC), now, now, main.id_rules)


def write_exports(settings: Settings, orders: str = ORDERS, clicks=CLICKS) -> None:
    """A shop with orders and clicks, and a configuration that reads them."""
    write_shop(settings, [row("KH01", 5), row("KH02", 6)])
    for folder, name, text in (
        ("orders", "2025-01.csv", orders),
        ("clicks", "2025-01.jsonl", "".join(json.dumps(one) + "\n" for one in clicks)),
    ):
        path = settings.raw / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    config = settings.home / "config" / "data.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("source: viecomrec\nevents: [orders, clicks]\nmax_invalid_fraction: 0.5\n")


def read(settings: Settings, name: str):
    (source,) = (one for one in resolve_event_sources(settings) if one.name == name)
    own = limits_of(source, load_source(settings, "viecomrec"), limits(settings))
    return read_event_file(source.files[0], source.config.events, own)


def describe(settings: Settings, name: str, *changes: tuple[str, str]) -> None:
    text = (REPOSITORY / "config" / "sources" / f"{name}.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = settings.home / "config" / "sources" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_shipped_description_of_orders_reads_an_export(settings):
    write_exports(settings)
    found = read(settings, "orders")
    orders = found.accepted
    assert orders["event_id"].tolist() == ["1001-1", "1001-2", "1002-1"]
    assert orders["product_id"].tolist() == ["1", "2", "422"]
    assert set(orders["kind"]) == {"purchase"}
    assert orders["quantity"].tolist() == [2, 1, 1]
    assert orders["value"].fillna(-1).tolist() == [378_000, 1_250_000, -1]
    assert orders["timestamp"][0] == datetime(2025, 1, 2, 3, 5, tzinfo=UTC)
    assert (orders["received_at"] == orders["timestamp"]).all()
    assert found.ignored == 1
    assert found.rejected[["row", "reason"]].to_numpy().tolist() == [
        [6, "the user is a placeholder that stands for many people"],
        [7, "the quantity is not above 0 and up to 10,000"],
        [8, NO_KIND],
    ]
    assert found.bad_rows == 2


def test_the_shipped_description_of_clicks_reads_an_export(settings):
    write_exports(settings)
    found = read(settings, "clicks")
    clicks = found.accepted
    assert clicks["kind"].tolist() == ["view", "click", "view"]
    assert clicks["user_id"].tolist() == ["KH01", "", "KH01"]
    assert clicks["session_id"].tolist() == ["", "s-9", ""]
    assert clicks["placement"][1] == "home"
    assert clicks["timestamp"][1] == datetime(2025, 1, 2, 3, 0, 1, 500_000, tzinfo=UTC)
    assert clicks["event_id"].str.fullmatch("file:[0-9a-f]{16}").all()
    assert clicks["event_id"][0] == clicks["event_id"][2] != clicks["event_id"][1]
    assert found.ignored == 1
    assert found.bad_rows == 0


@pytest.mark.parametrize(
    "value", ["$12", "99.000 USD", "-50.000", "9e15", "1000000000000", "hỏi giá"]
)
def test_a_value_that_the_service_would_refuse_is_refused_with_its_reason(settings, value):
    write_exports(settings, orders=ORDERS.replace("378.000", value))
    found = read(settings, "orders")
    assert found.accepted["event_id"].tolist() == ["1001-2", "1002-1"]
    assert found.rejected[["row", "reason"]].to_numpy().tolist()[0] == [2, BAD_VALUE]
    assert found.bad_rows == 3


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"ma_san_pham": [1]}, "'ma_san_pham' is a list"),
        ({"ma_san_pham": {"id": 1}}, "'ma_san_pham' is an object"),
        ({"ma_san_pham": True}, "'ma_san_pham' is true or false"),
        ({"ma_khach_hang": ["KH01"]}, "'ma_khach_hang' is a list"),
        ({"phien": {}}, "'phien' is an object"),
    ],
)
def test_an_id_of_a_line_that_is_neither_text_nor_a_number_is_none(settings, change, what):
    clicks = [CLICKS[0], {**CLICKS[1], **change}, {**CLICKS[2], "phien": "s-8"}, {}]
    write_exports(settings, clicks=clicks)
    found = read(settings, "clicks")
    assert found.accepted["row"].tolist() == [1, 3]
    number, reason = found.rejected[["row", "reason"]].to_numpy().tolist()[0]
    assert number == 2
    assert f"the column {what}; expected an id" in reason
    assert "Nhấp" in found.rejected["raw"][0]


def test_ids_made_of_rows_do_not_change_with_the_aliases_or_the_spelling(settings):
    write_exports(settings)
    before = read(settings, "clicks").accepted
    shipped = (REPOSITORY / "config" / "sources" / "viecomrec.yaml").read_text()
    path = settings.home / "config" / "sources" / "viecomrec.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(shipped.replace("products:\n", 'products:\n  aliases: {"1": "7"}\n'))
    spelt = [{**CLICKS[0], "ma_san_pham": "1.0", "ma_khach_hang": " KH01 "}, *CLICKS[1:]]
    write_exports(settings, clicks=spelt)
    after = read(settings, "clicks").accepted
    assert after["event_id"].tolist() == before["event_id"].tolist()
    assert after["product_id"].tolist() == ["7", "2", "7"]


def test_a_file_of_one_kind_needs_no_column_for_it(settings):
    write_exports(settings)
    text = (REPOSITORY / "config" / "sources" / "orders.yaml").read_text(encoding="utf-8")
    kinds = text[text.index("  kinds:") : text.index("  columns:")]
    describe(settings, "orders", (kinds, "  kind: purchase\n"))
    assert len(read(settings, "orders").accepted) == 5


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("orders", ("  kinds:", "  kind: purchase\n  kinds:"), "expected either kind or kinds"),
        ("orders", ("Đã giao: purchase", "Đã giao: rating"), "describe them as reviews"),
        ("orders", ("Đã giao: purchase", "Đã giao: buy"), r"events\.kinds\.values\.Đã giao"),
        ("orders", ("[Đã hủy,", "[đã giao,"), "are one but for case and accents"),
        ("orders", ('thousands: "."', "currency: EUR"), "expected VND: values are in dong"),
        ("orders", ("    user_id: ma_khach_hang\n", ""), "expected user_id, session_id or both"),
        ("orders", ("  path:", "  paths:"), r"events\.path"),
    ],
)
def test_a_description_that_makes_no_sense_names_the_key(settings, name, change, problem):
    describe(settings, name, change)
    with pytest.raises(ConfigError, match=problem):
        load_event_source(settings, name)


def test_reviews_and_events_are_not_taken_for_each_other(settings):
    with pytest.raises(SourceError, match=r"'viecomrec' has no events: expected .*clicks, orders"):
        load_event_source(settings, "viecomrec")
    with pytest.raises(
        SourceError, match=r"'orders' has events and no reviews: .*data.yaml: events"
    ):
        load_source(settings, "orders")
    with pytest.raises(SourceError, match=r"no source of events 'sales': .*: clicks, orders$"):
        load_event_source(settings, "sales")
    path = settings.home / "config" / "sources" / "orders.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("events: [\n")
    with pytest.raises(ConfigError, match=r"orders\.yaml"):
        load_event_source(settings, "orders")


def test_a_missing_or_empty_export_is_named(settings):
    write_exports(settings)
    folder: Path = settings.raw / "orders"
    (folder / "2025-02.csv").touch()
    (source, _) = resolve_event_sources(settings)
    assert [path.name for path in source.passed_over] == ["2025-02.csv"]
    (folder / "2025-01.csv").unlink()
    with pytest.raises(
        SourceError, match=r"source orders: events: .*2025-02.csv: the file is empty"
    ):
        resolve_event_sources(settings)
    shutil.rmtree(folder)
    with pytest.raises(SourceError, match=r"source orders: events: .*the file does not exist"):
        resolve_event_sources(settings)
