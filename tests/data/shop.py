"""Small shops on disk for the tests of the data area."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from recsys import schema
from recsys.data.sources import select_source
from recsys.data.versions import current_version
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings

HEADER = "user_id,product_id,rating,cmt_date,comment"
END = datetime(2025, 3, 1, tzinfo=UTC)
PRODUCTS = [f"{number},Kem dưỡng {number}0ml,Cocoon,Kem,10{number}000,Mô tả" for number in range(9)]


def row(
    user: object = "u1",
    product: object = "1",
    rating: object = 5,
    time: object = "2025-01-02 10:00:00",
    comment: str = "tốt",
) -> str:
    return f"{user},{product},{rating},{time},{comment}"


def write_shop(
    settings: Settings, rows: Sequence[str], products: Sequence[str] = tuple(PRODUCTS)
) -> None:
    """Write a shop in the ViEcomRec layout where the source ``viecomrec`` looks."""
    folder = settings.raw / "viecomrec"
    folder.mkdir(parents=True, exist_ok=True)
    reviews = "\n".join([HEADER, *rows]) + "\n"
    (folder / "data_reviews_purchase.csv").write_text(reviews, encoding="utf-8")
    header = "product_id,product_name,brand,type,price,processed_description"
    catalogue = "\n".join([header, *products]) + "\n"
    (folder / "data_product.csv").write_text(catalogue, encoding="utf-8")


def interval(end: datetime = END) -> DataInterval:
    return DataInterval(end - timedelta(days=1), end)


def refresh(settings: Settings, end: datetime = END, **options: Any) -> dict[str, Any]:
    return run_refresh(settings, interval(end), **options)


def published_rows(settings: Settings) -> pd.DataFrame:
    return current_version(settings).interactions()


def quarantined(settings: Settings) -> pd.DataFrame:
    """All rows in the quarantine."""
    files = sorted(settings.quarantine.glob("*.csv"))
    if not files:
        return pd.DataFrame(columns=["file", "row", "reason", "raw"])
    return pd.concat([pd.read_csv(file) for file in files], ignore_index=True)


def pairs(settings: Settings) -> set[tuple[str, str, float]]:
    rows = published_rows(settings)
    return set(
        zip(rows[schema.USER], rows[schema.PRODUCT], rows[schema.RATING].astype(float), strict=True)
    )


__all__ = ["END", "interval", "pairs", "published_rows", "quarantined", "refresh", "row"]
__all__ += ["select_source", "write_shop"]
