"""Records of customers leave the files of a shop, and all others stay as they are written."""

import gzip
import json

import pandas as pd
import pytest

from recsys.data.reading import read_rows
from recsys.data.records import leave_out
from recsys.data.sources import EventFiles, ReviewFiles
from recsys.errors import SourceError
from recsys.personal import Sought

ANY = {
    "path": "x",
    "columns": {"user_id": "ma", "product_id": "sp", "rating": "sao", "comment": "lời"},
    "timestamp": {"columns": ["ngày"]},
}
REVIEWS = ReviewFiles.model_validate(ANY)
CLICKS = EventFiles.model_validate(
    {
        "path": "x",
        "kind": "click",
        "columns": {"user_id": "user", "session_id": "session", "product_id": "product"},
        "timestamp": {"columns": ["at"]},
    }
)
HEADER = "ma,sp,sao,ngày,lời\n"
OTHERS = 'u1,p1,5,2025-01-01,"tốt, KH01 nói vậy"\nu2,p2,4,2025-01-02,\n'


def left(path, content: bytes | str, *customers: str, files=REVIEWS, sessions=None) -> bytes:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    sought = Sought(frozenset(customers), sessions or {})
    leave_out(path, files, sought)
    assert leave_out(path, files, sought) == 0
    return path.read_bytes()


def test_every_spelling_of_an_id_goes_and_who_is_only_mentioned_stays(tmp_path):
    rows = [f"{way},p9,5,2025-01-01,x\n" for way in ("443", " 443.0 ", '"443"', "4.43E+02")]
    found = left(tmp_path / "a.csv", HEADER + rows[0] + OTHERS + "".join(rows[1:]), "443", "KH01")
    assert found.decode() == HEADER + OTHERS


def test_a_file_of_others_is_not_written_again(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + OTHERS)
    before = path.stat()
    assert leave_out(path, REVIEWS, Sought.of(["KH01"])) == 0
    assert path.stat() == before


def test_a_file_keeps_its_mode_and_time(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + OTHERS)
    path.chmod(0o640)
    before = path.stat()
    assert leave_out(path, REVIEWS, Sought.of(["u1"])) == 1
    after = path.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


@pytest.mark.parametrize(
    "writing",
    [
        {"encoding": "cp1258"},
        {"encoding": "utf-16"},
        {"delimiter": ";"},
        {"quote": "'"},
        {"escape": "\\"},
        {"titles": "Báo cáo\nngày 1\n"},
        {"end": "\r\n"},
        {"mark": "\ufeff"},
    ],
    ids=lambda writing: "-".join(writing),
)
def test_files_are_written_as_they_were(tmp_path, writing):
    delimiter, quote = writing.get("delimiter", ","), writing.get("quote", '"')
    said = {key: value for key, value in writing.items() if key in ("encoding", "delimiter")}
    said |= {key: value for key, value in writing.items() if key in ("quote", "escape")}
    files = ReviewFiles.model_validate({**ANY, **said})
    inside = f"\\{quote}" if "escape" in writing else quote * 2
    comment = f"{quote}anh{delimiter} {inside}Hai{inside}\nvà xong{quote}"
    head = delimiter.join(("ma", "sp", "sao", "ngay", "loi"))
    files = files.model_copy(
        update={
            "columns": files.columns.model_copy(update={"comment": ("loi",)}),
            "timestamp": files.timestamp.model_copy(update={"columns": (("ngay",),)}),
        }
    )
    rows = [
        delimiter.join((user, "p1", "5", "2025-01-01", comment)) for user in ("u1", "KH01", "u2")
    ]
    end = writing.get("end", "\n")

    def written(kept: list[str]) -> bytes:
        titles = writing.get("mark", "") + writing.get("titles", "")
        text = titles + end.join([head, *kept, ""])
        return text.encode(writing.get("encoding", "utf-8"))

    found = left(tmp_path / "a.csv", written(rows), "KH01", files=files)
    assert found == written([rows[0], rows[2]])


def test_packed_files_are_packed_again(tmp_path):
    row = "KH01,p9,5,2025-01-01,x\n"
    found = left(tmp_path / "a.csv.gz", gzip.compress((HEADER + row + OTHERS).encode()), "KH01")
    assert gzip.decompress(found).decode() == HEADER + OTHERS


def test_torn_records_go_by_their_text(tmp_path):
    torn = "KH01,p9,5\nu3,p1,4,2025-01-01,a,b,KH02\n"
    found = left(tmp_path / "a.csv", HEADER + torn + OTHERS + "KH03,p9,5", "KH01", "KH03")
    assert found.decode() == HEADER + "u3,p1,4,2025-01-01,a,b,KH02\n" + OTHERS


def test_what_an_open_quote_has_left_over_goes_with_its_record(tmp_path):
    mine = 'KH01,p9,5,2025-01-01,"bắt đầu\nvẫn của tôi\n'
    found = left(tmp_path / "a.csv", HEADER + mine + OTHERS, "KH01")
    assert found.decode() == HEADER + OTHERS
    theirs = 'u9,p9,5,2025-01-01,"bắt đầu\nvẫn của u9\n'
    mine = "KH01,p1,4,2025-01-03,ngắn\n"
    found = left(tmp_path / "b.csv", HEADER + theirs + mine + OTHERS, "KH01")
    assert found.decode() == HEADER + theirs + OTHERS


def test_bytes_that_are_no_text_stay(tmp_path):
    odd, others = b"u7,p1,5,2025-01-01,\xff\xfe\n", OTHERS.encode() * 5
    content = HEADER.encode() + odd + b"KH01,p1,5,2025-01-01,\xff\n" + others
    assert left(tmp_path / "a.csv", content, "KH01") == HEADER.encode() + odd + others


def test_a_guest_in_a_session_of_theirs_goes_with_them(tmp_path):
    head, kept = "user,session,product,at\n", "u1,s1,p1,2025-01-01\n,s2,p1,2025-01-01\n"
    rows = f"{kept},s1,p2,2025-01-01\nKH01,s1,p3,2025-01-01\nKH01,s9,p3,2025-01-01\n"
    found = left(tmp_path / "a.csv", head + rows, "KH01", files=CLICKS, sessions={"s1": "KH01"})
    assert found.decode() == head + kept


def test_lines_of_json_go(tmp_path):
    rows = [{"ma": one, "sp": "p1", "sao": 5, "ngày": "2025-01-01"} for one in ("u1", 443, "KH01")]
    lines = [json.dumps(one, ensure_ascii=False) for one in rows]
    torn = '{"ma": "KH01", "sp'
    content = "\n".join([*lines, torn, ""])
    found = left(tmp_path / "a.jsonl", content, "443", "KH01")
    assert found.decode() == f"{lines[0]}\n"


def test_rows_of_parquet_go(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame({"ma": [443.0, None, 7.0], "sp": "p1", "sao": 5, "ngày": "2025-01-01"})
    frame.to_parquet(path)
    assert leave_out(path, REVIEWS, Sought.of(["443"])) == 1
    rows = read_rows(path, REVIEWS.needed, REVIEWS.optional, REVIEWS)
    assert rows.table["user_id"].to_pylist() == ["", "7"]


def test_a_file_without_a_column_of_customers_is_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("what,is,this\nKH01,1,2\n")
    with pytest.raises(SourceError, match="there is no column 'ma'"):
        leave_out(path, REVIEWS, Sought.of(["KH01"]))
