"""Rows dealt into ranges are all there, in the order of the whole; so are merged keys."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.keys import USER_KEY
from recsys.spark import ranges
from recsys.spark.shelf import Shelf
from recsys.storage import StorageConfig

KEYS = st.lists(st.one_of(st.integers(0, 20), st.integers(0, 2**64 - 1)), max_size=40)


def new_shelf(folder: Path) -> Shelf:
    return Shelf(folder, "data/work/run-shelf", StorageConfig())


@settings(max_examples=25)
@given(files=st.lists(KEYS, min_size=1, max_size=4), bits=st.integers(1, 5))
def test_every_row_is_in_the_range_of_its_user(tmp_path_factory, files, bits):
    shelf = new_shelf(tmp_path_factory.mktemp("ranges"))
    for number, users in enumerate(files):
        rows = pd.DataFrame(
            {USER_KEY: np.array(users, dtype=np.uint64), "id": [f"{number}-{u}" for u in users]}
        ).astype({"id": "str"})
        with shelf.put(f"rows/{number}.arrow") as path:
            ranges.deal(rows, path, bits)
    names = shelf.names("rows")
    assert ranges.dealt_ranges(shelf, names[0]) == 2**bits
    found = [ranges.read_range(shelf, names, number) for number in range(2**bits)]
    for number, part in enumerate(found):
        assert ((part[USER_KEY] >> np.uint64(64 - bits)) == number).all()
    expected = sorted(f"{number}-{u}" for number, users in enumerate(files) for u in users)
    assert sorted(pd.concat(found)["id"]) == expected


@given(files=st.lists(KEYS, min_size=1, max_size=4))
def test_merged_keys_are_those_of_all_in_order_each_once(tmp_path_factory, files):
    parts = [np.unique(np.array(keys, dtype=np.uint64)) for keys in files]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "_KEYS_AT_ONCE", 3)
        path = tmp_path_factory.mktemp("keys") / "keys.bin"
        merged = ranges.merge_keys(parts, path).tolist()
    assert merged == sorted({key for keys in files for key in keys})


def test_a_file_that_could_not_be_written_is_not_on_the_shelf(tmp_path):
    shelf = new_shelf(tmp_path)
    with pytest.raises(ZeroDivisionError), shelf.put("rows/torn.arrow") as path:
        path.write_bytes(b"half" * (1 // 0))
    with shelf.put("rows/whole.arrow") as path:
        path.write_bytes(b"whole")
    assert shelf.names("rows") == ["rows/whole.arrow"]
    with shelf.take("rows/whole.arrow") as path:
        assert path.read_bytes() == b"whole"
    assert shelf.names("rows") == []
    shelf.close()
    assert not list((tmp_path / "data" / "work").iterdir())
