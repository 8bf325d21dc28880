"""What an export finds in files can be taken out, and nothing else goes with it."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import sqlite3
import tarfile
import threading
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from recsys.database import connect
from recsys.erasing import (
    FORGOTTEN,
    from_files,
    from_json_lines,
    from_parquet,
    from_tables,
    from_texts_of_database,
    over_lines,
)
from recsys.personal import Erased, Record, Sought, Unread
from recsys.settings import Settings
from recsys.traces import in_files
from tests.upkeep.byte_search import search

WHO = "mộc-an"
SOUGHT = Sought(frozenset(["3", WHO]), {"phien-zqx": WHO}, {"~" + "0a" * 16: WHO})
SPELLINGS = (
    *(WHO, unicodedata.normalize("NFD", WHO), "m\\u1ed9c-an", "m%E1%BB%99c-an"),
    "~" + "0a" * 16,
)


@pytest.fixture
def place(settings: Settings) -> Path:
    folder = settings.home / "exports"
    folder.mkdir(parents=True)
    return folder


def erase(settings: Settings, *paths: Path) -> dict[str, int]:
    """What went, by place; the same again finds nothing, and so do readers."""
    found = list(from_files(settings, SOUGHT, paths))
    assert [one for one in found if not isinstance(one, Erased)] == []
    assert list(from_files(settings, SOUGHT, paths)) == []
    there = [path for path in paths if path.exists()]
    assert not [one for one in in_files(settings, SOUGHT, there) if isinstance(one, Record)]
    return {one.place: one.records for one in found}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("packed", [False, True])
def test_lines_about_somebody_go_in_every_spelling(settings, place, spelling, packed):
    text = f"one\nuser_id={spelling}, topk=3\r\nlast {spelling}2\nuser_id=3\nends"
    path = place / ("a.log.gz" if packed else "a.log")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert erase(settings, path) == {f"exports/{path.name}": 2}
    content = path.read_bytes()
    left = gzip.decompress(content) if packed else content
    assert left.decode().splitlines() == ["one", f"last {spelling}2", "ends"]


def test_a_file_keeps_its_mode_and_its_age(settings, place):
    path = place / "a.txt"
    path.write_text("user_id=3\nother\n")
    path.chmod(0o600)
    os.utime(path, (1e9, 1e9))
    erase(settings, path)
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime) == (0o600, 1e9)


def test_a_file_without_anybody_is_not_touched(settings, place):
    paths = [place / "a.txt", place / "b.csv", place / "c.json", place / "d.parquet"]
    for path in paths[:3]:
        path.write_text("user_id,n\n4,1\n")
    pd.DataFrame({"user_id": [4]}).to_parquet(paths[3])
    before = [path.stat().st_ino for path in paths]
    assert erase(settings, *paths) == {}
    assert [path.stat().st_ino for path in paths] == before


def test_blanks_over_lines_lose_nothing_that_is_written_meanwhile(settings, place):
    path = place / "service.log"
    lines = [f"{number} user_id={'3' if number % 7 == 0 else '4'}" for number in range(5_000)]
    path.write_text("".join(f"{line}\n" for line in lines[:1000]))
    start = threading.Event()

    def write() -> None:
        with path.open("a") as file:
            start.set()
            for line in lines[1000:]:
                file.write(f"{line}\n")
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    start.wait()
    while writer.is_alive():
        list(over_lines(settings, SOUGHT, [path]))
    writer.join()
    list(over_lines(settings, SOUGHT, [path]))
    left = path.read_text().split("\n")[:-1]
    assert len(left) == 5_000
    assert [line.strip() for line in left] == [
        line if number % 7 else "" for number, line in enumerate(lines)
    ]


def test_records_of_a_csv_go_whole_and_the_rest_stays_byte_for_byte(settings, place):
    path = place / "a.csv"
    kept = ['4;"zwei\r\nzeilen";1\r\n', "torn of 3\n", '5;"a ""b""";3\n', "\n"]
    gone = ['3.0;"auch\nzwei";2\n', f"4;{WHO};2\n", f"torn {WHO}\n", "phien-zqx;x;1\n"]
    mixed = [line for pair in zip(gone, kept, strict=True) for line in pair]
    path.write_bytes("".join(["\ufeffcustomer;text;n\n", *mixed]).encode())
    assert erase(settings, path) == {"exports/a.csv": 4}
    assert path.read_bytes().decode() == "".join(["\ufeffcustomer;text;n\n", *kept])


def test_rows_of_parquet_go_with_their_pages(settings, place):
    path = place / "a.parquet"
    schema = pa.schema([("user_id", pa.string()), ("n", pa.int8())], {"ours": "yes"})
    users = [WHO, "4", " 3 ", "5", None] * 10
    table = pa.table({"user_id": users, "n": list(range(50))}, schema=schema)
    pq.write_table(table, path, compression="zstd", row_group_size=20)
    told = list(from_parquet(settings, SOUGHT, [path], ["user_id"]))
    assert told == [Erased("exports/a.parquet", 20)]
    left = pq.read_table(path)
    assert left.schema.equals(schema, check_metadata=True)
    assert left.equals(table.filter(pa.array(one in ("4", "5", None) for one in users)))
    assert search(place, [WHO]) == {}


