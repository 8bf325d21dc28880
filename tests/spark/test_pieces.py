"""Files cut into pieces say what they say whole."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.sources import ReviewFiles
from recsys.spark.pieces import cut

UTF8 = ReviewFiles.model_validate(
    {
        "path": "reviews.csv",
        "columns": {"user_id": "user", "product_id": "product", "rating": "rating"},
        "timestamp": {"columns": "time"},
    }
)

HEADER = ["user", "product", "rating", "time", "comment"]
TEXT = st.text(alphabet='ab", \n\r', max_size=12)


def written(rows: list[list[str]], line_end: str) -> bytes:
    target = io.StringIO()
    csv.writer(target, lineterminator=line_end).writerows([HEADER, *rows])
    return target.getvalue().encode()


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@given(
    comments=st.lists(TEXT, max_size=60),
    piece_bytes=st.integers(1, 300),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
def test_no_record_is_torn_lost_or_doubled(tmp_path_factory, comments, piece_bytes, line_end):
    folder = tmp_path_factory.mktemp("pieces")
    path = folder / "reviews.csv"
    rows = [[f"u{number}", "1", "5", "2025", text] for number, text in enumerate(comments)]
    path.write_bytes(written(rows, line_end))
    pieces = [read(piece.path) for piece in cut(path, folder / "cut", piece_bytes, UTF8)]
    assert all(piece[0] == HEADER for piece in pieces)
    assert [record for piece in pieces for record in piece[1:]] == read(path)[1:]


def test_a_quote_that_never_closes_does_not_make_the_rest_one_piece(tmp_path):
    path = tmp_path / "reviews.csv"
    lines = [f'u{number},1,5,2025,"fine"' for number in range(20_000)]
    lines[10] = 'u10,1,5,2025,"never closed'
    path.write_text("\n".join([",".join(HEADER), *lines]) + "\n")
    pieces = list(cut(path, tmp_path / "cut", 40_000, UTF8))
    assert max(piece.path.stat().st_size for piece in pieces) < 120_000
    together = [line for piece in pieces for line in piece.path.read_text().splitlines()[1:]]
    assert together == lines


def test_a_line_without_end_is_copied_in_parts(tmp_path):
    path = tmp_path / "reviews.csv"
    long = "u1,1,5,2025," + "x" * 3_000_000
    path.write_text("\n".join([",".join(HEADER), "u0,1,5,2025,a", long, "u2,1,5,2025,b"]))
    pieces = list(cut(path, tmp_path / "cut", 10, UTF8))
    assert max(len(piece.path.read_bytes()) for piece in pieces) > 3_000_000
    assert sum(len(read_lines(piece.path)) - 1 for piece in pieces) == 3


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_file_whose_encoding_hides_line_ends_is_not_cut(tmp_path, encoding):
    path = tmp_path / "reviews.csv"
    path.write_text("user,product\n" * 100, encoding=encoding)
    assert [
        piece.path
        for piece in cut(path, tmp_path / "cut", 50, UTF8.model_copy(update={"encoding": encoding}))
    ] == [path]


def test_a_small_file_stays_where_it_is(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("user,product\n1,2\n")
    assert [piece.path for piece in cut(path, tmp_path / "cut", 1_000, UTF8)] == [path]
    assert not (tmp_path / "cut").exists()
