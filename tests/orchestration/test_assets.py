"""What the watcher of dropped files tells of, and what the events of assets say."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys.data.sample import write_sample_shop
from recsys.data.staging import waiting_files
from recsys.orchestration import assets
from recsys.orchestration.assets import DropTrigger
from recsys.refresh import run_refresh
from recsys.settings import Settings
from tests.data.shop import interval

LOOK = 0.05


@pytest.fixture
def folder(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The drop folder of a watched state root."""
    monkeypatch.setenv("RECSYS_HOME", str(settings.home))
    monkeypatch.setattr(assets, "LOOK_SECONDS", LOOK)
    folder = settings.staging / "files"
    folder.mkdir(parents=True)
    return folder


async def next_event(watch: AsyncIterator[Any], seconds: float = 5.0) -> Mapping[str, Any]:
    event = await asyncio.wait_for(anext(watch), seconds)
    return dict(event.payload)


async def stays_silent(watch: AsyncIterator[Any]) -> bool:
    waiting = asyncio.ensure_future(anext(watch))
    done, _ = await asyncio.wait({waiting}, timeout=LOOK * 12)
    waiting.cancel()
    return not done


def test_a_dropped_file_is_told_of_once(folder):
    async def watch() -> None:
        events = DropTrigger().run()
        (folder / "monday.csv").write_text("a")
        (folder / "tuesday.csv").write_text("b")
        assert await next_event(events) == {"count": 2, "files": ["monday.csv", "tuesday.csv"]}
        assert await stays_silent(events)

    asyncio.run(watch())


def test_a_file_of_the_same_name_is_another_file(folder):
    async def watch() -> None:
        events = DropTrigger().run()
        (folder / "daily.csv").write_text("monday's")
        assert await next_event(events) == {"count": 1, "files": ["daily.csv"]}
        (folder / "daily.csv").unlink()  # a refresh has taken it
        (folder / "daily.csv").write_text("tuesday's")
        assert await next_event(events) == {"count": 1, "files": ["daily.csv"]}

    asyncio.run(watch())


def test_what_is_still_being_written_is_told_of_when_it_is_complete(folder):
    (folder / "hidden.csv.part").write_text("half")
    growing = folder / "growing.csv"

    async def write() -> None:
        for number in range(20):
            growing.write_text("row\n" * number)
            os.utime(growing, ns=(number, number))
            await asyncio.sleep(LOOK / 2)

    async def watch() -> None:
        writing = asyncio.ensure_future(write())
        assert await next_event(DropTrigger().run()) == {"count": 1, "files": ["growing.csv"]}
        assert writing.done()

    asyncio.run(watch())


def test_a_folder_that_cannot_be_seen_for_a_while_does_not_end_the_watch(folder, caplog):
    async def watch() -> None:
        events = DropTrigger().run()
        folder.rmdir()
        folder.write_text("somebody put a file here")
        pending = asyncio.ensure_future(anext(events))
        await asyncio.sleep(LOOK * 4)
        folder.unlink()
        folder.mkdir()
        (folder / "late.csv").write_text("a")
        event = await asyncio.wait_for(pending, 5)
        assert event.payload["files"] == ["late.csv"]

    asyncio.run(watch())
    assert "Dropped files cannot be looked for" in caplog.text


def test_a_new_triggerer_can_make_the_watch_again_from_what_is_stored():
    path, arguments = DropTrigger().serialize()
    module, name = path.rsplit(".", 1)
    assert (getattr(__import__(module, fromlist=[name]), name), arguments) == (DropTrigger, {})


def test_a_version_is_told_of_with_its_rows_files_and_report_and_only_if_it_is_new(settings):
    shop = write_sample_shop(settings.raw / "viecomrec", reviews=600, products=60)
    header, *rows = shop.reviews_path.read_text().splitlines()
    shop.reviews_path.write_text("\n".join([header, *rows[:-50]]) + "\n")
    run_refresh(settings, interval(datetime.now(UTC)))
    (settings.staging / "files").mkdir(parents=True)
    (settings.staging / "files" / "late.csv").write_text("\n".join([header, *rows[-50:]]) + "\n")
    assert list(waiting_files(settings)) == ["late.csv"]

    summary = run_refresh(settings, interval(datetime.now(UTC)))

    assert waiting_files(settings) == {}
    assert assets.drop_facts(settings, summary) == {"count": 1, "files": ["late.csv"]}
    facts = assets.version_facts(summary)
    assert facts is not None
    assert facts["id"] == summary["version_id"]
    assert facts["files"] == ["late.csv"]
    assert facts["rows"] == summary["contents"]["interactions"]
    assert facts["link"].endswith(f"/recsys/reports/data_quality/{facts['id']}.html")
    assert (settings.home / facts["path"]).is_dir()
    (settings.staging / "files" / "later.csv").write_text(f"{header}\n{rows[0]}\n")
    again = run_refresh(settings, interval(datetime.now(UTC)))
    assert again["files_read"] == ["later.csv"]
    assert assets.version_facts(again) is None
    assert (
        assets.version_facts(run_refresh(settings, interval(datetime.now(UTC)), dry_run=True))
        is None
    )
