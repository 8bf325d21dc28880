"""A small shop whose texts are real enough to be embedded."""

import pandas as pd
import pytest

from recsys import schema
from recsys.content import ContentConfig

KINDS = {
    "Kem Chống Nắng": "bảo vệ da khỏi tia UV, chỉ số chống nắng cao",
    "Sữa Rửa Mặt": "làm sạch da, lấy đi bụi bẩn và dầu thừa",
    "Mặt Nạ": "dưỡng ẩm và thư giãn da sau một ngày dài",
    "Nước Tẩy Trang": "tẩy sạch lớp trang điểm dịu nhẹ không cồn",
}
BRANDS = ("Cocoon", "Vichy", "Anessa", "Hada Labo", "Senka", "Bioderma", "Simple")
SKINS = ("Dầu Mụn", "Khô", "Nhạy Cảm", "Hỗn Hợp")
NOTICE = "Hàng được xuất hoá đơn đỏ cho mọi khách hàng."


def make_shop() -> pd.DataFrame:
    rows = [
        (f"{kind} {brand} Cho Da {skin} {size}ml", brand, f"{kind} {brand}: {says}. {NOTICE}")
        for size, (kind, says) in enumerate(KINDS.items(), start=50)
        for brand in BRANDS
        for skin in SKINS
    ]
    shop = pd.DataFrame(rows, columns=[schema.PRODUCT_NAME, schema.BRAND, schema.DESCRIPTION])
    shop[schema.CATEGORY] = ""
    shop[schema.PRICE] = 100_000.0
    shop.insert(0, schema.PRODUCT, [str(1000 + i) for i in range(len(shop))])
    return shop


@pytest.fixture
def shop() -> pd.DataFrame:
    """112 products of four kinds; every description ends in one notice."""
    return make_shop()


@pytest.fixture
def config() -> ContentConfig:
    return ContentConfig(
        text_fields=("product_name", "brand", "category", "attributes", "description"),
    )
