"""One bad thing does not stop every night: it is told of, and the rest goes on."""

import json
import re

import pytest

from recsys.data.staging import append_events, sealed_segments
from recsys.data.versions import current_version, list_versions
from recsys.settings import REPOSITORY
from tests.data.shop import pairs, published_rows, quarantined, refresh, row, write_shop

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
