from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data import families
from recsys.data.families import base_names, shared_events
from recsys.schema import COMMENT, EVENT, PRODUCT, PRODUCT_NAME, TIMESTAMP, USER


def catalogue(*names: str) -> pd.DataFrame:
    return pd.DataFrame({PRODUCT: [str(i) for i in range(len(names))], PRODUCT_NAME: names})


def reviews(*rows: tuple[str, str]) -> pd.DataFrame:
    """Rows of (event, product)."""
    return pd.DataFrame(rows, columns=[EVENT, PRODUCT])


def assign_families(products: pd.DataFrame, rows: pd.DataFrame | None = None) -> pd.Series:
    """Families by names and, if there are any, rows of events."""
    if rows is None:
        return families.assign_families(products)
    ordered = rows.sort_values(EVENT)
    numbers = pd.Index(products[PRODUCT]).get_indexer(pd.Index(ordered[PRODUCT]))
    event = pd.factorize(ordered[EVENT])[0]
    return families.assign_families(products, shared_events(event, numbers, len(products)))


@pytest.mark.parametrize(
    "names",
    [
        (
            "Nước Tẩy Trang L'Oreal Căng Mịn Da 400ml",
            "[Mini] Nước Tẩy Trang L'Oreal Căng Mịn Da 95ml",
        ),
        ("Kem Chống Nắng Cocoon 50ml", "Combo 2 Kem Chống Nắng Cocoon 50ml"),
        ("Kem Chống Nắng Cell Fusion C 35ml", "Combo Kem Chống Nắng Cell Fusion C 35mlx2"),
        ("Mặt Nạ Tràm Trà Sexylook 28ml", "Combo Mặt Nạ Tràm Trà Sexylook 5x28ml"),
        ("Bông Tẩy Trang Ipek 150 Miếng", "Combo 4 Bông Tẩy Trang Ipek 150 Miếng"),
        ("Bông Silcot Cơ Bản Hộp 82 Miếng", "Combo 3 Hộp Bông Silcot Cơ Bản 82 Miếng"),
        ("Miếng Dán Mụn Mayan 20+4 Miếng", "Miếng Dán Mụn Mayan 48 Miếng"),
        ("Sữa Chống Nắng Sunplay SPF81 PA++++ 70g", "Sữa Chống Nắng Sunplay 30g"),
        ("Tinh Chất Sunplay Hiệu Chỉnh 50g (Tím)", "Tinh Chất Sunplay Hiệu Chỉnh 50g (Xanh)"),
        ("Máy Rửa Mặt Halio Màu Hồng Nhạt", "Máy Rửa Mặt Halio Màu Xanh Mint"),
        (
            "Son Kem Lì Black Rouge A12 Dashed Brown 4.5g",
            "Son Kem Lì Black Rouge A03 Velvet Rouge 4.5g",
        ),
        ("Son 3CE Velvet Lip #05 Taupe", "Son 3CE Velvet Lip #21"),
        ("Nước Tẩy Trang Cocoon Bí Đao 500ml", "Nước Tẩy Trang Bí Đao Cocoon 140ml"),
        ("Kem Dưỡng Ẩm Phục Hồi 30ml", "kem duong am phuc hoi 50 ML"),
        ("Mặt Nạ BNBG Dưỡng Sáng Da 30ml", "Mặt Nạ BNBG Hỗ Trợ Dưỡng Sáng Da (Mới) 30ml"),
    ],
)
def test_variants_of_one_product_share_a_family(names: tuple[str, str]) -> None:
    assert assign_families(catalogue(*names)).nunique() == 1


@pytest.mark.parametrize(
    "names",
    [
        ("Kem Dưỡng Olay Ban Ngày 50g", "Kem Dưỡng Olay Ban Đêm 50g"),
        ("Kem Dưỡng Obagi Retinol 0.5% 28g", "Kem Dưỡng Obagi Retinol 1.0% 28g"),
        ("Serum Vichy 89 30ml", "Serum Vichy 30ml"),
        ("Dung Dịch Hada Labo Cho Da Dầu 170ml", "Dung Dịch Hada Labo Cho Da Khô 170ml"),
        ("Kem Làm Đều Màu Da Ban Ngày", "Kem Làm Đều Màu Da Ban Đêm"),
        ("Sản phẩm 1", "Sản phẩm 2"),
        ("", ""),
        ("Combo 2", "Combo 3"),
        ("50ml", "100ml"),
    ],
)
def test_different_products_stay_apart(names: tuple[str, str]) -> None:
    assert assign_families(catalogue(*names)).nunique() == 2


