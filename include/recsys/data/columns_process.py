"""The process behind `recsys.data.columns`; it imports Arrow so that its caller need not.

    python -P columns_process.py NAME... < table.parquet

Writes one line of JSON a column, ``[name, [value, ...]]``.
"""

import json
import sys

from pyarrow.parquet import ParquetFile


def main(names: list[str]) -> None:
    """Print the columns `names` of the table on standard input, as far as it has them."""
    table = ParquetFile(sys.stdin.buffer)
    for name in names:
        if name in table.schema_arrow.names:
            values = table.read(columns=[name], use_threads=False).column(0).to_pylist()
            line = json.dumps([name, values], ensure_ascii=False) + "\n"
            sys.stdout.buffer.write(line.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
