"""One bad thing does not stop every night: it is told of, and the rest goes on."""

import csv
import json
import os
import re
from datetime import timedelta

import pytest

from recsys.data.staging import append_events, sealed_segments
from recsys.data.versions import current_version, list_versions
from recsys.errors import SourceError
from recsys.settings import REPOSITORY, Settings
from tests.data.shop import END, pairs, published_rows, quarantined, refresh, row, write_shop

BASE = [row(f"u{number}", number % 9) for number in range(12)]


@pytest.fixture
def shop(settings):
    write_shop(settings, BASE)
    refresh(settings)
    return settings


def event(number: int) -> dict[str, str]:
    return {
        "event_id": f"e{number}",
        "user_id": f"v{number}",
        "product_id": "1",
        "rating": "5",
        "timestamp": "2025-02-01T10:00:00+07:00",
    }


OFFSETS = ["+07", "+00", "+0530", "-03:00", "Z", "z", " +07", " -0800", ""]


@pytest.mark.parametrize("formats", ["[iso]", '["%Y-%m-%d %H:%M:%S%z", iso]'])
def test_offsets_may_differ_from_row_to_row(settings, formats):
    config = settings.home / "config" / "sources"
    config.mkdir(parents=True)
    shipped = (REPOSITORY / "config" / "sources" / "viecomrec.yaml").read_text()
    given = re.sub(r"formats: .*", f"formats: {formats}", shipped)
    (config / "viecomrec.yaml").write_text(given)
    rows = [
        row(f"w{number}", time=f"2025-01-20 10:00:00{offset}")
        for number, offset in enumerate(OFFSETS)
    ]
    write_shop(settings, [*BASE, *rows])
    assert refresh(settings)["rows"]["accepted"] == len(BASE) + len(OFFSETS)
    times = published_rows(settings).set_index("user_id")["timestamp"]
    hours = [times[f"w{number}"].strftime("%d %H:%M") for number in range(len(OFFSETS))]
    expected = ["20 03:00", "20 10:00", "20 04:30", "20 13:00", "20 10:00", "20 10:00"]
    assert hours == [*expected, "20 03:00", "20 18:00", "20 03:00"]


def test_a_dropped_file_of_several_offsets_is_read(shop):
    folder = shop.staging / "files"
    folder.mkdir(parents=True)
    rows = [row("d1", time="2025-01-20 10:00:00+07"), row("d2", time="2025-01-20 10:00:00")]
    header = "user_id,product_id,rating,cmt_date,comment"
    (folder / "drop.csv").write_text("\n".join([header, *rows]) + "\n")
    assert refresh(shop)["changes"]["new"] == 2


def test_a_time_that_only_looks_like_one_costs_its_own_row(settings):
    odd = ["2025-01-20 10:00:00 UTC", "2025-01-20T25:00:00", "2025-01-20 10:00:00+99", "2025-13-01"]
    rows = [row(f"w{number}", time=time) for number, time in enumerate(odd)]
    write_shop(settings, [*BASE * 2, *BASE, *rows])
    refresh(settings)
    assert set(quarantined(settings)["reason"]) == {"the time cannot be read"}
    assert len(quarantined(settings)) == len(odd)


@pytest.mark.parametrize(
    "line",
    [b'{"user_id": "caf\xe9"}\n', b"\xff\xfe\n", b"\x00\x00\n", b"{" * 100_000 + b"\n"],
    ids=["invalid byte", "no text", "null bytes", "deep"],
)
def test_a_bad_line_of_a_segment_goes_to_quarantine_alone(shop, line):
    append_events(shop, [event(1)])
    refresh(shop, dry_run=True)
    (segment,) = (shop.staging / "events").glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(line)
    append_events(shop, [event(2)])
    assert refresh(shop)["changes"]["new"] == 2
    assert {("v1", "1", 5.0), ("v2", "1", 5.0)} <= pairs(shop)
    assert len(quarantined(shop)) == 1
    assert refresh(shop)["strategy"] == "nothing_new"


@pytest.mark.parametrize("place", ["events", "sealed"])
def test_a_folder_among_the_segments_is_set_aside(shop, place):
    folder = shop.staging / place / "123-abc.jsonl"
    (folder / "inside").mkdir(parents=True)
    append_events(shop, [event(1)])
    summary = refresh(shop)
    assert summary["changes"]["new"] == 1
    (bad,) = quarantined(shop).to_dict("records")
    assert bad["file"].endswith("123-abc.jsonl")
    assert "cannot be read" in bad["reason"]
    assert not list(sealed_segments(shop).iterdir())
    (aside,) = (shop.quarantine / "files").iterdir()
    assert aside.name.endswith("123-abc.jsonl")
    assert refresh(shop)["strategy"] == "nothing_new"


