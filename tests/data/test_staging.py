"""Staged events and dropped files reach a version exactly once."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from recsys.data import arrivals, staging
from recsys.data.cleaning import CleanRows, read_reviews
from recsys.data.staging import (
    append_events,
    dropped_files,
    open_segments,
    quarantine_events,
    seal_segments,
    sealed_segments,
)
from recsys.errors import InputError
from recsys.quality import report_after_publishing
from tests.data.shop import END, HEADER, pairs, quarantined, refresh, row, write_shop


def event(number: int = 1, **changes):
    return {
        "event_id": f"e{number}",
        "user_id": f"s{number}",
        "product_id": 3,
        "rating": 4,
        "timestamp": "2025-01-05T00:00:00+00:00",
        **changes,
    }


@pytest.fixture
def shop(settings):
    write_shop(settings, [row("u1", 1), row("u1", 2, time="2025-01-03"), row("u2", 1)])
    refresh(settings, END - timedelta(days=1))
    return settings


def test_a_staged_event_is_in_the_next_version_and_only_once(shop):
    append_events(shop, [event()])
    assert refresh(shop)["changes"]["new"] == 1
    assert ("s1", "3", 4.0) in pairs(shop)
    assert refresh(shop)["strategy"] == "nothing_new"
    assert refresh(shop, force_full=True)["rows"]["accepted"] == 4
    assert not list(sealed_segments(shop).iterdir())


def test_an_event_sent_twice_counts_once_with_its_first_content(shop):
    append_events(shop, [event()])
    append_events(shop, [event(rating=1, timestamp="2025-01-09T00:00:00+00:00")])
    summary = refresh(shop)
    assert (summary["rows"]["accepted"], summary["rows"]["superseded"]) == (4, 1)
    append_events(shop, [event(rating=2)])
    assert refresh(shop)["strategy"] == "nothing_new"
    assert ("s1", "3", 4.0) in pairs(shop)


def test_an_event_without_a_product_is_refused_before_anything_is_stored(shop):
    with pytest.raises(InputError, match="product_id"):
        append_events(shop, [event(1), event(2, product_id=None)])
    assert not list(open_segments(shop).glob("*"))


def test_poison_events_end_in_quarantine_and_do_not_stop_the_refresh(shop):
    append_events(shop, [event(1, rating=9), event(2, timestamp="gestern"), event(3)])
    assert refresh(shop)["changes"]["new"] == 1
    reasons = quarantined(shop)["reason"].tolist()
    assert reasons == ["the rating is outside 1-5", "the time cannot be read"]


def view(number: int = 1, **changes):
    times = {"timestamp": "2025-01-05T00:00:00+00:00"}
    return {"event_id": f"v{number}", "product_id": 3, "kind": "view", "user_id": "s1"} | (
        times | changes
    )


def test_a_signal_is_no_rating_and_is_archived_with_all_it_says(shop):
    said = {"quantity": 2.0, "value": 378000.0, "recommendation_id": "r-1", "placement": "home"}
    guest = view(2, user_id=None, session_id="g-7")
    append_events(shop, [event(1), view(1, kind="purchase", **said), guest])
    summary = refresh(shop)
    assert summary["rows"]["accepted"] == 4
    assert quarantined(shop).empty
    assert ("s1", "3", 4.0) in pairs(shop)
    (archive,) = (shop.raw / "events").glob("*/*.parquet")
    rows = pq.read_table(archive).to_pylist()
    assert [row["kind"] for row in rows] == ["rating", "purchase", "view"]
    texts = {name: str(value) for name, value in said.items()}
    assert {**rows[1], **texts, "user_id": "s1", "rating": "", "session_id": ""} == rows[1]
    assert (rows[2]["user_id"], rows[2]["session_id"], rows[2]["value"]) == ("", "g-7", "")
    assert refresh(shop, force_full=True)["rows"]["accepted"] == 4


def test_segments_and_archives_of_before_there_were_signals_are_ratings(shop):
    line = {name: str(value) for name, value in event().items()}
    old = {**line, "comment": "", "received_at": "2025-01-05T00:00:01+00:00"}
    open_segments(shop).mkdir(parents=True)
    (open_segments(shop) / "1-old.jsonl").write_text(json.dumps(old) + "\n")
    assert refresh(shop)["changes"]["new"] == 1
    (archive,) = (shop.raw / "events").glob("*/*.parquet")
    pq.write_table(pq.read_table(archive).select([*old]), archive)
    append_events(shop, [view()])
    assert refresh(shop, force_full=True)["rows"]["accepted"] == 4
    assert ("s1", "3", 4.0) in pairs(shop)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (event(rating=None), "the rating 'e1' lacks rating"),
        (event(user_id=None, session_id="g"), "the rating 'e1' lacks user_id"),
        (view(user_id=None), "the view 'v1' lacks user_id and session_id"),
        (view(product_id=""), "the view 'v1' lacks product_id"),
    ],
)
def test_an_event_that_lacks_what_its_kind_needs_is_refused(shop, sent, said):
    with pytest.raises(InputError, match=said):
        append_events(shop, [view(9), sent])
    assert not list(open_segments(shop).glob("*"))


def test_an_event_after_the_interval_waits_for_a_later_run(shop):
    append_events(shop, [event(timestamp=END.isoformat())])
    assert refresh(shop)["rows"]["later"] == 1
    assert refresh(shop, END + timedelta(days=1))["changes"]["new"] == 1


def test_a_torn_line_of_a_killed_writer_is_ignored(shop):
    append_events(shop, [event()])
    (segment,) = open_segments(shop).glob("*.jsonl")
    torn = json.dumps(event(2))[:40]
    (open_segments(shop) / "999-dead.jsonl").write_text(segment.read_text() + torn)
    assert refresh(shop)["changes"]["new"] == 1
    assert quarantined(shop).empty


def test_a_writer_goes_on_in_a_new_segment_after_sealing(shop):
    append_events(shop, [event(1)])
    seal_segments(shop)
    append_events(shop, [event(2)])
    assert len(list(open_segments(shop).glob("*.jsonl"))) == 1
    assert refresh(shop)["changes"]["new"] == 2


def test_every_acknowledged_event_survives_a_killed_writer_and_concurrent_refreshes(shop, tmp_path):
    script = """
