import math
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from recsys.data import columns
from recsys.data.columns import ColumnsError, read_columns
from recsys.settings import REPOSITORY


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "products.parquet"
    pd.DataFrame(
        {
            "product_id": ["1", "2", "3"],
            "name": ["Son “môi”\nsố 1", None, 'a\u2028b\t"\\'],
            "price": [1000.5, float("nan"), None],
            "available": [True, None, False],
        }
    ).to_parquet(path)
    return path


def test_values_come_as_they_were_written(table):
    read = read_columns(table, ["available", "name", "product_id"])
    assert read == {
        "available": [True, None, False],
        "name": ["Son “môi”\nsố 1", None, 'a\u2028b\t"\\'],
        "product_id": ["1", "2", "3"],
    }
    first, *missing = read_columns(table, ["price"])["price"]
    assert first == 1000.5
    assert all(price is None or math.isnan(price) for price in missing)


def test_columns_that_the_table_lacks_are_left_out(table):
    assert list(read_columns(table, ["colour", "product_id"])) == ["product_id"]
    assert read_columns(table, []) == {}


def test_a_file_that_does_not_exist_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_columns(tmp_path / "products.parquet", ["product_id"])


def test_a_damaged_file_is_named_with_the_reason(table):
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(ColumnsError, match=r"products\.parquet: cannot be read: .*Parquet"):
        read_columns(table, ["product_id"])


def test_a_reader_that_is_killed_half_way_gives_nothing(table, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(_program(tmp_path, 'echo \'["a", [1]]\'; kill -9 $$')))
    with pytest.raises(ColumnsError, match="ended with status -9"):
        read_columns(table, ["product_id"])


def test_a_reader_that_hangs_is_ended(table, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(_program(tmp_path, "exec sleep 100")))
    monkeypatch.setattr(columns, "_SECONDS", 0.2)
    with pytest.raises(ColumnsError, match=r"within 0\.2 seconds"):
        read_columns(table, ["product_id"])


def test_a_reader_that_cannot_be_started_is_an_error_of_the_table(table, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(ColumnsError, match="does not start"):
        read_columns(table, ["product_id"])


def test_the_caller_stays_without_arrow(table):
    program = (
        "import sys; from pathlib import Path; from recsys.data.columns import read_columns\n"
        f"assert read_columns(Path({str(table)!r}), ['product_id']) == {{'product_id': list('123')}}\n"
        "assert not {'pyarrow', 'pandas', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "include")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def _program(folder: Path, commands: str) -> Path:
    """A program in the place of the Python that reads."""
    path = folder / "reader"
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
