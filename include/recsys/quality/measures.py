"""The figures of the report, from a published version and the one before it."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from recsys import schema
from recsys.data.cleaning import REASON
from recsys.data.config import DataConfig
from recsys.data.prices import HIGH_PRICE, LOW_PRICE
from recsys.data.reading import FILE, ROW
from recsys.data.versions import PublishedVersion
from recsys.ids import STANDS_FOR_MANY
from recsys.settings import Settings

LENGTH_EDGES = (0, 1, 10, 20, 40, 80, 160, 320, 640, 1280, float("inf"))  # characters
QUALITY_EDGES = tuple(round(0.1 * step, 1) for step in range(11))
PRICE_EDGES = (0, 50e3, 100e3, 200e3, 300e3, 500e3, 1e6, 2e6, 5e6, float("inf"))  # dong
ROWS = ("read", "accepted", "superseded", "quarantined", "later")
LISTED: Final = 10
"""Products and rows that are named at most, of each kind."""
JUMP: Final = 5.0
"""How many times as high or as low a price is that has jumped: a decimal point that moved."""

_PAUSE_DAYS: Final = 90  # before the newest review, in which pauses are looked for
_COLUMNS = [
    *(schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP),
    *(schema.COMMENT, schema.COMMENT_QUALITY, schema.WEIGHT),
]

# What the letters of Vietnamese become: ạ..ỹ "áº¡", ư "Æ°", đ "Ä‘", à "Ã ", and quotes "â€œ".
_MOJIBAKE = "á[º»][\u0080-\u00bf\u0152-\u2122]|[ÆÄ][\u0080-\u00bf\u0152-\u2122]|Ã[\u0080-\u00bf]|â€"


def measure(version: PublishedVersion, previous: PublishedVersion | None) -> dict[str, Any]:
    """Everything in the report but `limits` and `refused`; JSON-able.

    `previous` is None for the first version, or when the one before is no longer kept."""
    rows, products = version.interactions(_COLUMNS), version.products()
    before = None if previous is None else previous.interactions(_COLUMNS)
    products_before = None if previous is None else previous.products()
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
        "dates": _dates(version, rows),
        "prices": _prices(products, products_before),
        "missing": {"reviews": _missing(rows), "products": _missing(products)},
        "missing_before": None
        if before is None or products_before is None
        else {"reviews": _missing(before), "products": _missing(products_before)},
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


def refused(settings: Settings, version_id: str) -> list[dict[str, Any]]:
    """The rows in the quarantine of a version: of each reason how many, and where the first of them
    stand (file, row); never what stands there, as that may name a customer."""
    path = settings.quarantine / f"{version_id}.csv"
    try:
        table = pd.read_csv(path, usecols=[FILE, ROW, REASON], dtype=str, encoding="utf-8-sig")
    except FileNotFoundError:  # there were none, or they are past their days
        return []
    found = []
    for reason, part in table.groupby(REASON, sort=False):
        first = part[[FILE, ROW]].head(LISTED).to_numpy()
        places = [{"file": _below(settings.home, file), "row": int(row)} for file, row in first]
        found.append({"reason": reason, "rows": len(part), "first": places})
    return sorted(found, key=lambda one: -one["rows"])


def _below(home: Path, file: str) -> str:
    path = Path(file)
    return str(path.relative_to(home)) if path.is_relative_to(home) else path.name


def _garbled(texts: pd.Series) -> int:
    """How many texts look like UTF-8 that somebody read as Windows-1252 and wrote again."""
    return int(texts.str.contains(_MOJIBAKE, regex=True).sum())


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {
        "accepted": len(rows),
        "users": int(rows[schema.USER].nunique()),
        "products": int(rows[schema.PRODUCT].nunique()),
    }


def _dates(version: PublishedVersion, rows: pd.DataFrame) -> dict[str, Any]:
    """The newest review and what else customers did (ISO moments), its age where the view of the
    version ends, and the longest pause in the 90 days before it; both in days, None without two
    reviews there."""
    signals = version.signals([schema.KIND, schema.TIMESTAMP])
    newest_by_kind = signals.groupby(schema.KIND)[schema.TIMESTAMP].max()
    by_kind = {str(kind): moment.isoformat() for kind, moment in newest_by_kind.items()}
    if rows.empty:
        return {"newest": None, "age_days": None, "longest_pause_days": None, "by_kind": by_kind}
    times = rows[schema.TIMESTAMP].sort_values()
    newest = times.iloc[-1]
    pauses = times[times >= newest - pd.Timedelta(days=_PAUSE_DAYS)].diff().dropna()
    return {
        "oldest": times.iloc[0].isoformat(),
        "newest": newest.isoformat(),
        "age_days": _days(version.as_of - newest),
        "longest_pause_days": _days(pauses.max()) if len(pauses) else None,
        "by_kind": by_kind,
    }


def _days(time: pd.Timedelta) -> float:
    return round(time / pd.Timedelta(days=1), 2)


def _prices(products: pd.DataFrame, before: pd.DataFrame | None) -> dict[str, Any] | None:
    """What products cost, which prices are odd or have jumped; None where none has a price."""
    prices = products[schema.PRICE]
    known = prices.dropna()
    if known.empty:
        return None
    odd = products[(prices < LOW_PRICE) | (prices > HIGH_PRICE)]
    low, middle, high = (float(known.quantile(share)) for share in (0, 0.5, 1))
    figures = {
        "products": len(products),
        "with_price": len(known),
        **{"lowest": low, "median": middle, "highest": high},
        "histogram": _histogram(known, PRICE_EDGES),
        "odd": len(odd),
        "first_odd": [
            {
                "product": row[schema.PRODUCT],
                "name": row[schema.PRODUCT_NAME],
                "price": row[schema.PRICE],
            }
            for row in odd.head(LISTED).to_dict("records")
        ],
        **{"changed": None, "jumped": None, "first_jumps": []},
    }
    if before is None:
        return figures
    columns = [schema.PRODUCT, schema.PRODUCT_NAME, schema.PRICE]
    was = before[[schema.PRODUCT, schema.PRICE]]
    both = products[columns].merge(was, on=schema.PRODUCT, suffixes=("", "_before"))
    now, then = both[schema.PRICE], both[f"{schema.PRICE}_before"]
    changed = both[(now != then) & (now > 0) & (then > 0)]
    factor = changed[schema.PRICE] / changed[f"{schema.PRICE}_before"]
    jumped = changed[(factor >= JUMP) | (factor <= 1 / JUMP)]
    return figures | {
        "changed": len(changed),
        "jumped": len(jumped),
        "first_jumps": [
            {"product": product, "name": name, "price": price, "before": was}
            for product, name, price, was in jumped.head(LISTED).itertuples(index=False)
        ],
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
