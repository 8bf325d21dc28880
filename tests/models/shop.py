"""A small shop with tastes that a recommender can learn, published as a data version."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from recsys import schema
from recsys.models.base import Histories
from recsys.models.histories import histories_from_codes
from recsys.publishing import point_link, write_json
from recsys.settings import Settings
from recsys.storage.bundle import LAYOUT

USERS, ITEMS, GROUPS, EVENTS = 240, 60, 6, 5
START = 1_700_000_000
DAY = 86_400


def taste_interactions(seed: int = 0, users: int = USERS, items: int = ITEMS) -> pd.DataFrame:
    """Users buy distinct products, nine in ten from the one group that they like."""
    generator = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        liked = np.arange(items) % GROUPS == user % GROUPS
        odds = np.where(liked, 0.9 / max(liked.sum(), 1), 0.1 / max((~liked).sum(), 1))
        bought = generator.choice(
            items, size=min(EVENTS, items), replace=False, p=odds / odds.sum()
        )
        days = np.sort(generator.choice(300, size=len(bought), replace=False))
        rows += [(user, item, START + day * DAY) for item, day in zip(bought, days, strict=True)]
    return pd.DataFrame(rows, columns=["user", "item", "time"])


def taste_histories(seed: int = 0) -> Histories:
    table = taste_interactions(seed)
    return histories_from_codes(
        table["user"].to_numpy(), table["item"].to_numpy(), table["time"].to_numpy(), count=USERS
    )


def signal_rows(signals: pd.DataFrame) -> pd.DataFrame:
    """``signals.parquet`` of (user, item, time, kind, split)."""
    frame = pd.DataFrame(
        {
            schema.EVENT: [f"e{number}" for number in range(len(signals))],
            schema.USER: "u" + signals["user"].astype(str),
            schema.PRODUCT: "p" + signals["item"].astype(str),
            schema.KIND: signals["kind"].astype("str"),
            schema.TIMESTAMP: pd.to_datetime(signals["time"], unit="s", utc=True).dt.as_unit("us"),
            schema.QUANTITY: np.float32(1),
            schema.VALUE: np.nan,
            schema.SPLIT: signals["split"].astype("str"),
        }
    )
    return frame.sort_values([schema.USER, schema.TIMESTAMP, schema.EVENT], ignore_index=True)


def publish_shop(
    settings: Settings,
    table: pd.DataFrame,
    *,
    version_id: str = "v1",
    items: int = ITEMS,
    families: Sequence[str | None] | None = None,
    signals: pd.DataFrame | None = None,
) -> str:
    """Write `table` (user, item, time, optional rating and split) as the published version.

    `signals` (user, item, time, kind, split) are written beside it.

    Every product is a family of its own unless `families` says otherwise.
    """
    folder = settings.versions / version_id
    folder.mkdir(parents=True)
    back = table.groupby("user").cumcount(ascending=False)
    split = np.select([back == 0, back == 1], [schema.TEST, schema.VALIDATION], schema.TRAIN)
    split = table["split"].to_numpy() if "split" in table else split
    rating = table["rating"] if "rating" in table else 4.0 + (np.arange(len(table)) % 2)
    frame = pd.DataFrame(
        {
            schema.USER: "u" + table["user"].astype(str),
            schema.PRODUCT: "p" + table["item"].astype(str),
            schema.RATING: np.asarray(rating, dtype=np.float32),
            schema.TIMESTAMP: pd.to_datetime(table["time"], unit="s", utc=True),
            schema.CONFIDENCE: np.asarray(rating, dtype=np.float32) + np.float32(0.5),
            schema.WEIGHT: np.float32(1),
            schema.SPLIT: split,
        }
    )
    frame.to_parquet(folder / schema.INTERACTIONS_FILE)
    if signals is not None:
        signal_rows(signals).to_parquet(folder / schema.SIGNALS_FILE)
    item_ids = [f"p{item}" for item in range(items)]
    user_ids = sorted(frame[schema.USER].unique())
    (folder / schema.MAPPINGS_FILE).write_text(
        json.dumps({"idx_to_user": user_ids, "idx_to_item": item_ids})
    )
    products = pd.DataFrame(
        {
            schema.PRODUCT: item_ids,
            schema.PRODUCT_NAME: [f"Kem dưỡng {item}" for item in range(items)],
            schema.BRAND: "B",
            schema.CATEGORY: [f"c{item % GROUPS}" for item in range(items)],
            schema.PRICE: 100_000.0,
            schema.DESCRIPTION: "",
            schema.FAMILY: item_ids if families is None else list(families),
            "available": True,
        }
    )
    products.to_parquet(folder / schema.PRODUCTS_FILE)
    write_json(
        folder / schema.MANIFEST_FILE,
        {
            "version_id": version_id,
            "as_of": "2024-12-01T00:00:00+00:00",
            "files": {},
            "source": "shop",
            "layout": LAYOUT,
        },
    )
    point_link(settings.processed, folder)
    return version_id
