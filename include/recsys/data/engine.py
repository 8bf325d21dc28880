"""What a refresh needs computed, and how one process does it with pandas.

Another engine deals the same work out to several processes (`recsys.spark.refresh`); all engines
give the same version.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from pyarrow import feather

from recsys import schema
from recsys.arrays import UInt64Array
from recsys.data.arrivals import Staged, read_arrivals
from recsys.data.cleaning import CleanRows, Limits, concatenate, read_reviews
from recsys.data.config import DataConfig
from recsys.data.dataset import Dataset, count_part, join_parts, split_interactions
from recsys.data.keys import KEY, distinct_keys, latest_rows
from recsys.data.products import read_catalogue
from recsys.data.signals import Signals, read_signals
from recsys.data.sources import Source
from recsys.data.writing import VersionFiles
from recsys.publishing import sha256_of
from recsys.settings import CORES, Settings


@dataclass
class View:
    """Every raw row up to the end of a run's interval, checked, and the catalogue. `arrivals` are
    those of the `reviews` that came beside the source's files; `signals` are what is no review.
    `columns` are our names of those that all files of reviews, and of products, have. The
    `invalid_fraction` is that of the source's files: what arrived beside them cannot stop a run.
    `row_keys` are the sorted keys of the valid rows, each once. An engine may have nothing of the
    rows themselves in `reviews` but their number."""

    reviews: CleanRows
    products: CleanRows
    files: list[dict[str, Any]]
    arrivals: list[CleanRows]
    signals: Signals
    staged: Staged
    columns: dict[str, list[str]]
    invalid_fraction: float
    row_keys: UInt64Array

    @property
    def rejected(self) -> pd.DataFrame:
        """Bad rows of reviews, products and signals."""
        parts = (self.reviews, self.products, self.signals)
        return pd.concat([part.rejected for part in parts], ignore_index=True)


class RefreshEngine(Protocol):
    """The heavy steps of a refresh, by whatever does them."""

    def read(self, source: Source, limits: Limits) -> View:
        """Read and check the source's files and everything that arrived beside them. Raises
        `SourceError` if one of the source's files cannot be used."""

    def latest(self, view: View, rows: Path) -> int:
        """Write the latest row of each user and product to the feather file `rows`, in the order of
        `recsys.data.keys.latest_rows`; their number."""

    def build(
        self,
        rows: Path,
        quality: Path,
        catalogue: pd.DataFrame,
        files: VersionFiles,
        purchases: Path | None = None,
    ) -> Dataset:
        """What a version consists of; its rows and users are given to `files` on the way. `quality`
        is the npy file of the COMMENT_QUALITY of each of the `rows`, `purchases` the feather file
        of what the split must know beside them."""


@dataclass(frozen=True)
class PandasEngine:
    """All in the memory of this process."""

    settings: Settings
    config: DataConfig

    def read(self, source: Source, limits: Limits) -> View:
        def read_files() -> list[CleanRows]:
            files = source.config.reviews
            return [read_reviews(path, files, limits) for path in source.review_files]

        view = read_view(self.settings, self.config, source, limits, read_files)
        return replace(view, row_keys=distinct_keys(view.reviews.accepted[KEY].to_numpy()))

    def latest(self, view: View, rows: Path) -> int:
        latest = latest_rows(view.reviews.accepted)
        latest.to_feather(rows, compression="uncompressed")
        return len(latest)

    def build(
        self,
        rows: Path,
        quality: Path,
        catalogue: pd.DataFrame,
        files: VersionFiles,
        purchases: Path | None = None,
    ) -> Dataset:
        latest = read_frame(rows)
        latest[schema.COMMENT_QUALITY] = np.load(quality)
        bought = None if purchases is None else read_frame(purchases)
        interactions, split = split_interactions(latest, bought)
        files.add_interactions(interactions)
        users, entries = count_part(latest, interactions, split)
        files.add_users(users)
        return join_parts(interactions, users, [entries], catalogue)


def read_frame(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A feather file as a frame; its values stay in the file, and cannot be changed."""
    frame: pd.DataFrame = feather.read_feather(path, columns, memory_map=True)
    return frame


def read_view(
    settings: Settings,
    config: DataConfig,
    source: Source,
    limits: Limits,
    read_files: Callable[[], list[CleanRows]],
) -> View:
    """Everything there is up to the limits; `read_files` reads the source's review files. The
    `row_keys` are the engine's to add."""
    paths = (*source.review_files, *source.product_files)
    with ThreadPoolExecutor(CORES) as pool:
        digests = pool.map(sha256_of, paths)
        catalogue = pool.submit(read_catalogue, source)
        parts = read_files()
        arrivals, staged, events = read_arrivals(settings, source, config, limits)
        signals = read_signals(events, source, config, limits)
        products = catalogue.result()
        pairs = zip(paths, digests, strict=True)
        described: list[dict[str, Any]] = [{"path": str(at), "sha256": sha} for at, sha in pairs]
    for part, description in zip(parts, described, strict=False):
        description["rows"] = part.rows_read
    bad, read = sum(part.bad_rows for part in parts), sum(part.rows_read for part in parts)
    return View(
        reviews=concatenate([*parts, *arrivals]),
        products=products,
        columns={
            "reviews": sorted(frozenset.intersection(*(part.columns for part in parts))),
            "products": sorted(products.columns),
        },
        files=described,
        arrivals=arrivals,
        signals=signals,
        staged=staged,
        invalid_fraction=bad / max(read, 1),
        row_keys=np.zeros(0, dtype=np.uint64),
    )


def fingerprint(products: pd.DataFrame) -> str:
    """Changes when a product of the catalogue does."""
    hashed = pd.util.hash_pandas_object(products, index=False).to_numpy()
    return f"{int(np.bitwise_xor.reduce(hashed, initial=np.uint64(len(products)))):016x}"
