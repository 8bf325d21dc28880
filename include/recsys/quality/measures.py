"""The figures of the report, from a published version and the one before it."""

from typing import Any

import numpy as np
import pandas as pd

from recsys import schema
from recsys.data.config import DataConfig
from recsys.data.versions import PublishedVersion
from recsys.ids import STANDS_FOR_MANY

LENGTH_EDGES = (0, 1, 10, 20, 40, 80, 160, 320, 640, 1280, float("inf"))  # characters
QUALITY_EDGES = tuple(round(0.1 * step, 1) for step in range(11))
ROWS = ("read", "accepted", "superseded", "quarantined", "later")
_COLUMNS = [
    *(schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP),
    *(schema.COMMENT, schema.COMMENT_QUALITY, schema.WEIGHT),
]

# What the letters of Vietnamese become: ạ..ỹ "áº¡", ư "Æ°", đ "Ä‘", à "Ã ", and quotes "â€œ".
_MOJIBAKE = "á[º»][\u0080-\u00bf\u0152-\u2122]|[ÆÄ][\u0080-\u00bf\u0152-\u2122]|Ã[\u0080-\u00bf]|â€"


def measure(version: PublishedVersion, previous: PublishedVersion | None) -> dict[str, Any]:
    """Everything in the report but the limits; JSON-able.

    `previous` is None for the first version, or when the one before is no longer kept."""
    rows, products = version.interactions(_COLUMNS), version.products()
    before = None if previous is None else previous.interactions(_COLUMNS)
    manifest = version.manifest
    comments = manifest.get("comments", {})
    return {
        "version_id": version.version_id,
        "previous_version": manifest.get("previous_version"),
        "compared_with": None if previous is None else previous.version_id,
        "as_of": manifest["as_of"],
        "created_at": manifest["created_at"],
        "strategy": manifest.get("strategy"),
        "source": manifest["source"]["name"],
        "counts": {name: manifest["rows"][name] for name in ROWS} | _counts(rows),
        "counts_before": None if before is None else _counts(before),
        "rejected_by_rule": manifest["quarantined_by_reason"],
        "missing": {"reviews": _missing(rows), "products": _missing(products)},
        "sale": _sale(version, products),
        "duplicates": _duplicates(rows, manifest["rows"]["superseded"]),
        "distributions": _distributions(rows),
        "distributions_before": None if before is None else _distributions(before),
        "comments": comments,
        "mojibake": {
            "comments": _garbled(rows[schema.COMMENT]),
            "products": _garbled(products[schema.PRODUCT_NAME]),
        },
        "spam_share": _spam_share(comments),
        "comment_scorer": manifest["comment_scorer"],
    }


def limits(figures: dict[str, Any], config: DataConfig) -> list[dict[str, Any]]:
    """The rules that fail a run, and how near this version came to each."""
    counts, before = figures["counts"], figures["counts_before"]
    bad = counts["quarantined"] - figures["rejected_by_rule"].get(STANDS_FOR_MANY, 0)
    invalid = bad / max(counts["read"], 1)
    checks = [("rows refused", invalid, config.max_invalid_fraction)]
    if before is not None:
        shrunk = max(0.0, 1 - counts["accepted"] / max(before["accepted"], 1))
        checks.append(("rows lost since before", shrunk, config.max_shrink_fraction))
    return [
        {"rule": rule, "share": round(share, 4), "limit": limit, "kept": share <= limit}
        for rule, share, limit in checks
    ]


def _garbled(texts: pd.Series) -> int:
    """How many texts look like UTF-8 that somebody read as Windows-1252 and wrote again."""
    return int(texts.str.contains(_MOJIBAKE, regex=True).sum())


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {
        "accepted": len(rows),
        "users": int(rows[schema.USER].nunique()),
        "products": int(rows[schema.PRODUCT].nunique()),
    }


def _sale(version: PublishedVersion, products: pd.DataFrame) -> dict[str, Any]:
    """What is not for sale and why, by status, and what is to be sold after the version's view;
    nothing where the shop says nothing of it."""
    stats = version.stats()
    figures = {
        name: stats[f"products_{name}"]
        for name in ("not_for_sale", "by_status")
        if f"products_{name}" in stats
    }
    if schema.AVAILABLE_FROM in products:
        figures["later"] = int((products[schema.AVAILABLE_FROM] >= version.as_of).sum())
    return figures


def _missing(table: pd.DataFrame) -> dict[str, float]:
    """Share of rows without a value, for each column that has a meaning without one."""
    shares = {}
    for name, column in table.items():
        absent = column.isna()
        if not pd.api.types.is_numeric_dtype(column.dtype):
            absent = absent | (column.astype("str").str.strip() == "")
        shares[str(name)] = round(float(absent.mean()), 4) if len(table) else 0.0
    return shares


def _duplicates(rows: pd.DataFrame, superseded: int) -> dict[str, Any]:
    texts = rows.loc[rows[schema.COMMENT].str.strip() != "", schema.COMMENT]
    return {
        "superseded_rows": superseded,
        "rows_of_copied_events": int((rows[schema.WEIGHT] < 1).sum()),
        "rows_with_a_repeated_comment": int(texts.duplicated(keep=False).sum()),
    }


def _distributions(rows: pd.DataFrame) -> dict[str, Any]:
    stars = rows[schema.RATING].round().astype("int64").value_counts()
    months = rows[schema.TIMESTAMP].dt.strftime("%Y-%m").value_counts().sort_index()
    lengths = rows[schema.COMMENT].str.len()
    return {
        "rating": {str(star): int(stars.get(star, 0)) for star in range(1, 6)},
        "comment_length": _histogram(lengths, LENGTH_EDGES),
        "comment_quality": _histogram(rows[schema.COMMENT_QUALITY], QUALITY_EDGES),
        "rows_by_month": {str(month): int(count) for month, count in months.items()},
    }


def _histogram(values: pd.Series, edges: tuple[float, ...]) -> list[int]:
    """How many values lie in each ``[edge, next edge)``; the last interval has its end, too."""
    counts: list[int] = np.histogram(values.to_numpy(), bins=np.array(edges))[0].tolist()
    return counts


def _spam_share(comments: dict[str, Any]) -> float | None:
    """Share of the accepted rows that belong to campaigns; None if that was not recorded."""
    campaigns = comments.get("campaign_rows")
    return None if campaigns is None else round(campaigns / max(comments["rows"], 1), 4)
