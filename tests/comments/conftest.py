"""Views to score: rows as the refresh hands them over."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

Row = tuple[str, str, float, str]

MakeView = Callable[[Sequence[Row]], pd.DataFrame]


@pytest.fixture(scope="session")
def make_view() -> MakeView:
    """Build a view from rows of (user, comment, rating, day)."""

    def build(rows: Sequence[Row]) -> pd.DataFrame:
        view = pd.DataFrame(rows, columns=["user_id", "comment", "rating", "timestamp"])
        view["product_id"] = [f"p{at}" for at in range(len(view))]
        view["timestamp"] = pd.to_datetime(view["timestamp"], utc=True)
        return view.astype({"user_id": "str", "comment": "str", "rating": "float32"})

    return build


@pytest.fixture
def hasaki_view(shared_data: Path) -> pd.DataFrame:
    """Hasaki's 21,572 valid reviews, copies and all."""
    raw = pd.read_csv(shared_data / "hasaki" / "reviews.csv", dtype="str", keep_default_na=False)
    local = pd.to_datetime(
        raw["ngay_binh_luan"] + " " + raw["gio_binh_luan"],
        format="%d/%m/%Y %H:%M",
        errors="coerce",
    )
    view = pd.DataFrame(
        {
            "user_id": raw["ma_khach_hang"],
            "product_id": raw["ma_san_pham"],
            "rating": raw["so_sao"].astype("float32"),
            "timestamp": local.dt.tz_localize("Asia/Ho_Chi_Minh").dt.tz_convert("UTC"),
            "comment": raw["noi_dung_binh_luan"],
        }
    )
    return view[view["timestamp"].notna() & (view["rating"] > 0)].reset_index(drop=True)


_GOOD = ("tốt", "rất thích", "thơm", "da mịn", "sẽ mua lại", "ưng", "tuyệt vời", "giao nhanh")
_BAD = ("tệ", "thất vọng", "nổi mụn", "hàng giả", "phí tiền", "hôi", "khô rát", "giao chậm")
_THING = ("kem", "son", "toner", "sữa rửa mặt", "serum", "mặt nạ", "tẩy trang", "kem chống nắng")


@pytest.fixture(scope="session")
def make_shop(make_view: MakeView) -> Callable[..., pd.DataFrame]:
    """Build a view of `count` reviews, most of them distinct, whose stars follow their words."""

    def build(count: int, seed: int = 0) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        rows: list[Row] = []
        for number in range(count):
            happy = rng.random() < 0.7
            words = rng.choice(_GOOD if happy else _BAD, size=2, replace=False)
            thing = rng.choice(_THING)
            text = f"{thing} {words[0]}, {words[1]} sau {rng.integers(500)} ngày"
            stars = rng.choice([4.0, 5.0] if happy else [1.0, 2.0, 3.0])
            day = f"2024-{1 + number * 12 // count:02d}-{1 + number % 28:02d}"
            rows.append((f"{seed}u{rng.integers(count)}", text, float(stars), day))
        return make_view(rows)

    return build
