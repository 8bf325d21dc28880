"""`recsys.data.dataset.Entries` as a file of plain arrays between a worker and the driver."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from recsys.data.dataset import Entries
from recsys.data.families import SharedEvents

_PLAIN = ("user", "product", "confidence", "trained")


def write_entries(entries: Entries, path: Path) -> None:
    """Write `entries` to the ``.npz`` file `path`."""
    pairs = entries.shared.pairs.tocoo()
    np.savez(
        path,
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
