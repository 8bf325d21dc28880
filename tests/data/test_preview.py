"""How a file would be read, seen before a refresh reads it."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.data.preview import preview
from recsys.errors import SourceError
from recsys.settings import Settings

NOW = datetime(2024, 12, 1, tzinfo=UTC)
HEADER = "id,ma_khach_hang,ma_san_pham,so_sao,ngay_binh_luan,gio_binh_luan,noi_dung_binh_luan\n"
REVIEWS = HEADER + (
    "1,443,308500015,5,29/11/2024,17:06,tốt\n"
    "2,1030,308500015,9,30/11/2024,15:04,đẹp\n"
    "3,689,422216594,4,30/11/-001,0:0,\n"
    "4,12,422216594,3,30/11/2024,18:34,ổn\n"
)
PRODUCTS = "ma_san_pham,ten_san_pham,gia_ban,mo_ta\n"


def check(settings: Settings, path: Path, text: str, **options: str):
    path.write_text(text, encoding="utf-8")
    return preview(settings, "hasaki", path, NOW)


def test_each_column_shows_what_it_is_read_as(settings: Settings, tmp_path: Path) -> None:
    found = check(settings, tmp_path / "r.csv", REVIEWS)
    assert (found.kind, found.rows, found.accepted, found.unused) == ("reviews", 4, 2, ["id"])
    columns = {theirs: (ours, texts, values) for ours, theirs, texts, values in found.columns}
    assert columns["so_sao"] == ("rating", ["5", "9", "4"], ["5.0", "3.0"])
    assert columns["gio_binh_luan"] == (
        "timestamp", ["17:06", "15:04", "0:0"],
        ["2024-11-29 17:06:00 +07", "2024-11-30 18:34:00 +07"],
    )  # fmt: skip
    assert sum(found.refused.values()) == 2
    assert [(row, text.split(" | ")[0]) for row, _, text in found.first_refused] == [
        (3, "1030"), (4, "689"),  # lines of the file
    ]  # fmt: skip
    assert found.doubts == ["reviews of 2024-11-29 to 2024-11-30"]


def test_days_without_a_time_and_an_old_export_are_doubted(settings, tmp_path) -> None:
    text = HEADER + "1,443,308500015,5,02/03/2001,0:00,a\n2,443,422216594,5,05/10/2024,0:00,b\n"
    doubts = " ".join(check(settings, tmp_path / "r.csv", text).doubts)
    assert "100% of the times are midnight" in doubts
    assert "1 reviews are older than twenty years" in doubts
    assert "the newest review is 57 days old" in doubts


def test_prices_in_thousands_and_unclear_ones_are_doubted(settings, tmp_path) -> None:
    rows = "1,Kem A,209,\n2,Kem B,147000,\n3,Kem C,liên hệ,\n4,Kem D,99000000,\n"
    found = check(settings, tmp_path / "p.csv", PRODUCTS + rows)
    assert (found.kind, found.accepted) == ("products", 4)
    doubts = " ".join(found.doubts)
    assert "prices from 209 to 99,000,000 dong, the median 147,000" in doubts
    assert "2 prices are below 1,000 or above 50,000,000 dong: 1 209, 4 99,000,000" in doubts


def test_lines_of_json_are_read_alike(settings, tmp_path) -> None:
    row = {"ma_san_pham": 7, "ten_san_pham": "Kem", "gia_ban": 5000, "more": 1}
    found = check(settings, tmp_path / "p.jsonl", json.dumps(row) + "\n")
    assert (found.kind, found.accepted, found.unused) == ("products", 1, ["more"])


def test_a_file_that_is_neither_is_told_what_is_missing(settings, tmp_path) -> None:
    with pytest.raises(
        SourceError, match=r"as reviews: .*ma_khach_hang(.|\n)*as products: .*ma_san_pham"
    ):
        check(settings, tmp_path / "x.csv", "a,b\n1,2\n")


def test_a_pipe_is_no_file(settings, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SourceError, match=r"pipe\.csv: expected a file"):
        preview(settings, "hasaki", tmp_path / "pipe.csv", NOW)


def test_the_command_says_it_as_a_table_or_as_json(settings, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    (tmp_path / "r.csv").write_text(REVIEWS, encoding="utf-8")
    asked = ["source", "check", str(tmp_path / "r.csv"), "--source", "hasaki"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0
    assert "Refused: 1 rows: the rating is outside 1-5" in done.stdout
    assert "Not read: id" in done.stdout
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert told["accepted"] == 2
    nameless = CliRunner().invoke(app, [*asked[:-1], ""])
    assert str(nameless.exception).startswith("there is no source '': expected one of those in")
    (tmp_path / "r.csv").write_text(HEADER + "1,443,308500015,9,29/11/2024,17:06,x\n")
    assert CliRunner().invoke(app, asked).exit_code == 1
