"""How well the learned scorer reads reviews that were written after all it was trained on.

Hasaki's reviews are deduplicated (near copies count as one text, at the time of the first), cut
into blocks of equal size by time, and each block is scored by a scorer trained on all earlier
blocks. The scores of all blocks are pooled: ROC-AUC of happy (>= 4 stars) against unhappy (<= 2)
texts, as written and with the test texts folded (no accents).

Reference, measured in the same run: the same blocks with TF-IDF over words and logistic
regression, a common baseline.

    python -m benchmarks.comments.sentiment [--reviews FILE]
"""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from recsys.columns import fold_series
from recsys.comments.features import describe
from recsys.comments.scoring import CommentConfig, group_texts, similar_among
from recsys.comments.training import (
    Units,
    auc_with_interval,
    calibration_error,
    gather_units,
    train,
)
from recsys.schema import NEGATIVE_RATING, POSITIVE_RATING
from recsys.settings import REPOSITORY

REVIEWS = REPOSITORY.parent / "shared" / "data" / "hasaki" / "reviews.csv"
AIM, AIM_WITHOUT_ACCENTS = 0.90, 0.82
CONFIG = CommentConfig()
NO_KEY = np.uint64(0)  # a text that no model has seen


def read_units(path: Path) -> tuple[Units, np.ndarray]:
    """Training units of the whole shop in order of time, and their first times."""
    raw = pd.read_csv(path, dtype="str", keep_default_na=False)
    local = raw["ngay_binh_luan"] + " " + raw["gio_binh_luan"]
    rows = pd.DataFrame(
        {
            "comment": raw["noi_dung_binh_luan"],
            "user": raw["ma_khach_hang"],
            "rating": raw["so_sao"].astype("float64"),
            "time": pd.to_datetime(local, format="%d/%m/%Y %H:%M", errors="coerce"),
        }
    )
    rows = rows[rows["time"].notna() & (rows["rating"] >= 1)].reset_index(drop=True)
    codes, texts = pd.factorize(rows["comment"])
    texts = pd.Series(texts, dtype="str")
    features = describe(texts)
    group = group_texts(codes, features, CONFIG, similar_among(texts))
    group = np.where(features.key == 0, -1, group)
    units = gather_units(texts, features.key, group, rows.assign(text=codes))
    group_of_unit = group[texts.index.get_indexer(units.texts.index)]
    first = rows.assign(group=group[codes]).groupby("group")["time"].min()
    times = first.loc[group_of_unit].to_numpy()
    order = np.argsort(times, kind="stable")
    print(f"{len(rows):,} reviews, {len(texts):,} texts, {len(order):,} after near copies are one")
    return units.take(np.sort(order)), times


def forward(units: Units, times: np.ndarray, blocks: int) -> None:
    order = np.argsort(times, kind="stable")
    happy = units.rating >= POSITIVE_RATING
    clear = happy | (units.rating <= NEGATIVE_RATING)
    scored = {
        name: np.full(len(order), np.nan) for name in ("ours", "ours folded", "base", "base folded")
    }
    for block in np.array_split(order, blocks)[1:]:
        before = np.flatnonzero(times < times[block[0]])
        texts = units.texts.iloc[block]
        scorer = train(units.take(before), datetime(2025, 1, 1, tzinfo=UTC))
        unseen = np.full(len(block), NO_KEY)
        scored["ours"][block] = scorer.score(texts, unseen)
        scored["ours folded"][block] = scorer.score(fold_series(texts), unseen)
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        model = LogisticRegression(C=5, class_weight="balanced", max_iter=300)
        model.fit(words.fit_transform(units.texts.iloc[before]), happy[before])
        scored["base"][block] = model.decision_function(words.transform(texts))
        scored["base folded"][block] = model.decision_function(words.transform(fold_series(texts)))
    tested = clear & ~np.isnan(scored["ours"])
    measured = {name: auc_with_interval(happy[tested], s[tested]) for name, s in scored.items()}
    any_block = ~np.isnan(scored["ours"])
    error = calibration_error(
        happy[any_block], scored["ours"][any_block], np.ones(int(any_block.sum()))
    )
    ours, folded = measured["ours"], measured["ours folded"]
    print(f"\n{blocks} blocks: {ours['positive']:,} happy, {ours['negative']} unhappy texts scored")
    print(f"  as written      {ours['auc']} +- {ours['interval']}   (aim {AIM})")
    print(
        f"  without accents {folded['auc']} +- {folded['interval']}   (aim {AIM_WITHOUT_ACCENTS})"
    )
    print(f"  calibration error {error:.3f}")
    print(
        f"  reference, words only: {measured['base']['auc']} as written, "
        f"{measured['base folded']['auc']} without accents; unhappy share left wrong: ratio "
        f"{(1 - ours['auc']) / (1 - measured['base']['auc']):.2f} and "
        f"{(1 - folded['auc']) / (1 - measured['base folded']['auc']):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reviews", type=Path, default=REVIEWS)
    parser.add_argument("--blocks", type=int, nargs="+", default=[6, 10])
    options = parser.parse_args()
    started = time.monotonic()
    shop, first_seen = read_units(options.reviews)
    for count in options.blocks:
        forward(shop, first_seen, count)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