def test_guests_of_a_session_go_with_its_only_customer(settings, place):
    path = place / "a.parquet"
    frame = pd.DataFrame({"user_id": ["", "", "7"], "session_id": ["phien-zqx", "s2", "phien-zqx"]})
    frame.to_parquet(path)
    told = list(from_parquet(settings, SOUGHT, [path], ["user_id"], session="session_id"))
    assert told == [Erased("exports/a.parquet", 1)]
    assert pd.read_parquet(path)["user_id"].tolist() == ["", "7"]


def test_a_document_loses_what_is_about_somebody_and_stays_one(settings, place):
    path = place / "a.json"
    rows = [{"user_id": 3, "n": 1}, {"user_id": 4, "n": 2}, {"note": f"{WHO} said", "n": 3}]
    content = {
        "rows": rows,
        "names": [WHO, "4"],
        WHO: {"n": 1},
        "last_user_id": 3,
        "retries": 3,
        "worst": {"customer": "3.0", "n": 9},
    }
    path.write_text(json.dumps(content))
    assert erase(settings, path) == {"exports/a.json": 6}
    assert json.loads(path.read_text()) == {
        "rows": [{"user_id": 4, "n": 2}, {"n": 3}],
        "names": ["4"],
        "retries": 3,
    }


def test_an_answer_to_a_customer_goes_whole(settings, place):
    path = place / "answer.json"
    path.write_text(json.dumps({"customer": WHO, "kept": [{"records": [1]}]}))
    assert erase(settings, path) == {"exports/answer.json": 1}
    assert not path.exists()


def test_deleted_rows_leave_no_bytes_in_a_database(settings, place):
    """Neither in pages that earlier deletions freed nor in the log, while others have it open."""
    path = place / "a.db"
    with connect(path) as reader:
        reader.execute("CREATE TABLE t (user_id TEXT, text TEXT, UNIQUE (user_id, text))")
        reader.execute("CREATE TABLE u (n INTEGER)")
        rows = [(WHO if n % 2 else "4", f"ngôn{n} " * 50) for n in range(500)]
        reader.execute("BEGIN")
        reader.executemany("INSERT INTO t VALUES (?, ?)", rows)
        reader.execute("COMMIT")
        reader.execute("DELETE FROM t WHERE text < 'ngôn2'")
        left = reader.execute("SELECT count(*) FROM t WHERE user_id = '4'").fetchone()[0]
        owners = {"t": "of_user(user_id)", "gone": "of_user(user_id)"}
        [told] = from_tables(settings, SOUGHT, path, owners)
        assert told.place == "exports/a.db#t"
        assert told.records > 100
        assert search(place, [WHO]) == {}
        assert reader.execute("SELECT count(*) FROM t").fetchone()[0] == left
    reader.close()


def test_a_database_that_is_being_read_is_named_and_done_the_next_time(
    settings, place, monkeypatch
):
    monkeypatch.setattr("recsys.erasing.BUSY_TIMEOUT_SECONDS", 0.2)
    path = place / "a.db"
    reader = connect(path)
    reader.execute("CREATE TABLE t (user_id TEXT)")
    reader.execute("INSERT INTO t VALUES (?)", (WHO,))
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    told = list(from_tables(settings, SOUGHT, path, {"t": "of_user(user_id)"}))
    assert isinstance(told[-1], Unread)
    assert "its log stays" in told[-1].reason
    reader.execute("COMMIT")
    assert list(from_tables(settings, SOUGHT, path, {"t": "of_user(user_id)"})) == []
    assert search(place, [WHO]) == {}
    reader.close()


def test_texts_of_records_are_replaced_where_the_row_has_to_stay(settings, place):
    path = place / "runs.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, run_id TEXT, said, about)")
        database.executemany(
            "INSERT INTO runs (run_id, said, about) VALUES (?, ?, ?)",
            [
                ("r1", f"no such user_id={WHO}", '{"user_id": 3}'),
                ("r2", "retries=3", json.dumps({"of": [{"note": WHO}, 1]})),
                (f"r-{WHO}", None, 3),
            ],
        )
    database.close()
    found = list(from_texts_of_database(settings, SOUGHT, path, keys=["run_id"]))
    assert found == [Erased("exports/runs.db#runs", 3)]
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT run_id, said, about FROM runs").fetchall()
    database.close()
    assert rows == [
        ("r1", FORGOTTEN, "null"),
        ("r2", "retries=3", '{"of": [{}, 1]}'),
        (f"r-{WHO}", None, 3),
    ]


def test_lines_of_json_go_by_their_owner(settings, place):
    path = place / "a.jsonl"
    path.write_text('{"who": "a"}\nno json\n[1]\n{"who": "b"}\n')
    told = list(from_json_lines(settings, [path], lambda row: {"a": "a"}.get(row["who"])))
    assert told == [Erased("exports/a.jsonl", 1)]
    assert path.read_text() == 'no json\n[1]\n{"who": "b"}\n'


