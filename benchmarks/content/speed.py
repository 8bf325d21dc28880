"""Time and memory of the embedding job: from nothing, with nothing new, with 1 % changed.

    python -m benchmarks.content.speed --products 2244
    python -m benchmarks.content.speed --products 100000

Products are made of the names and sentences of the Hasaki catalogue. Each run is a process of its
own, so that imports and peak memory count. The reference is the bare tokenization of the same
texts by the `tokenizers` library, in the same process.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from recsys.settings import REPOSITORY

HASAKI = REPOSITORY.parent / "shared" / "data" / "hasaki" / "products.csv"


def make_products(source: Path, count: int, seed: int = 0) -> pd.DataFrame:
    """`count` products: halves of two real names, six real sentences, the shop's notice."""
    real = pd.read_csv(source, dtype=str)
    random = np.random.default_rng(seed)
    words = real["ten_san_pham"].str.split()
    head, tail = words.str[:4].str.join(" "), words.str[4:].str.join(" ")
    own, notice = "Làm sao để phân biệt", real["mo_ta"].str.split("Làm sao").str[1].fillna("")
    sentences = real["mo_ta"].str.split(own).str[0].str.split(r"[\n.]", regex=True).explode()
    sentences = sentences.str.strip()[lambda s: s.str.len() > 20].to_numpy(dtype=object)

    def pick(values: object) -> np.ndarray:
        array = np.asarray(values, dtype=object)
        return array[random.integers(0, len(array), count)]

    description = pick(sentences)
    for _ in range(5):
        description = description + ". " + pick(sentences)
    number = np.arange(count).astype(str).astype(object)
    return pd.DataFrame(
        {
            "product_id": number,
            "product_name": pick(head) + " " + pick(tail) + " số " + number,
            "brand": "",
            "category": "",
            "description": description + "\nLàm sao" + pick(notice),
        }
    )


def run_once(products: Path, home: Path) -> dict[str, float]:
    """One job run, in this process."""
    started, cpu = time.perf_counter(), time.process_time()
    from recsys.config import load_config
    from recsys.content import ContentConfig
    from recsys.content.job import embed_products
    from recsys.settings import Settings

    settings = Settings(home)
    config = load_config(settings, ContentConfig)
    summary = embed_products(settings, config, pd.read_parquet(products), "benchmark")
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    reference = tokenize_only(products, home)
    return {
        "encoded": summary["encoded"],
        "job": summary["seconds"],
        "wall": wall,
        "cpu": cpu,
        "peak_gb": peak,
        "reference": reference,
    }


def tokenize_only(products: Path, home: Path) -> float:
    from recsys.content.embeddings import MODEL_FOLDER
    from recsys.content.static_encoder import StaticEncoder, tokenize

    encoder = StaticEncoder.load(home / "data" / "embeddings" / "current" / MODEL_FOLDER)
    frame = pd.read_parquet(products)
    texts = (frame["product_name"] + "\n" + frame["description"].str[:1000]).tolist()
    started = time.perf_counter()
    tokenize(encoder.tokenizer, texts)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, default=2_244)
    parser.add_argument("--source", type=Path, default=HASAKI)
    parser.add_argument("--once", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(run_once(*given.once)))
        return
    folder = Path(tempfile.mkdtemp(prefix="embeddings-"))
    try:
        products = make_products(given.source, given.products)
        changed = products.copy()
        touched = slice(None, None, 100)
        changed.loc[touched, "product_name"] = changed.loc[touched, "product_name"] + " bản mới"
        products.to_parquet(folder / "all.parquet")
        changed.to_parquet(folder / "changed.parquet")
        length = int((products["product_name"] + products["description"]).str.len().mean())
        print(f"{given.products:,} products, {length} characters each on average")
        print(f"{'run':16} {'encoded':>8} {'job s':>7} {'wall s':>7} {'cpu s':>7} {'GB':>5} "
              f"{'tokenizing s':>13} {'ratio':>6}")  # fmt: skip
        for name, file in (("from nothing", "all"), ("nothing new", "all"), ("1 %", "changed")):
            command = [sys.executable, __file__, "--once", f"{folder / file}.parquet", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            r = json.loads(done.stdout.splitlines()[-1])
            print(f"{name:16} {r['encoded']:8,} {r['job']:7.2f} {r['wall']:7.2f} {r['cpu']:7.2f} "
                  f"{r['peak_gb']:5.2f} {r['reference']:13.2f} "
                  f"{r['job'] / r['reference']:6.2f}")  # fmt: skip
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
