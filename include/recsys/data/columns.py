"""Columns of a Parquet file, for a process that must stay small.

Arrow and pandas take 70 MB of a process, which never gets them back. A service reads one small
table when it loads a model and answers from NumPy arrays ever after. So the table is read by a
process of its own, `recsys.data.columns_process`, which ends when it has written the columns down.

That process gets the open file as its standard input and memory of this one as its standard
output: no folder is needed, nothing is left over, and nobody finds anything half written.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys.errors import InputError

Columns = dict[str, list[Any]]
"""Values by column name, in the order of the rows; None where one is missing."""

_READER = Path(__file__).with_name("columns_process.py")
_SECONDS = 60  # a million products take five


class ColumnsError(InputError):
    """A table cannot be read; the text says which file and why."""


def read_columns(path: Path, names: Sequence[str]) -> Columns:
    """Those of the columns `names` that the Parquet file `path` has.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ColumnsError
        If it is no sound Parquet file, or cannot be read in a minute.
    """
    with path.open("rb") as table, open(os.memfd_create("columns"), "w+b") as answer:  # noqa: PTH123
        # As a script and without its folder on the path (-P): it must not matter where the caller
        # found its modules, and `recsys.data` has names of the standard library.
        command = [sys.executable, "-P", str(_READER), *names]
        try:
            subprocess.run(  # noqa: S603
                command,
                stdin=table,
                stdout=answer,
                stderr=subprocess.PIPE,
                timeout=_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise ColumnsError(f"{path}: cannot be read: {_reason(error)}") from None
        except subprocess.TimeoutExpired:
            raise ColumnsError(f"{path}: was not read within {_SECONDS} seconds") from None
        except OSError as error:
            raise ColumnsError(f"{path}: the process that reads it does not start: {error}") from error
        answer.seek(0)
        return dict(json.loads(line) for line in answer)


def _reason(ended: subprocess.CalledProcessError) -> str:
    """The last line of a traceback is the error; a process that was killed says nothing."""
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    return said[-1] if said else f"the process that reads it ended with status {ended.returncode}"
