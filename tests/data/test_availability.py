"""What a shop's columns say of the sale of its products: stock, status, launch, tags."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import ConfigError
from recsys.data.sources import load_source
from recsys.data.staging import append_events
from recsys.data.versions import PublishedVersion, current_version
from recsys.quality import write_report
from recsys.refresh import RefreshError
from recsys.settings import REPOSITORY, Settings
from tests.data.shop import HEADER, quarantined, refresh, row, write_shop
from tests.data.test_refresh_properties import a_home, few

COLUMNS = {
    "stock": "ton_kho",
    "status": "trang_thai",
    "discontinued": "ngung_ban",
    "available_from": "ngay_mo_ban",
    "tags": "nhan",
    "picture": "anh",
}
REVIEWS = [
    row(f"u{n}", n % 4, 1 + n % 5, f"2025-01-{1 + n:02} 10:00:00", f"tốt {n}") for n in range(12)
]
PLAIN = [{"stock": "5"}] * 9


def write_products(
    settings: Settings,
    products: list[Mapping[str, str]],
    named: tuple[str, ...] = (),
    **more: object,
) -> None:
    """A shop whose products have the texts of `products` in the columns that the source `shop`
    names: `named`, by default those that the first product has."""
    write_shop(settings, REVIEWS)
    names = list(products[0])
    lines = ["ma,ten,hang," + ",".join(COLUMNS[name] for name in names)]
    for number, product in enumerate(products):
        cells = (f'"{product.get(name, "")}"' for name in names)
        lines.append(f"{number},Kem {number},Cocoon," + ",".join(cells))
    (settings.raw / "products.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    describe(settings, named or tuple(names), **more)


def describe(settings: Settings, named: tuple[str, ...], **more: object) -> None:
    shipped = yaml.safe_load((REPOSITORY / "config" / "sources" / "viecomrec.yaml").read_text())
    if "status" in named:
        more.setdefault("not_for_sale", {"status": ["Ngừng kinh doanh", "ẩn"]})
    products = {
        "path": "data/raw/products.csv",
        "columns": {
            "product_id": "ma",
            "product_name": "ten",
            "brand": "hang",
            **{name: COLUMNS[name] for name in named},
        },
        **more,
    }
    folder = settings.home / "config" / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({**shipped, "products": products})
    (folder / "shop.yaml").write_text(text)
    (settings.home / "data").mkdir(exist_ok=True)
    (settings.home / "data" / "source.json").write_text('{"source": "shop"}')


def table(settings: Settings) -> pd.DataFrame:
    return current_version(settings).products().set_index("product_id")


def ids(count: int) -> list[str]:
    """Of the first products, in the order of the file."""
    return [str(number) for number in range(count)]


def available(settings: Settings) -> str:
    """Ids of what is for sale."""
    products = table(settings)
    return "".join(products.index[products["available"]])


def test_a_stock_is_read_as_shops_write_it(settings):
    written = {
        "12": 12, "0": 0, "-3": 0, "\u22121": 0, "12.0": 12, "1.250": 1250, "0.5": 0.5, " 7 ": 7,
        "": None, "NULL": None, "-": None,
    }  # fmt: skip
    write_products(settings, [{"stock": text} for text in written])
    refresh(settings)
    products = table(settings)
    assert products["stock"].dtype == np.float32
    found = [
        None if np.isnan(pieces) else pieces for pieces in products["stock"][ids(len(written))]
    ]
    assert found == list(written.values())
    expected = [pieces != 0 for pieces in written.values()]
    assert products["available"][ids(len(written))].tolist() == expected


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("stock", "nhiều", "the stock is not a number"),
        ("available_from", "sớm", "the time from which it is available cannot be read"),
    ],
)
def test_what_cannot_be_read_goes_to_quarantine_with_its_row(settings, column, text, reason):
    write_products(settings, [{column: text}, *[{column: ""}] * 9])
    assert refresh(settings)["products"]["quarantined"] == 1
    bad = quarantined(settings)
    assert bad["reason"].tolist() == [reason]
    assert bad["row"].tolist() == [2]
    assert text in bad["raw"][0]
    assert "0" not in available(settings)


def test_a_status_is_compared_without_case_and_accents(settings):
    sold = {
        "NGUNG KINH DOANH": False, "Ẩn": False, "an ": False, "Đang bán": True, "": True,
    }  # fmt: skip
    write_products(settings, [{"status": text} for text in sold])
    refresh(settings)
    assert table(settings)["available"][ids(len(sold))].tolist() == list(sold.values())


@pytest.mark.parametrize(
    ("values", "sold"),
    [
        (
            None,
            {
                "1": False, "1.0": False, "TRUE": False, "Có": False, "X": False, "0": True,
                "": True, "không": True, "ngưng": True,
            },
        ),
        (["NGƯNG", False, 7], {"ngưng": False, "no": False, "0": True, "7": False, "1": True}),
    ],
)  # fmt: skip
def test_the_description_says_what_discontinued_means(settings, values, sold):
    more = {} if values is None else {"not_for_sale": {"discontinued": values}}
    write_products(settings, [{"discontinued": text} for text in sold], **more)
    refresh(settings)
    assert table(settings)["available"][ids(len(sold))].tolist() == list(sold.values())


def test_tags_are_folded_each_once_whatever_separates_them(settings):
    tags = ["Tết, Quà tặng,tet", "", "null", "['x']", '[""Da dầu"", ""Mới"", 7]', "[1"]
    write_products(settings, [{"tags": text} for text in tags])
    refresh(settings)
    found = table(settings)["tags"].tolist()
    assert found == ["tet\nqua tang", "", "", "['x']", "da dau\nmoi\n7", "[1"]
    write_products(settings, [{"tags": "a,b; C"}, *[{"tags": ""}] * 9], tag_separator=";")
    refresh(settings, force_full=True)
    assert table(settings)["tags"]["0"] == "a,b\nc"


def test_a_launch_is_a_moment_of_the_shop_and_no_reason_to_be_unavailable(settings):
    moments = {
        "2025-02-01": "2025-01-31T17:00Z", "01/02/2025 08:00": "2025-02-01T01:00Z",
        "1738371600": "2025-02-01T01:00Z", "2025-02-01T01:00:00Z": "2025-02-01T01:00Z",
        "2030-01-01": "2029-12-31T17:00Z", "": None, "0000-00-00 00:00:00": None,
    }  # fmt: skip
    write_products(settings, [{"available_from": text} for text in moments])
    refresh(settings)
    launch = table(settings)["available_from"]
    assert str(launch.dtype) == "datetime64[us, UTC]"
    found = [None if pd.isna(moment) else moment for moment in launch[ids(len(moments))]]
    assert found == [moment and pd.Timestamp(moment) for moment in moments.values()]
    assert available(settings) == "0123456", "the version knows no clock"


def test_a_product_began_when_the_shop_says_else_with_its_first_rating_or_purchase(settings):
    write_products(settings, [{"available_from": "2024-12-01"}, *[{"available_from": ""}] * 8])
    events = [("purchase", 2, 1), ("purchase", 5, 1), ("view", 6, 1)]
    append_events(
        settings,
        [
            {
                "event_id": f"e{product}", "kind": kind, "user_id": "u1", "product_id": product,
                "timestamp": datetime(2025, 1, day, tzinfo=UTC),
            }
            for kind, product, day in events
        ],
    )  # fmt: skip
    refresh(settings)
    since = table(settings)["since"]
    assert str(since.dtype) == "datetime64[us, UTC]"
    assert since["0"] == pd.Timestamp("2024-11-30T17:00Z")
    assert since["1"] == pd.Timestamp("2025-01-02T03:00Z"), "its first rating"
    assert since["2"] == since["5"] == pd.Timestamp("2025-01-01", tz="UTC"), "the purchase"
    assert since[["6", "7"]].isna().all(), "views are forgotten"
    shown = current_version(settings).shown_products()
    assert shown["since"][1] == pd.Timestamp("2025-01-02T03:00Z").timestamp()
    assert shown["available_from"][:2] == [pd.Timestamp("2024-11-30T17:00Z").timestamp(), None]


def test_a_shop_that_names_none_of_the_columns_has_none(settings):
    write_products(settings, PLAIN, named=("stock",))
    describe(settings, ())
    refresh(settings)
    version = current_version(settings)
    known = {"product_id", "product_name", "brand", "category", "price", "description"}
    assert set(version.products()) == known | {"family_id", "available"}
    assert list(version.shown_products()) == [
        "product_id", "product_name", "brand", "category", "price", "family_id", "available",
    ]  # fmt: skip
    assert not {name for name in version.stats() if "sale" in name or "status" in name}


def test_a_named_column_that_the_file_lacks_says_nothing(settings):
    write_products(settings, PLAIN, named=("stock", "tags", "available_from"))
    refresh(settings)
    products = table(settings)
    assert (products["tags"] == "").all()
    assert products["available_from"].isna().all()
    assert len(available(settings)) == 9


def content(version: PublishedVersion) -> dict[str, object]:
    made = {"products.parquet", "shown_products.jsonl", "interactions.parquet", "data_stats.json"}
    return {name: (version.path / name).read_bytes() for name in made}


def test_a_change_of_the_stock_alone_makes_a_version_like_that_of_a_full_refresh(
    settings, tmp_path
):
    write_products(settings, PLAIN)
    refresh(settings)
    assert refresh(settings)["strategy"] == "nothing_new"
    fewer = [{"stock": "0"}, {"stock": "4"}, *PLAIN[2:]]
    write_products(settings, fewer)
    summary = refresh(settings)
    assert summary["strategy"] == "incremental"
    assert summary["reason"] == "no new interaction, but the catalogue changed"
    assert available(settings) == "12345678"
    fresh = Settings(tmp_path / "fresh")
    write_products(fresh, fewer)
    refresh(fresh)
    assert content(current_version(settings)) == content(current_version(fresh))
    write_products(settings, PLAIN)
    refresh(settings)
    assert available(settings) == "012345678", "in stock again"


EXPORTS = st.lists(
    st.fixed_dictionaries(
        {
            "stock": st.sampled_from(["", "0", "-1", "7", "1.000"]),
            "status": st.sampled_from(["Đang bán", "Ẩn", ""]),
            "discontinued": st.sampled_from(["", "", "x"]),
            "available_from": st.sampled_from(["", "2025-01-05", "2030-01-01 08:00"]),
            "tags": st.sampled_from(["", "Tết", "tết,Mới"]),
        }
    ),
    min_size=1,
    max_size=9,
)


@few
@given(EXPORTS, EXPORTS)
def test_incremental_equals_full(before: list[dict[str, str]], after: list[dict[str, str]]):
    with a_home() as merged, a_home() as fresh:
        for one, exports in ((merged, (before, after)), (fresh, (after,))):
            (one.home / "config" / "data.yaml").write_text("max_shrink_fraction: 1.0\n")
            for number, export in enumerate(exports):
                # One product that is sold: without any a run is refused.
                write_products(one, [*export, {"stock": "1"}])
                rows = REVIEWS[:-1] if number < len(exports) - 1 else REVIEWS
                file = one.raw / "viecomrec" / "data_reviews_purchase.csv"
                file.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
                summary = refresh(one)
            expected = "incremental" if one is merged else "full"
            assert summary["strategy"] == expected
        assert content(current_version(merged)) == content(current_version(fresh))


def test_what_is_missing_from_an_export_is_gone_and_what_returns_is_back(settings):
    write_products(settings, PLAIN)
    refresh(settings)
    write_products(settings, PLAIN[:8])  # never reviewed
    refresh(settings)
    assert "8" not in table(settings).index
    path = settings.raw / "products.csv"
    whole = path.read_text()
    path.write_text(whole.replace('1,Kem 1,Cocoon,"5"\n', ""))
    refresh(settings)
    assert not table(settings).loc["1", "available"], "reviews know it still"
    assert np.isnan(table(settings).loc["1", "stock"])
    assert current_version(settings).stats()["products_not_for_sale"] == {"not in the catalogue": 1}
    path.write_text(whole)
    refresh(settings)
    assert table(settings).loc["1", "available"]


def test_a_backfilled_day_has_the_launches_of_the_catalogue_and_the_beginnings_of_its_day(settings):
    launches = [{"available_from": "2025-01-20"}, *[{"available_from": ""}] * 8]
    write_products(settings, launches)
    refresh(settings)
    earlier = refresh(settings, datetime(2025, 1, 5, tzinfo=UTC))
    folder = settings.versions / earlier["version_id"]
    since = pd.read_parquet(folder / "products.parquet").set_index("product_id")["since"]
    assert since["0"] == table(settings)["since"]["0"]
    assert since["1"] == table(settings)["since"]["1"]


def test_a_run_that_would_take_most_products_off_sale_is_refused_unless_forced(settings):
    write_products(settings, PLAIN)
    refresh(settings)
    write_products(settings, [{"stock": "0"}] * 6 + PLAIN[6:])
    with pytest.raises(RefreshError, match=r"only 3 products are for sale of the 9 .*sold out"):
        refresh(settings)
    assert len(available(settings)) == 9
    refresh(settings, force_full=True)
    assert available(settings) == "678"
    write_products(settings, [{"stock": "0"}] * 5 + PLAIN[5:])
    refresh(settings)
    assert available(settings) == "5678", "it is compared with what was for sale before"


def test_a_description_that_takes_everything_off_sale_is_refused_and_a_new_column_may_take_much(
    settings,
):
    write_products(settings, [{"status": "Đang bán"}] * 9, not_for_sale={"status": ["đang bán"]})
    with pytest.raises(RefreshError, match="none of the 9 products is for sale"):
        refresh(settings)
    half = [{"stock": "0"}] * 6 + PLAIN[6:]
    write_products(settings, half)
    describe(settings, ())
    refresh(settings)
    assert len(available(settings)) == 9
    describe(settings, ("stock",))
    refresh(settings)
    assert available(settings) == "678", "before, nothing was said of the stock"


def test_the_reasons_are_counted_and_shown_in_the_quality_report(settings):
    products = [
        {"stock": "0", "status": "", "discontinued": "", "available_from": ""},
        {"stock": "0", "status": "Ẩn", "discontinued": "", "available_from": ""},
        {"stock": "0", "status": "Ẩn", "discontinued": "1", "available_from": ""},
        {"stock": "4", "status": "Đang bán", "available_from": "2030-01-01"},
        *[{"stock": "4", "status": "Đang bán"}] * 5,
    ]
    write_products(settings, products)
    version_id = refresh(settings)["version_id"]
    stats = current_version(settings).stats()
    assert stats["products_available"] == 6
    reasons = {"discontinued": 1, "sold out": 1, "status: an": 1}
    assert stats["products_not_for_sale"] == reasons
    assert stats["products_by_status"] == {"": 1, "an": 2, "dang ban": 6}
    page = write_report(settings, version_id)
    figures = json.loads(page.with_suffix(".json").read_text())
    assert figures["sale"] == {
        "not_for_sale": reasons, "by_status": stats["products_by_status"], "later": 1,
    }  # fmt: skip
    assert "status: an" in page.read_text()


def test_the_example_of_the_docs_is_read(settings):
    text = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    example = next(
        yaml.safe_load(block)
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        if "not_for_sale" in block
    )
    write_shop(settings, REVIEWS)
    folder = settings.home / "config" / "sources"
    folder.mkdir(parents=True)
    shipped = yaml.safe_load((REPOSITORY / "config" / "sources" / "viecomrec.yaml").read_text())
    (folder / "shop.yaml").write_text(yaml.safe_dump({**shipped, **example}))
    (settings.home / "data").mkdir(exist_ok=True)
    (settings.home / "data" / "source.json").write_text('{"source": "shop"}')
    (settings.raw / "shop").mkdir()
    (settings.raw / "shop" / "products.csv").write_text(
        "ma_san_pham,ten_san_pham,gia_ban,ton_kho,trang_thai,ngung_ban,ngay_mo_ban,nhan\n"
        "0,Kem chống nắng,189.000,12,Đang bán,,,Mới; Da dầu\n"
        "1,Sữa rửa mặt,99.000,0,Đang bán,,,\n"
        "2,Son,120.000,5,ngung kinh doanh,,,\n"
        "3,Nước tẩy trang,89.000,5,Đang bán,x,,\n"
        "4,Tinh chất,399.000,5,Đang bán,,25/12/2026 00:00,Mới\n"
    )
    refresh(settings)
    assert available(settings) == "04"
    products = table(settings)
    assert products["tags"].tolist() == ["moi\nda dau", "", "", "", "moi"]
    assert products.loc["4", "available_from"] == pd.Timestamp("2026-12-24T17:00Z")


@pytest.mark.parametrize(
    ("named", "more", "why"),
    [
        (("status",), {"not_for_sale": {}}, r"expected columns\.status and not_for_sale\.status"),
        ((), {"not_for_sale": {"status": ["ẩn"]}}, r"columns\.status and not_for_sale\.status"),
        (("available_from",), {"available_from_formats": ["dd/mm"]}, "expected 'iso', 'epoch'"),
        ((), {"not_for_sale": {"stock": [0]}}, "not_for_sale"),
    ],
)
def test_a_description_of_no_sense_is_refused(settings, named, more, why):
    describe(settings, named, **more)
    with pytest.raises(ConfigError, match=f"(?s)shop.yaml.*{why}"):
        load_source(settings, "shop")


def test_a_picture_is_an_https_address_and_anything_else_is_none(settings):
    sent = ["https://cdn.shop.vn/1.jpg", " https://cdn.shop.vn/a?b=1 ", "http://cdn.shop.vn/1.jpg"]
    sent += ["javascript:alert(1)", "1.jpg", "", "https://cdn.shop.vn/a b.jpg"]
    write_products(settings, [{"picture": one} for one in sent])
    refresh(settings)
    shown = current_version(settings).shown_products()
    at = dict(zip(shown["product_id"], shown["picture"], strict=True))
    assert [at[str(number)] for number in range(len(sent))] == [sent[0], sent[1].strip(), *[""] * 5]
