"""How good the product vectors are on a real shop (Hasaki), beside TF-IDF on the same texts.

    python -m benchmarks.content.quality

**Next purchase from another family, hit rate@10.** Event-aware: rows of one user, time and text
are one event. For every user with two or more positive events (4 stars or more) the last event is
the target, unless one of its products is of a family that the user had before. The query is the
mean of the vectors of the earlier events, the newest weighing 1 and each earlier one .7 of the
next; an event is the mean of its products. The list holds ten families (each ranked by its best
listing) that the user did not have. A hit: the target's family is in the list. 95 % intervals by
bootstrap of users.

**Queries.** Names of 21 kinds of products, alone and with a wish ("cho da dầu mụn"), with and
without accents. Precision@10: the share of hits whose name has the kind. The model without the
folded copy shows what the copy is for.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from recsys.columns import fold_series, normalise_series
from recsys.config import load_config
from recsys.content import ContentConfig
from recsys.content.product_texts import (
    BOILERPLATE_SHARE,
    MAX_CHARACTERS,
    NAME_REPEATS,
    find_boilerplate,
    product_texts,
    split_sentences,
)
from recsys.content.static_fit import fit_static
from recsys.data.families import assign_families, shared_events
from recsys.settings import REPOSITORY, load_settings
from recsys.text import fold, normalise

HASAKI = REPOSITORY.parent / "shared" / "data" / "hasaki"
DECAY = 0.7
LIST = 10
KINDS = [
    *("chống nắng", "tẩy trang", "rửa mặt", "mặt nạ", "xịt khoáng", "kem dưỡng", "nước hoa hồng"),
    *("serum", "toner", "tẩy da chết", "miếng dán mụn", "bông tẩy trang", "tẩy tế bào chết"),
    *("mặt nạ ngủ", "dầu tẩy trang", "kem chống nắng", "sữa rửa mặt", "nước tẩy trang"),
    *("sữa dưỡng", "tinh chất", "gel rửa mặt"),
]
WISHES = ["", " cho da dầu mụn", " dưỡng ẩm", " cho da nhạy cảm"]


def read_shop(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    products = pd.read_csv(folder / "products.csv", dtype=str).rename(
        columns={
            "ma_san_pham": "product_id",
            "ten_san_pham": "product_name",
            "mo_ta": "description",
        }
    )
    rows = pd.read_csv(folder / "reviews.csv", dtype=str).rename(
        columns={"ma_san_pham": "product_id", "ma_khach_hang": "user_id"}
    )
    rows["timestamp"] = pd.to_datetime(
        rows["ngay_binh_luan"] + " " + rows["gio_binh_luan"],
        format="%d/%m/%Y %H:%M",
        errors="coerce",
        utc=True,
    )
    rows["rating"] = pd.to_numeric(rows["so_sao"], errors="coerce")
    rows["comment"] = normalise_series(rows["noi_dung_binh_luan"])
    valid = rows["timestamp"].notna() & rows["rating"].between(1, 5)
    rows = rows[valid & rows["product_id"].isin(products["product_id"])].copy()
    rows["event_id"] = rows.groupby(["user_id", "timestamp", "comment"]).ngroup()
    return products, rows


class Purchases:
    """Who bought what next: the cases of the hit rate."""

    def __init__(self, products: pd.DataFrame, rows: pd.DataFrame) -> None:
        copies = rows.sort_values("event_id")
        shown_at = pd.Index(products["product_id"]).get_indexer(copies["product_id"])
        shared = shared_events(copies["event_id"].to_numpy(), shown_at, len(products))
        self.family = pd.factorize(assign_families(products, shared))[0]
        rows = rows[rows["rating"] >= 4].sort_values(["user_id", "timestamp", "event_id"])
        rows["item"] = pd.Index(products["product_id"]).get_indexer(rows["product_id"])
        self.cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for _, mine in rows.groupby("user_id", sort=True):
            order = pd.factorize(mine["event_id"])[0]
            items, last = mine["item"].to_numpy(), order.max()
            before = order < last
            had = self.family[items[before]]
            wanted = self.family[items[~before]]
            if last and not np.isin(wanted, had).any():
                sizes = np.bincount(order)
                weights = (DECAY ** (last - 1 - order) / sizes[order])[before]
                self.cases.append((items[before], weights, np.unique(wanted)))

    def hits(self, vectors: np.ndarray) -> np.ndarray:
        """For each case whether the target's family is in the list."""
        families = self.family.max() + 1
        found = np.zeros(len(self.cases), dtype=bool)
        for case, (items, weights, wanted) in enumerate(self.cases):
            scores = vectors @ (weights @ vectors[items])
            best = np.full(families, -np.inf, dtype=np.float32)
            np.maximum.at(best, self.family, scores)
            best[self.family[items]] = -np.inf
            found[case] = np.isin(np.argpartition(-best, LIST)[:LIST], wanted).any()
        return found


def interval(hits: np.ndarray) -> tuple[float, float]:
    random = np.random.default_rng(0)
    means = hits[random.integers(0, len(hits), (2_000, len(hits)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def precision(names: pd.Series, vectors: np.ndarray, encode: object, spell: object) -> float:
    folded = fold_series(names)
    shares = []
    for kind in KINDS:
        right = folded.str.contains(fold(kind), regex=False).to_numpy()
        for wish in WISHES:
            scores = vectors @ encode([spell(kind + wish)])[0]
            shares.append(right[np.argsort(-scores, kind="stable")[:10]].mean())
    return float(np.mean(shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shop", type=Path, default=HASAKI)
    products, rows = read_shop(parser.parse_args().shop)
    config = load_config(load_settings(), ContentConfig)
    purchases = Purchases(products, rows)
    boilerplate = find_boilerplate(split_sentences(products["description"]), BOILERPLATE_SHARE)

    def texts(repeats: int) -> list[str]:
        return product_texts(
            products,
            config.text_fields,
            boilerplate,
            max_characters=MAX_CHARACTERS,
            name_repeats=repeats,
        ).tolist()

    told = texts(NAME_REPEATS)
    model = fit_static(told)
    static = model.encode(told)
    plain = fit_static(told, with_folded=False)
    unfolded = plain.encode(told)
    tfidf = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
    words = tfidf.fit_transform(texts(1)).astype(np.float32).toarray()

    print(f"{len(products):,} products, {purchases.family.max() + 1} families, "
          f"{len(purchases.cases):,} next purchases from another family")  # fmt: skip
    print(f"{'':34} {'hit rate@10':>11} {'95 % interval':>16} {'ratio':>6}")
    reference = purchases.hits(words).mean()
    for name, vectors in (
        ("TF-IDF of words (reference)", words),
        ("catalog-static", static),
        ("  without the folded copy", unfolded),
    ):
        hits = purchases.hits(vectors)
        low, high = interval(hits)
        print(f"{name:34} {hits.mean():11.4f} {low:8.4f}-{high:.4f} {hits.mean() / reference:6.2f}")

    print(f"\n{len(KINDS) * len(WISHES)} queries, precision@10 {'accented':>10} {'unaccented':>11}")
    for name, vectors, encode in (
        (
            "TF-IDF of words (reference)",
            words,
            lambda texts: tfidf.transform(texts).toarray(),
        ),
        ("catalog-static", static, model.encode),
        ("  without the folded copy", unfolded, plain.encode),
    ):
        accented, folded = (
            precision(products["product_name"], vectors, encode, spell)
            for spell in (normalise, fold)
        )
        print(f"{name:34} {accented:5.3f} {folded:11.3f}")


if __name__ == "__main__":
    main()
