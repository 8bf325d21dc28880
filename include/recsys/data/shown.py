"""What the service shows of products, as a file that needs no Arrow: a line of JSON a column.

Arrow and pandas take 70 MB of a process, which never gets them back. Folders from before this form
have ``products.parquet`` only: a process of its own reads it, and ends.

    [name, [value, ...]]     values in the order of the rows, null where one is missing; times are
                             seconds since 1970
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys import schema
from recsys.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Columns = dict[str, list[Any]]
"""Values by column name, in the order of the rows; None where one is missing."""

_SECONDS = 60  # an old table of a million products takes five


class ShownError(InputError):
    """The products of a folder cannot be read; the text says which file and why."""


def write_shown(path: Path, products: "pd.DataFrame") -> None:
    """Write those of `schema.SHOWN_OF_PRODUCTS` that `products` has into the new file `path`."""
    import pyarrow as pa

    names = [name for name in schema.SHOWN_OF_PRODUCTS if name in products]
    table = pa.Table.from_pandas(products[names], preserve_index=False)
    with path.open("wb") as file:
        file.writelines(_lines(table))


def read_shown(folder: Path, sha256: str | None = None) -> Columns:
    """The shown columns of the products in `folder`, a version or an artefact. `sha256` is what the
    manifest says of the file, None where it says nothing. Raises `OSError` if there is no file of
    products, `ShownError` if it is damaged, or an old one cannot be read in a minute."""
    path = folder / schema.SHOWN_FILE
    if not path.exists():
        content = _from_table(folder / schema.PRODUCTS_FILE)
    else:
        content = path.read_bytes()
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise ShownError(f"{path}: its content is not what the manifest describes")
    try:
        # One line at a time: only one column is in memory twice.
        return dict(json.loads(line) for line in content.splitlines())
    except ValueError as error:
        raise ShownError(f"{path}: cannot be read: {error}") from error


def _lines(table: "pa.Table") -> Iterator[bytes]:
    import pyarrow as pa

    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_timestamp(column.type):
            column = _seconds(column)
        line = json.dumps([name, column.to_pylist()], ensure_ascii=False, allow_nan=False)
        yield line.encode() + b"\n"


def _seconds(times: "pa.ChunkedArray") -> "pa.ChunkedArray":
    import pyarrow as pa
    import pyarrow.compute as pc

    microseconds = times.cast(pa.timestamp("us")).cast(pa.int64())
    return pc.divide(microseconds.cast(pa.float64()), 1e6)


def _from_table(path: Path) -> bytes:
    """What `write_shown` would have written of the table `path`."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: the file does not exist")
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "recsys.data.shown", str(path)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            timeout=_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"the process that reads it ended with {error.returncode}"
        raise ShownError(f"{path}: cannot be read: {reason}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise ShownError(f"{path}: cannot be read: {error}") from error
    return done.stdout


def _print_table(path: str) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    table = ParquetFile(path)
    names = [name for name in schema.SHOWN_OF_PRODUCTS if name in table.schema_arrow.names]
    shown: pa.Table = table.read(columns=names, use_threads=False)
    # A number that is none is missing, as it is in tables that come from pandas.
    columns = [pa.array(column.to_numpy(), from_pandas=True) for column in shown.columns]
    sys.stdout.buffer.writelines(_lines(pa.Table.from_arrays(columns, names)))


if __name__ == "__main__":
    _print_table(sys.argv[1])
