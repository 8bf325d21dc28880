"""How well a product sells at the moment, as a version tells the service."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from recsys import schema
from recsys.data.sales import recent_sales
from recsys.data.shown import ShownError
from recsys.data.versions import current_version
from recsys.settings import Settings
from tests.data.shop import PRODUCTS, refresh, row, write_shop

END = datetime(2025, 2, 1, tzinfo=UTC)
ITEMS = ["a", "b", "c"]


def rated(*sales: tuple[str, str, float], weight: float = 1.0) -> pd.DataFrame:
    """Rows of a version: who rated what, so many days before the end."""
    users, products, days = zip(*sales, strict=True) if sales else ((), (), ())
    return pd.DataFrame(
        {
            schema.USER: pd.Series(users, dtype="str"),
            schema.PRODUCT: pd.Series(products, dtype="str"),
            schema.RATING: np.full(len(sales), 5, dtype=np.float32),
            schema.TIMESTAMP: times(days),
            schema.CONFIDENCE: np.full(len(sales), 5, dtype=np.float32),
            schema.WEIGHT: np.full(len(sales), weight, dtype=np.float32),
        }
    )


def times(days: tuple[float, ...]) -> pd.Series:
    found = [END - timedelta(days=each) for each in days]
    return pd.Series(found, dtype="datetime64[us, UTC]")


def signals(*events: tuple[str, str, str, float]) -> pd.DataFrame:
    users, products, kinds, days = zip(*events, strict=True)
    columns = {schema.USER: users, schema.PRODUCT: products, schema.KIND: kinds}
    return pd.DataFrame({**columns, schema.TIMESTAMP: times(days)})


def test_a_sale_is_halved_every_thirty_days_and_forgotten_after_sixty():
    rows = rated(("u", "a", 0), ("v", "a", 30), ("v", "b", 15), ("w", "c", 60.5), ("v", "d", 1))
    assert recent_sales(ITEMS, rows, None) == pytest.approx([1.5, 0.707, 0], abs=1e-3)


def test_purchases_count_once_beside_the_review_and_looks_do_not():
    rows = rated(("u", "a", 0), ("v", "c", 0))
    events = signals(
        ("u", "a", "purchase", 0), ("w", "b", "purchase", 0), ("w", "c", "view", 0),
        ("w", "c", "cart", 0), ("w", "a", "click", 0),
    )  # fmt: skip
    assert recent_sales(ITEMS, rows, events).tolist() == [1, 1, 1]
    assert recent_sales(ITEMS, rated(), events).tolist() == [1, 1, 0]


def test_copies_of_a_review_count_as_what_they_weigh():
    assert recent_sales(ITEMS, rated(("u", "a", 0), weight=0.25), None).tolist() == [0.25, 0, 0]


def test_a_burst_of_new_accounts_counts_as_the_third_strongest_product():
    burst = [(f"new{number}", "c", 0.5) for number in range(500)]
    usual = [(f"u{number}", "aab"[number % 3], 0.5 + number % 5) for number in range(12)]
    assert recent_sales(ITEMS, rated(*usual, *burst), None)[2] <= 4


SALES = st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcd"), st.integers(0, 90))


@given(st.lists(SALES, unique_by=lambda sale: sale[:2], min_size=1), st.randoms())
@profile(max_examples=15, deadline=None)
def test_neither_the_order_of_the_rows_nor_the_form_of_the_table_matters(sales, random):
    rows = rated(*sales)
    expected = recent_sales(ITEMS, rows, None)
    random.shuffle(sales)
    assert recent_sales(ITEMS, rated(*sales), None).tolist() == expected.tolist()
    table = pa.Table.from_pandas(rows, preserve_index=False)
    assert recent_sales(ITEMS, table, None).tolist() == expected.tolist()


def test_a_version_has_them_in_the_order_of_its_products(settings: Settings):
    sold = [row(f"u{number}", number % 3, 5, f"2025-01-0{number % 3 + 1}") for number in range(6)]
    write_shop(settings, sold, PRODUCTS)
    refresh(settings)
    version = current_version(settings)
    sales = version.recent_sales()
    assert sales is not None
    by_id = dict(zip(version.shown_products()["product_id"], sales.tolist(), strict=True))
    assert by_id["2"] == 2
    assert by_id["1"] == pytest.approx(2 * 2 ** (-1 / 30), abs=1e-3)
    assert by_id["5"] == 0
    (version.path / schema.SALES_FILE).write_bytes(b"other")
    with pytest.raises(ShownError, match="not what the manifest describes"):
        version.recent_sales()
