"""The first scoring of a shop's comments: how long the whole step takes, and its parts against the
plain way to do each, on the same texts in the same process.

The references: Arrow folds each whole text (without the hashing that follows); SciPy compares the
sets of shingles of every pair that agrees in a band; scikit-learn's vectorizer and a linear model.
Processor time says more than the clock on a machine that others use.

    python -m benchmarks.comments.first_scoring [--scale 1]
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
from scipy import sparse

from benchmarks.comments.speed import reference as sklearn_rate
from benchmarks.data.refresh import measure, write_shop
from recsys.arrays import BoolArray, Int64Array
from recsys.columns import fold_texts
from recsys.comments import CommentConfig, score_view
from recsys.comments.features import describe, plain_words
from recsys.comments.near_copies import SIMILARITY, are_similar
from recsys.comments.pieces import windows
from recsys.comments.scorers import newest_scorer
from recsys.comments.scoring import distinct_texts, group_texts
from recsys.data.keys import one_chunk
from recsys.data.sample import REVIEWS_NAME
from recsys.settings import Settings

AIM = 30_000  # comments a second by the clock, on an idle machine
AS_OF = pd.Timestamp("2030-01-01", tz="UTC")
_PAIRS = 50_000
_SAMPLE = 20_000  # texts that scikit-learn reads

ResultT = TypeVar("ResultT")


def timed(function: Callable[[], ResultT]) -> tuple[ResultT, float, float]:
    """What it gives, seconds by the clock, seconds of processor time."""
    started, used = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - started, time.process_time() - used


def read_view(home: Path) -> pd.DataFrame:
    table = pacsv.read_csv(Settings(home).raw / "viecomrec" / REVIEWS_NAME)
    view = table.rename_columns({"cmt_date": "timestamp"}).to_pandas()
    view["timestamp"] = view["timestamp"].dt.tz_localize("UTC")
    kinds = {"user_id": "str", "product_id": "str", "rating": "float32", "comment": "str"}
    return view.assign(comment=view["comment"].fillna("")).astype(kinds)


def every_pair(plain: pa.LargeStringArray, pairs: Int64Array) -> BoolArray:
    """`are_similar` with nothing but SciPy."""
    owner, shingles = windows(plain, (5,))
    columns = (shingles * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(34)).astype(np.int32)
    ends = np.searchsorted(owner, np.arange(len(plain) + 1))
    ones = np.ones(len(columns), dtype=np.int32)
    sets = sparse.csr_matrix((ones, columns, ends), shape=(len(plain), 1 << 30))
    sets.sum_duplicates()
    sets.data[:] = 1
    found = []
    for first in range(0, len(pairs), _PAIRS):
        left, right = (sets[texts] for texts in pairs[first : first + _PAIRS].T)
        shared = np.asarray(left.multiply(right).sum(axis=1)).ravel()
        both = np.diff(left.indptr) + np.diff(right.indptr)
        found.append(shared >= SIMILARITY * (both - shared))
    return np.concatenate(found)


def run(home: Path) -> dict[str, Any]:
    """The whole step, with an empty cache and with a full one."""
    view, settings, config = read_view(home), Settings(home), CommentConfig()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures: dict[str, Any] = {}
    for name in ("first", "again"):
        scores, seconds, cpu = timed(
            lambda: score_view(settings, config, view, as_of=AS_OF, may_train=True)
        )
        figures[name] = {"seconds": seconds, "cpu": cpu, **scores.summary}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**figures, "added_mb": (peak - before) / 1024, "peak_mb": peak / 1024}


def compare(home: Path) -> dict[str, Any]:
    """Processor time of each part and of its reference."""
    texts, codes = distinct_texts(read_view(home))
    features, _, describing = timed(lambda: describe(texts))
    _, _, folding = timed(lambda: fold_texts(one_chunk(texts)))
    asked: list[Int64Array] = []

    def ask(pairs: Int64Array) -> BoolArray:
        asked.append(pairs)
        return np.zeros(len(pairs), dtype=np.bool_)

    group_texts(codes, features, CommentConfig(), ask)
    plain, pairs = plain_words(texts), asked[0]
    found, _, sifting = timed(lambda: are_similar(plain, pairs))
    expected, _, comparing = timed(lambda: every_pair(plain, pairs))
    assert np.array_equal(found, expected)
    scorer = newest_scorer(Settings(home), AS_OF)
    assert scorer is not None
    _, _, scoring = timed(lambda: scorer.score(texts, features.key))
    sample = texts.iloc[:_SAMPLE]
    _, _, vectorizing = timed(lambda: sklearn_rate(sample))
    return {
        f"features of {len(texts):,} texts": (describing, "Arrow folds them whole", folding),
        f"{len(pairs):,} pairs compared": (sifting, "SciPy compares every pair", comparing),
        "sentiment": (scoring, "scikit-learn", vectorizing * len(texts) / len(sample)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shop = measure(write_shop, home, options.scale)["result"]
        figures = measure(run, home)["result"]
        first, again = figures["first"], figures["again"]
        texts = first["distinct_texts"]
        print(f"input: {shop.reviews:,} reviews of the sample shop, {texts:,} distinct comments")
        print(
            f"first: {first['seconds']:.1f} s (CPU {first['cpu']:.1f} s), "
            f"{texts / first['seconds']:,.0f} comments a second, aim {AIM:,} "
            f"({texts / first['cpu']:,.0f} a second of CPU)"
        )
        print(
            f"again: {again['seconds']:.1f} s (CPU {again['cpu']:.1f} s), "
            f"{again['scored_now']} comments scored"
        )
        memory = f"{figures['added_mb']:,.0f} MB above the data, {figures['peak_mb']:,.0f} in all"
        print(f"memory: {memory}", flush=True)
        for part, (ours, name, theirs) in measure(compare, home)["result"].items():
            ratio = f"ratio {theirs / ours:.1f}"
            print(f"{part}: CPU {ours:.2f} s; reference, {name}: {theirs:.2f} s, {ratio}")


if __name__ == "__main__":
    main()
