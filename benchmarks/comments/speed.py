"""Comments scored a second, the cost of a whole scoring step, and its memory, at two sizes.

Texts are Hasaki's with their words shuffled, so that they are as long as real ones and all
different; every twentieth is a copy with one more word. Each size runs in a process of its own.

Reference, measured in the same run: scikit-learn's HashingVectorizer with the same kinds of
n-grams and a linear model.

    python -m benchmarks.comments.speed [--texts 100000] [--times 10]
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from recsys.comments import CommentConfig, score_view
from recsys.comments.features import describe
from recsys.comments.scorers import newest_scorer
from recsys.config import load_config
from recsys.settings import REPOSITORY, Settings

REVIEWS = REPOSITORY.parent / "shared" / "data" / "hasaki" / "reviews.csv"
AIM = 10_000  # comments a second on 2 cores
AS_OF = pd.Timestamp("2025-01-01", tz="UTC")
_SAMPLE = 20_000


def make_view(count: int) -> pd.DataFrame:
    """`count` reviews by four fifths as many users over five years."""
    raw = pd.read_csv(REVIEWS, dtype="str", keep_default_na=False)
    raw = raw[raw["noi_dung_binh_luan"] != ""].drop_duplicates("noi_dung_binh_luan")
    rng = np.random.default_rng(7)
    chosen = rng.integers(len(raw), size=count)
    words = [text.split() for text in raw["noi_dung_binh_luan"]]
    texts = [" ".join(rng.permutation(words[at])) for at in chosen]
    texts[::20] = [f"{text} nhé" for text in texts[1::20]][: len(texts[::20])]
    return pd.DataFrame(
        {
            "user_id": pd.Series(rng.integers(count * 4 // 5, size=count)).astype("str"),
            "product_id": "1",
            "rating": raw["so_sao"].astype("float32").to_numpy()[chosen],
            "timestamp": AS_OF - pd.to_timedelta(rng.integers(5 * 365 * 86_400, size=count), "s"),
            "comment": pd.Series(texts, dtype="str"),
        }
    )


def run(count: int, pipe: Any) -> None:
    view = make_view(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures: dict[str, Any] = {"rows": count}
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(Path(home))
        for name in ("first", "second"):
            started, used = time.perf_counter(), time.process_time()
            scores = score_view(
                settings, load_config(settings, CommentConfig), view, as_of=AS_OF, may_train=True
            )
            figures[f"{name}_seconds"] = time.perf_counter() - started
            figures[f"{name}_cpu"] = time.process_time() - used
            figures[f"{name}_scored"] = scores.summary["scored_now"]
        scorer = newest_scorer(settings, AS_OF)
        assert scorer is not None
        sample = view["comment"].iloc[: min(count, 5 * _SAMPLE)]
        keys = describe(sample).key
        started, used = time.perf_counter(), time.process_time()
        scorer.score(sample, keys)
        figures["rate"] = len(sample) / (time.perf_counter() - started)
        figures["rate_of_one_core"] = len(sample) / (time.process_time() - used)
    figures["reference_rate"] = reference(view["comment"].iloc[:_SAMPLE])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures["added_mb"] = (peak - before) / 1024
    figures["peak_mb"] = peak / 1024
    pipe.send(figures)


def reference(texts: pd.Series) -> float:
    """Texts a second with scikit-learn."""
    words = HashingVectorizer(ngram_range=(1, 2), n_features=1 << 18)
    characters = HashingVectorizer(analyzer="char", ngram_range=(3, 5), n_features=1 << 18)
    weights = np.random.default_rng(0).normal(size=((1 << 19), 4))
    started = time.perf_counter()
    counts = sparse.hstack([words.transform(texts), characters.transform(texts)], format="csr")
    _ = counts @ weights
    return len(texts) / (time.perf_counter() - started)


def measure(count: int) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(count, theirs))
    process.start()
    theirs.close()
    figures: dict[str, Any] = ours.recv()
    process.join()
    return figures


def describe_size(size: dict[str, Any]) -> None:
    ratio = size["rate"] / size["reference_rate"]
    print(f"{size['rows']:>9,} comments")
    print(
        f"  scorer      {size['rate']:,.0f}/s, aim {AIM:,} ({size['rate_of_one_core']:,.0f} a "
        f"second of CPU); reference {size['reference_rate']:,.0f}/s, ratio {ratio:.1f}"
    )
    for name in ("first", "second"):
        print(
            f"  {name:<6} run  {size[f'{name}_seconds']:.1f} s ({size[f'{name}_cpu']:.1f} s of "
            f"CPU), {size[f'{name}_scored']:,} texts scored"
        )
    print(f"  memory      {size['added_mb']:,.0f} MB above the data, {size['peak_mb']:,.0f} in all")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=10)
    options = parser.parse_args()
    sizes = [measure(options.texts), measure(options.texts * options.times)]
    for size in sizes:
        describe_size(size)
    small, large = sizes
    print(
        f"x{options.times}: time x{large['first_seconds'] / small['first_seconds']:.1f}, "
        f"memory x{large['added_mb'] / small['added_mb']:.1f}"
    )


if __name__ == "__main__":
    main()