import sys
from recsys.data.staging import append_events
from recsys.settings import load_settings
settings = load_settings(sys.argv[1])
for number in range(10**6):
    name = f"{sys.argv[2]}-{number}"
    append_events(settings, [{"event_id": name, "user_id": name, "product_id": 1, "rating": 5,
                              "timestamp": "2025-01-05T00:00:00+00:00"}])
    print(name, flush=True)
"""
    outputs = [tmp_path / f"acknowledged-{worker}" for worker in range(3)]
    writers = []
    for worker, output in enumerate(outputs):
        with output.open("w") as file:
            arguments = [sys.executable, "-c", script, str(shop.home), str(worker)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            writers.append(subprocess.Popen(arguments, stdout=file, env=environment))
    while not all(output.stat().st_size for output in outputs):
        time.sleep(0.01)
    for writer in writers:
        refresh(shop)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    refresh(shop)
    acknowledged = {name for output in outputs for name in output.read_text().split("\n")[:-1]}
    stored = [user for user, _, _ in pairs(shop) if "-" in user]
    assert acknowledged <= set(stored)
    assert len(stored) == len(set(stored))
    assert len(set(stored) - acknowledged) <= len(writers)  # written, but killed before saying so


def test_a_dropped_file_is_read_and_archived(shop):
    inbox = shop.staging / "files"
    inbox.mkdir(parents=True)
    (inbox / "more.csv").write_text("\n".join([HEADER, row("d1", 4), row("d2", 4)]) + "\n")
    (inbox / "copying.csv.part").write_text("half")
    assert refresh(shop)["changes"]["new"] == 2
    assert [path.name for path in inbox.iterdir()] == ["copying.csv.part"]
    assert refresh(shop, force_full=True)["rows"]["accepted"] == 5


def test_an_unusable_dropped_file_is_set_aside_and_the_refresh_goes_on(shop):
    inbox = shop.staging / "files"
    inbox.mkdir(parents=True)
    (inbox / "bad.parquet").write_bytes(b"PAR1 and no more")
    (inbox / "mostly.csv").write_text("\n".join([HEADER, row(rating=8), row("x")]) + "\n")
    summary = refresh(shop)
    assert summary["strategy"] == "nothing_new"
    reasons = {one["file"]: one["reason"] for one in summary["files_set_aside"]}
    assert reasons["bad.parquet"].startswith("cannot be read: ")
    assert reasons["mostly.csv"] == "the rating is outside 1-5 (rows: 1)"
    assert all((shop.home / one["place"]).is_file() for one in summary["files_set_aside"])
    report_after_publishing(shop, summary)
    log = (shop.logs / "service" / "alerts.log").read_text(encoding="utf-8")
    assert log.count("WARNING | alerting | dropped_file_set_aside triggered: ") == 2
    assert not list(inbox.iterdir())
    assert len(list((shop.quarantine / "files").iterdir())) == 2
    assert quarantined(shop)["row"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "name", [f"{'ă' * 121}.csv.gz", f"{'x' * 245}.csv", f"{'x' * 200}.2025-01-01-all-of-it.gz"]
)
def test_a_dropped_file_may_have_the_longest_name(shop, name):
    content = "\n".join([HEADER, row("d1", 4)]).encode()
    drop(shop, name, gzip.compress(content) if name.endswith("gz") else content)
    assert refresh(shop)["changes"]["new"] == 1
    assert refresh(shop, force_full=True)["rows"]["accepted"] == 4


def test_a_dropped_file_that_is_taken_away_meanwhile_is_passed_over(shop, monkeypatch):
    drop(shop, "a.csv", "\n".join([HEADER, row("d1", 4)]).encode())
    other = drop(shop, "b.csv", "\n".join([HEADER, row("d2", 4)]).encode())

    def read(path: Path, *others: Any) -> CleanRows:
        if path.name == "a.csv":
            other.unlink()
        return read_reviews(path, *others)

    monkeypatch.setattr(arrivals, "read_reviews", read)
    assert refresh(shop)["changes"]["new"] == 1


def test_what_a_dropped_link_leads_to_is_archived_and_stays_as_it_is(shop):
    inbox, export = shop.staging / "files", shop.staging / "today.csv"
    inbox.mkdir(parents=True)
    (inbox / "today.csv").symlink_to("../today.csv")
    export.write_text("\n".join([HEADER, row("d1", 4)]) + "\n", encoding="utf-8")
    os.utime(export, (10**9, 10**9))
    assert refresh(shop)["changes"]["new"] == 1
    assert export.stat().st_mtime == 10**9
    export.unlink()
    assert refresh(shop, force_full=True)["rows"]["accepted"] == 4


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_dropped_file_may_have_a_name_that_cannot_be_written_down(shop, dry_run):
    for number, odd in enumerate((b"\xe1.csv", b"\xe0.csv", b"a\nb.csv", b"a\\b.csv")):
        rows = [row(f"d{number}", 4), *([row(rating=9)] if number > 1 else [])]
        drop(shop, os.fsdecode(odd), "\n".join([HEADER, *rows]).encode())
    summary = refresh(shop, force_full=True, dry_run=dry_run)
    assert dry_run or (summary["changes"]["new"], len(summary["files_set_aside"])) == (2, 2)
    assert dry_run or not dropped_files(shop.staging / "files")


def test_a_dropped_file_of_somebody_else_is_archived(shop, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    drop(shop, "theirs.csv", "\n".join([HEADER, row("d1", 4)]).encode())
    monkeypatch.setattr(os, "utime", refuse)
    assert refresh(shop)["changes"]["new"] == 1
    assert not dropped_files(shop.staging / "files")


def test_a_file_that_is_set_aside_is_kept_however_old_it_is(shop):
    os.utime(drop(shop, "bad.parquet", b"PAR1 and no more"), (0, 0))
    refresh(shop)
    assert len(list((shop.quarantine / "files").iterdir())) == 1


def test_a_folder_of_dropped_files_that_cannot_be_read_is_an_error(settings):
    settings.staging.mkdir(parents=True)
    (settings.staging / "files").symlink_to(settings.staging / "files")
    with pytest.raises(OSError, match="files"):
        dropped_files(settings.staging / "files")


def test_a_segment_whose_file_is_gone_is_followed_by_another(settings):
    quarantine_events(settings, [event(1)])
    for path in (settings.quarantine / "interactions").iterdir():
        path.unlink()
    quarantine_events(settings, [event(1)])
    assert [len(lines) for lines in quarantined_lines(settings)] == [1]


def test_a_segment_that_another_process_seals_meanwhile_is_left_to_it(settings, monkeypatch):
    def seal_first(descriptor: int, kind: int) -> None:
        for segment in open_segments(settings).iterdir():
            segment.rename(sealed_segments(settings) / segment.name)

    append_events(settings, [event()])
    monkeypatch.setattr(staging.fcntl, "flock", seal_first)
    seal_segments(settings)
    assert len(list(sealed_segments(settings).iterdir())) == 1


def drop(settings, name: str, content: bytes) -> Path:
    path = settings.staging / "files" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def quarantined_lines(settings) -> list[list[str]]:
    folder = settings.quarantine / "interactions"
    return sorted(path.read_text().splitlines() for path in folder.iterdir())


def test_an_implausible_event_that_is_sent_again_is_kept_once(settings):
    quarantine_events(settings, [event(1), event(1), event(2)])
    quarantine_events(settings, [event(1, timestamp="2025-01-06T00:00:00+00:00"), event(3)])
    (lines,) = quarantined_lines(settings)
    assert [json.loads(line)["event_id"] for line in lines] == ["e1", "e2", "e3"]


@pytest.mark.parametrize("limit", ["QUARANTINE_BYTES", "QUARANTINE_SECONDS"])
def test_a_segment_of_implausible_events_ends(settings, monkeypatch, limit):
    quarantine_events(settings, [event(1)])
    monkeypatch.setattr(staging, limit, 0)
    quarantine_events(settings, [event(1)])
    assert [len(lines) for lines in quarantined_lines(settings)] == [1, 1]