def test_equal_names_of_two_brands_stay_apart() -> None:
    products = catalogue("Nước Tẩy Trang 400ml", "Nước Tẩy Trang 400ml", "Nước Tẩy Trang 200ml")
    products["brand"] = ["Simple", "Nivea", "Nivea"]
    assert assign_families(products).tolist() == ["0", "1", "1"]


def test_listings_that_share_their_reviews_are_one_family() -> None:
    products = catalogue("Mặt nạ cà chua", "Sheet mask tomato", "Kem chống nắng")
    shared = [(f"e{i}", product) for i in range(3) for product in ("0", "1")]
    assert assign_families(products, reviews(*shared, ("x", "2"))).tolist() == ["0", "0", "2"]


def test_a_single_shared_review_needs_names_in_common() -> None:
    products = catalogue("Mặt nạ Mediheal trà", "Mặt nạ Mediheal collagen", "Kem chống nắng Anessa")
    once = reviews(("e", "0"), ("e", "1"), ("e", "2"))
    assert assign_families(products, once).tolist() == ["0", "0", "2"]


def test_products_reviewed_together_now_and_then_stay_apart() -> None:
    products = catalogue("Mặt nạ cà chua", "Kem chống nắng")
    rows = [(f"both{i}", p) for i in range(4) for p in ("0", "1")]
    rows += [(f"own{i}", "0") for i in range(9)]
    assert assign_families(products, reviews(*rows)).nunique() == 2


def test_a_review_on_hundreds_of_pages_is_no_evidence() -> None:
    products = catalogue(*(f"Son thứ {i} loại {i}" for i in range(200)))
    spam = reviews(*((f"spam{e}", str(i)) for e in range(3) for i in range(200)))
    assert assign_families(products, spam).nunique() == 200


def test_reviews_of_unknown_products_are_left_out() -> None:
    products = catalogue("Mặt nạ", "Kem")
    rows = reviews(*((f"e{i}", p) for i in range(5) for p in ("0", "gone")))
    assert assign_families(products, rows).tolist() == ["0", "1"]


def test_no_products_no_families() -> None:
    assert assign_families(catalogue(), reviews()).empty


def test_the_family_is_named_after_its_first_listing() -> None:
    products = catalogue(*(["Kem Chống Nắng Cocoon 50ml"] * 2)).assign(product_id=["1000", "999"])
    assert assign_families(products).tolist() == ["999", "999"]


@given(
    st.lists(
        st.sampled_from(
            ["Kem A 5ml", "Kem A 9ml", "Kem B 5ml", "Sữa C", "Combo 2 Sữa C", "", "Son D"]
        ),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 11)), max_size=40),
    st.integers(0, 2**32 - 1),
)
def test_the_order_of_rows_does_not_matter(
    names: list[str], shown: list[tuple[int, int]], seed: int
) -> None:
    products = catalogue(*names)
    rows = reviews(*((f"e{event}", str(product)) for event, product in shown))
    families = assign_families(products, rows)
    random = np.random.default_rng(seed)
    mixed = products.iloc[random.permutation(len(products))]
    again = assign_families(mixed, rows.iloc[random.permutation(len(rows))])
    assert again.sort_index().tolist() == families.tolist()
    assert again.name == "family_id"


def test_hasaki_families_join_what_the_shop_sells_as_one(shared_data: Path) -> None:
    products = pd.read_csv(shared_data / "hasaki" / "products.csv", dtype=str).rename(
        columns={"ma_san_pham": PRODUCT, "ten_san_pham": PRODUCT_NAME}
    )
    rows = pd.read_csv(shared_data / "hasaki" / "reviews.csv", dtype=str).rename(
        columns={"ma_san_pham": PRODUCT, "ma_khach_hang": USER, "noi_dung_binh_luan": COMMENT}
    )
    rows[TIMESTAMP] = rows["ngay_binh_luan"] + " " + rows["gio_binh_luan"]
    rows[EVENT] = rows.groupby([USER, TIMESTAMP, COMMENT], dropna=False).ngroup()
    events_alone = assign_families(products.assign(product_name=""), rows)
    assert 900 <= events_alone.nunique() <= 925
    all_of_them = assign_families(products, rows)
    assert 800 <= all_of_them.nunique() <= 910
    # names and events agree: a family is never torn apart by leaving one of them out
    assert (all_of_them.groupby(events_alone).nunique() == 1).all()
    assert all_of_them.value_counts().iloc[0] <= 25
    name = base_names(products[PRODUCT_NAME])
    assert all_of_them[name == "nuoc tay trang bioderma danh cho da nhay cam"].nunique() == 1
