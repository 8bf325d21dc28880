"""`recsys.data.dataset.Entries` as a file of plain arrays between a worker and the driver."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from recsys.data.dataset import Entries
from recsys.data.families import SharedEvents

_PLAIN = ("user", "product", "confidence", "trained")


def write_entries(entries: Entries, path: Path) -> None:
    """Write `entries` to `path`, an npz file whatever its name."""
    pairs = entries.shared.pairs.tocoo()
    with path.open("wb") as file:
        np.savez(
            file,
            **{name: getattr(entries, name) for name in _PLAIN},
            products=np.array(entries.products, dtype="U"),
            users=np.array(entries.users),
            counts=entries.shared.counts,
            pairs=np.stack([pairs.row, pairs.col]),
            common=pairs.data,
        )


def read_entries(path: Path) -> Entries:
    """Read what `write_entries` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        products = pd.Series(stored["products"], dtype="str")
        cells = (stored["common"], tuple(stored["pairs"]))
        pairs = sparse.csr_array(cells, shape=(len(products), len(products)))
        return Entries(
            products=products,
            users=int(stored["users"]),
            **{name: stored[name] for name in _PLAIN},
            shared=SharedEvents(stored["counts"], pairs),
        )


@dataclass(frozen=True)
class StoredEntries:
    """Those of several files, in order, one in memory at a time."""

    paths: tuple[Path, ...]

    def __iter__(self) -> Iterator[Entries]:
        return map(read_entries, self.paths)
