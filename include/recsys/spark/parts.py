"""`recsys.data.dataset.Entries` as a file between a worker and the driver."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from recsys.arrays import AnyArray
from recsys.data.dataset import Entries, Tally
from recsys.data.families import SharedEvents

_PLAIN = ("user", "product", "confidence", "trained")


def write_entries(entries: Entries, path: Path) -> None:
    """Write `entries` as plain arrays."""
    pairs = entries.shared.pairs.tocoo()
    tally = dataclasses.asdict(entries.tally)
    times = {name: tally.pop(name).value for name in ("first", "last")}
    arrays: dict[str, Any] = {
        **{name: getattr(entries, name) for name in _PLAIN},
        "products": np.array(entries.products, dtype="U"),
        "users": entries.users,
        "counts": entries.shared.counts,
        "pairs": np.stack([pairs.row, pairs.col]),
        "common": pairs.data,
        **{f"tally {name}": value for name, value in (tally | times).items()},
    }
    np.savez(path, **arrays)


def read_entries(path: Path) -> Entries:
    """Read what `write_entries` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays: dict[str, AnyArray] = dict(stored)
    products = pd.Series(arrays["products"], dtype="str")
    pairs = sparse.csr_array(
        (arrays["common"], tuple(arrays["pairs"])), shape=(len(products), len(products))
    )
    tally: dict[str, Any] = {
        field.name: _value(arrays[f"tally {field.name}"]) for field in dataclasses.fields(Tally)
    }
    for name in ("first", "last"):
        tally[name] = pd.Timestamp(tally[name], tz="UTC")
    return Entries(
        products=products,
        users=int(arrays["users"]),
        **{name: arrays[name] for name in _PLAIN},
        shared=SharedEvents(arrays["counts"], pairs),
        tally=Tally(**tally),
    )


def _value(array: AnyArray) -> Any:
    return array if array.ndim else array.item()