def test_who_stands_in_a_file_of_another_kind_is_for_a_person(settings, place):
    """Its name, in whatever encoding, and in a workbook; but no short one, and no part of one."""
    name = "khách-dài-7"
    np.save(place / "a.npy", np.array([name, "x"]))
    (place / "b.bin").write_bytes(b"\0" * ((16 << 20) - 5) + name.encode() + b"\0")
    pd.DataFrame({"user_id": [name]}).to_feather(place / "c.feather", compression="uncompressed")
    with zipfile.ZipFile(place / "d.xlsx", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("xl/sheet1.xml", f"<c>{name}</c>" * 100)
    (place / "e.pkl").write_bytes(pickle.dumps({"user": name}))
    (place / "f.bin").write_bytes(f"\0{name}8 mộc-an 3 ".encode())
    (place / "g.bin").write_bytes(b"1234567")
    (place / "h.bin").touch()
    sought, paths = Sought(SOUGHT.ids | {name}), sorted(place.iterdir())
    assert list(from_files(settings, sought, paths)) == []
    found = list(in_files(settings, sought, paths))
    assert {one.customer for one in found} == {name}
    assert [Path(one.place).name[0] for one in found] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    "name",
    [
        *("a.ndjson", "a.sql", "a.md", "a.eml", "a.TXT", "a", "wide.csv", "a.parquet", "a.feather"),
        *("a.tar.gz", "a.tar", "a.zip", "a.txt.bz2", "a.XZ", "a.CSV.GZ", "a.log.xz"),
    ],
)
def test_a_short_name_is_found_in_whatever_it_stands_or_the_file_is_named(settings, place, name):
    """Either it goes, or the file is for a person; never is it passed over in silence."""
    path = place / name
    _write(path, f"id\n{WHO}\nother\n")
    list(from_files(settings, SOUGHT, [path]))
    left = list(in_files(settings, SOUGHT, [path]))
    goes = name.endswith((".ndjson", ".md", ".eml", ".TXT", ".parquet"))
    assert {type(one) for one in left} == (set() if goes else {Record})


def _write(path: Path, text: str) -> None:
    how = path.name.lower()
    if how.endswith((".tar", ".tar.gz")):
        with tarfile.open(path, "w:gz" if how.endswith("gz") else "w") as packed:
            member = tarfile.TarInfo("a.txt")
            member.size = len(text.encode())
            packed.addfile(member, io.BytesIO(text.encode()))
    elif how.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("a.txt", text)
    elif how.endswith((".parquet", ".feather")):
        rows = [{"of": [{"who": WHO}], "raw": b"x"}, {"of": [], "raw": b"y"}]
        table = pa.Table.from_pylist(rows)
        if how.endswith("parquet"):
            pq.write_table(table, path)
        else:
            feather.write_feather(table, path)
    else:
        ways = {"bz2": bz2.compress, "xz": lzma.compress, "gz": gzip.compress}
        content = text.encode("utf-16" if how.startswith("wide") else "utf-8")
        path.write_bytes(ways.get(how.rpartition(".")[2], bytes)(content))


@pytest.mark.parametrize("name", ["a.tsv", "a.CSV", "a.csv.gz"])
def test_numbers_in_a_column_of_customers_go_whatever_the_table_is_called(settings, place, name):
    path = place / name
    _write(path, "user_id\tn\n3\t1\n4\t3\n")
    assert erase(settings, path) == {f"exports/{name}": 1}


def test_a_wide_table_is_found_by_its_columns_and_left_to_a_person(settings, place):
    path = place / "wide.csv"
    _write(path, "user_id,n\n3,1\n4,3\n")
    assert list(from_files(settings, SOUGHT, [path])) == []
    [found] = [one for one in in_files(settings, SOUGHT, [path]) if isinstance(one, Record)]
    assert found.content == {"user_id": "3", "n": "1"}


@pytest.mark.parametrize("begin", [b"%PDF-1.4\n", b"7z\xbc\xaf\x27\x1c", b"\x28\xb5\x2f\xfd"])
def test_what_is_of_a_kind_that_cannot_be_searched_is_named(settings, place, begin):
    path = place / "a.txt"
    path.write_bytes(begin + b"\0whatever")
    [found] = in_files(settings, SOUGHT, [path])
    assert isinstance(found, Unread)
    packed = place / "b.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(path, "inner")
    [found] = in_files(settings, SOUGHT, [packed])
    assert isinstance(found, Unread)
    assert "inner" in found.reason


def test_what_cannot_be_read_is_named(settings, place):
    (place / "a.parquet").write_bytes(b"PAR1 and nothing that makes sense")
    (place / "b.db").write_bytes(b"SQLite format 3\0" + b"nonsense" * 100)
    (place / "c.csv").write_bytes(b"user_id,n\n3,1\r2\n")
    paths = sorted(place.iterdir())
    found = list(from_files(settings, SOUGHT, paths))
    assert [type(one) for one in found] == [Unread] * 3
