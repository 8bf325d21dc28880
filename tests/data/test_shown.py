"""What the service shows of products, with and without Arrow."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from recsys.data import shown
from recsys.data.shown import ShownError, read_shown, write_shown
from recsys.publishing import sha256_of
from recsys.settings import REPOSITORY

EXPECTED = {
    "product_id": ["1", "2", "3"],
    "product_name": ["Son “môi”\nsố 1", None, 'a\u2028b\t"\\'],
    "price": [1000.5, None, None],
    "available": [True, None, False],
}


@pytest.fixture
def products() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "description": "not shown",
            "available": [True, None, False],
            "product_name": ["Son “môi”\nsố 1", None, 'a\u2028b\t"\\'],
            "price": [1000.5, float("nan"), None],
            "product_id": ["1", "2", "3"],
        }
    )


@pytest.fixture
def written(tmp_path: Path, products: pd.DataFrame) -> Path:
    write_shown(tmp_path / "shown_products.jsonl", products)
    return tmp_path


@pytest.fixture
def old(tmp_path: Path, products: pd.DataFrame) -> Path:
    """A folder from before the file existed."""
    products.to_parquet(tmp_path / "products.parquet")
    return tmp_path


def test_values_come_as_they_were_written(written: Path):
    assert read_shown(written) == EXPECTED


def test_an_old_folder_gives_the_same_from_its_table(old: Path):
    assert read_shown(old) == EXPECTED
    assert [path.name for path in old.iterdir()] == ["products.parquet"]


def test_a_table_written_without_pandas_has_no_price_where_the_number_is_none(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"product_id": ["1", "2"], "price": [float("nan"), 2.0]})
    pq.write_table(table, tmp_path / "products.parquet")
    assert read_shown(tmp_path) == {"product_id": ["1", "2"], "price": [None, 2.0]}


def test_times_are_seconds_since_1970(tmp_path: Path):
    moments = pd.to_datetime(["1970-01-01T07:00:01.5+07:00", None], utc=True).astype(
        "datetime64[us, UTC]"
    )
    products = pd.DataFrame({"product_id": ["1", "2"], "available_from": moments})
    write_shown(tmp_path / "shown_products.jsonl", products)
    products.to_parquet(tmp_path / "products.parquet")
    shown_of_both = [read_shown(tmp_path)]
    (tmp_path / "shown_products.jsonl").unlink()
    shown_of_both.append(read_shown(tmp_path))
    assert shown_of_both == [{"product_id": ["1", "2"], "available_from": [1.5, None]}] * 2


def test_a_folder_without_products_is_said_to_lack_them(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"products\.parquet"):
        read_shown(tmp_path)


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: b"junk" + text])
def test_a_damaged_file_is_named_with_the_reason(written: Path, damage):
    path = written / "shown_products.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ShownError, match=r"shown_products\.jsonl: cannot be read"):
        read_shown(written)


def test_a_file_that_the_manifest_does_not_describe_is_refused(written: Path):
    path = written / "shown_products.jsonl"
    expected = sha256_of(path)
    assert read_shown(written, expected) == EXPECTED
    path.write_bytes(path.read_bytes().replace(b"1000.5", b"1.5000"))
    with pytest.raises(ShownError, match="manifest"):
        read_shown(written, expected)


def test_a_damaged_old_table_is_named_with_the_reason(old: Path):
    table = old / "products.parquet"
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(ShownError, match=r"products\.parquet: cannot be read: .*Parquet"):
        read_shown(old)


@pytest.mark.parametrize(
    ("commands", "reason"),
    [("kill -9 $$", "ended with -9"), ("exec sleep 100", r"after 0\.2 seconds"), (None, "No such")],
)
def test_a_reader_that_fails_is_an_error_of_the_table(
    old: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch, commands, reason
):
    program = tmp_path_factory.mktemp("bin") / "reader"
    if commands:
        program.write_text(f"#!/bin/sh\necho '[\"a\", [1]]'; {commands}\n")
        program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(shown, "_SECONDS", 0.2)
    with pytest.raises(ShownError, match=rf"products\.parquet: cannot be read: .*{reason}"):
        read_shown(old)


@pytest.mark.parametrize("form", ["written", "old"])
def test_the_caller_stays_without_arrow(request: pytest.FixtureRequest, form: str):
    folder = request.getfixturevalue(form)
    program = (
        "import sys; from pathlib import Path; from recsys.data.shown import read_shown\n"
        f"assert read_shown(Path({str(folder)!r}))['product_id'] == list('123')\n"
        "assert not {'pyarrow', 'pandas', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = {"PYTHONPATH": str(REPOSITORY / "include")}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