def test_a_damaged_archive_of_events_does_not_stop_the_night(shop):
    append_events(shop, [event(1)])
    refresh(shop)
    (archive,) = (shop.raw / "events" / "viecomrec").iterdir()
    archive.write_bytes(b"PAR1 junk")
    write_shop(shop, [*BASE, row("later")])
    summary = refresh(shop)
    assert (summary["strategy"], summary["changes"]["vanished"]) == ("full", 1)
    assert archive.name in "".join(quarantined(shop)["file"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff"])
@pytest.mark.parametrize("options", [{}, {"force_full": True}])
def test_a_damaged_manifest_does_not_stop_the_night(shop, content, options):
    damaged = current_version(shop).path
    (damaged / "manifest.json").write_bytes(content)
    summary = refresh(shop, **options)
    assert (summary["strategy"], summary["published"]) == ("full", True)
    assert current_version(shop).version_id == summary["version_id"] != damaged.name
    write_shop(shop, [*BASE, row("later")])
    assert refresh(shop)["strategy"] == "incremental"
    assert summary["version_id"] in list_versions(shop)


def test_a_damaged_manifest_of_an_older_version_is_passed_over(shop):
    older = current_version(shop).path
    write_shop(shop, [*BASE, row("later")])
    refresh(shop)
    (older / "manifest.json").write_bytes(b"")
    write_shop(shop, [*BASE, row("later"), row("last")])
    assert refresh(shop)["strategy"] == "incremental"
    assert json.loads((current_version(shop).path / "manifest.json").read_text())


HEADER = "user_id,product_id,rating,cmt_date,comment"
MONDAY = [row("f1", 1, 5, "2025-01-20 10:00:00", "giao nhanh"), row("f2", 2, 5)]
TUESDAY = [row("f1", 1, 1, "2025-01-20 10:00:00", "dị ứng nên sửa lại"), row("f2", 2, 5)]


def drop(settings: Settings, name: str, rows: list[str]) -> None:
    folder = settings.staging / "files"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")


def stars(settings: Settings, user: str) -> list[float]:
    rows = published_rows(settings)
    return rows.loc[rows["user_id"] == user, "rating"].tolist()


@pytest.mark.parametrize("names", [("monday.csv", "tuesday.csv"), ("z.csv", "a.csv")])
@pytest.mark.parametrize("together", [True, False])
def test_a_corrected_review_of_the_same_time_wins_by_arrival(shop, names, together):
    for number, (name, rows) in enumerate(zip(names, (MONDAY, TUESDAY), strict=True)):
        drop(shop, name, rows)
        os.utime(shop.staging / "files" / name, (1e9 + number, 1e9 + number))
        if not together:
            refresh(shop)
    refresh(shop)
    assert stars(shop, "f1") == [1]
    assert stars(shop, "f2") == [5]
    for path in (shop.raw / "dropped" / "viecomrec").iterdir():
        os.utime(path, (2e9, 2e9))  # a copy of the archive has other times
    refresh(shop, force_full=True)
    assert stars(shop, "f1") == [1]


def test_what_a_backfill_archives_has_still_arrived_last(shop):
    drop(shop, "monday.csv", MONDAY)
    refresh(shop)
    drop(shop, "tuesday.csv", TUESDAY)
    refresh(shop, END - timedelta(days=1))
    refresh(shop, force_full=True)
    assert stars(shop, "f1") == [1]


def describe(settings: Settings, **changes: str) -> None:
    """The shipped description of the source with some lines changed."""
    text = (REPOSITORY / "config" / "sources" / "viecomrec.yaml").read_text()
    for key, value in changes.items():
        text = re.sub(rf"(?m)^(\s*){key}: .*$", rf"\g<1>{key}: {value}", text, count=1)
    folder = settings.home / "config" / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "viecomrec.yaml").write_text(text)


def test_days_without_midnight_and_hours_that_come_twice_lose_no_rows(settings):
    describe(settings, timezone="America/Sao_Paulo")
    skipped = [row("s1", time="2018-11-04"), row("s2", time="2018-11-04 00:30:00")]
    twice = [row("s3", time="2018-02-17 23:30:00")]
    write_shop(settings, [*BASE, *skipped, *twice])
    assert refresh(settings)["rows"]["quarantined"] == 0
    times = published_rows(settings).set_index("user_id")["timestamp"]
    assert [str(times[user]) for user in ("s1", "s2", "s3")] == [
        "2018-11-04 03:00:00+00:00",
        "2018-11-04 03:00:00+00:00",
        "2018-02-18 01:30:00+00:00",
    ]


def daily(settings: Settings, **days: bytes) -> None:
    describe(settings, path="data/raw/viecomrec/reviews-*.csv")
    for day, content in days.items():
        (settings.raw / "viecomrec" / f"reviews-{day}.csv").write_bytes(content)


@pytest.mark.parametrize("empty", [b"", b"\n", b"\xef\xbb\xbf\r\n", f"{HEADER}\n".encode()])
def test_an_empty_file_among_daily_ones_is_said_and_passed_over(settings, empty):
    write_shop(settings, BASE)
    daily(settings, day1="\n".join([HEADER, *BASE]).encode(), day2=empty)
    summary = refresh(settings)
    assert summary["rows"]["accepted"] == len(BASE)
    said = ["reviews-day2.csv"] if len(empty) < 10 else []
    assert [path.rsplit("/", 1)[-1] for path in summary["passed_over"]] == said
    assert ("reviews-day2.csv" in summary["note"]) == bool(said)


def test_daily_files_that_are_all_empty_are_an_error(settings):
    write_shop(settings, BASE)
    daily(settings, day1=b"", day2=b"")
    with pytest.raises(SourceError, match=r"reviews-day1\.csv: the file is empty"):
        refresh(settings)


def test_the_quarantine_opens_in_a_spreadsheet(settings):
    users = ['"=HYPERLINK(""http://x"")"', "+84901", "@SUM(1)", "-2+3", "tiếng"]
    write_shop(settings, [*BASE, *BASE, *(row(user, rating=9) for user in users)])
    refresh(settings)
    (path,) = settings.quarantine.glob("*.csv")
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    with path.open(encoding="utf-8-sig", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@")]
    assert [cell[0] for cell in cells if "HYPERLINK" in cell] == ["'"]
    assert any(cell.startswith("tiếng") for cell in cells)


@pytest.mark.parametrize("folder", ["a[bc]d", "x*y?", "{a,b}"])
def test_patterns_in_folder_names_are_names(tmp_path, folder):
    settings = Settings(tmp_path / folder)
    write_shop(settings, BASE)
    daily(settings, day1="\n".join([HEADER, *BASE]).encode())
    assert refresh(settings)["rows"]["accepted"] == len(BASE)
