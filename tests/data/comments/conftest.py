"""Views to score: rows as the refresh hands them over."""

from collections.abc import Callable, Sequence
from pathlib import Path

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
