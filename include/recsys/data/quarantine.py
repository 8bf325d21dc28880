"""Rows that could not be used, kept where people can read them."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from recsys.publishing import atomic_path
from recsys.settings import Settings


def write_quarantine(settings: Settings, version_id: str, rejected: pd.DataFrame) -> Path | None:
    """Write ``data/quarantine/<version_id>.csv`` (file, row, reason, raw); None without rows."""
    if rejected.empty:
        return None
    path = settings.quarantine / f"{version_id}.csv"
    with atomic_path(path) as temporary:
        pacsv.write_csv(pa.Table.from_pandas(rejected, preserve_index=False), temporary)
    return path
