"""Kill refreshes at random moments and look at what is left."""

import multiprocessing
import random
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

from recsys.data.staging import append_events
from recsys.data.versions import VersionError, current_version, list_versions, open_version
from recsys.settings import Settings
from tests.data.shop import refresh, row, write_shop

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
LONGEST_SECONDS = 0.5
PUBLISHING_SECONDS = 0.1


@dataclass
class Tally:
    """How the attempts ended."""

    killed: int = 0
    finished: int = 0
    versions_checked: int = 0


def crash_refreshes(home: Path, times: int, seed: int) -> Tally:
    """Start `times` refreshes, kill each at a random moment, check the state after each one.

    Every other one is killed at a random moment from when it began to assemble its version, so
    that writing, publishing, archiving and pruning get their share.

    Raises `AssertionError` if ever a version is not whole, or the run after a crash does not end
    with what a fresh shop of the same rows would publish.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recsys.data.refresh", "tests.data.shop"])
    rng = random.Random(seed)
    settings = Settings(home / "crashing")
    config = settings.home / "config"
    config.mkdir(parents=True)
    (config / "data.yaml").write_text("source: viecomrec\nkeep_versions: 2\n")
    rows = [row(f"u{number % 7}", number % 9, time=_time(number)) for number in range(20)]
    staged: list[str] = []
    tally = Tally()
    for attempt in range(times):
        rows += [row(f"r{attempt}", attempt % 9, time=_time(attempt))]
        write_shop(settings, rows)
        staged += [row(f"s{attempt}", attempt % 9, time=_time(attempt))]
        append_events(settings, [_event(staged[-1])])
        end = FIRST + timedelta(days=40 + attempt)
        shutil.rmtree(settings.work, ignore_errors=True)  # so that only this run's version shows
        child = context.Process(target=refresh, args=(settings, end))
        child.start()
        if attempt % 2:
            wait_for_assembly(settings, child)
            child.join(rng.uniform(0, PUBLISHING_SECONDS))
        else:
            child.join(rng.uniform(0, LONGEST_SECONDS))
        if child.exitcode is None:
            child.kill()
            tally.killed += 1
        else:
            tally.finished += 1
        child.join()
        tally.versions_checked += check_versions(settings)
        if attempt % 5 == 4 or attempt == times - 1:
            check_next_run(settings, home / f"fresh-{attempt}", rows + staged, end)
    return tally


def wait_for_assembly(settings: Settings, child: BaseProcess) -> None:
    """Return when the refresh has begun to write a version, or has ended."""
    while child.is_alive() and not list(settings.work.glob("*/version")):
        time.sleep(0.001)


def check_versions(settings: Settings) -> int:
    """Open and verify the published version and every kept one."""
    try:
        current_version(settings).verify()
    except VersionError as error:
        assert "no data version is published" in str(error)  # noqa: PT017  (nothing yet: fine)
    versions = list_versions(settings)
    for version_id in versions:
        version = open_version(settings, version_id)
        version.verify()
        assert version.matrix().shape[1] == len(version.mappings()[1])
    return len(versions)


def check_next_run(settings: Settings, fresh_home: Path, rows: list[str], end: datetime) -> None:
    """Let a refresh finish and compare it with one of a fresh shop that has the same rows."""
    refresh(settings, end)
    fresh = Settings(fresh_home)
    write_shop(fresh, rows)
    refresh(fresh, end)
    found, expected = current_version(settings), current_version(fresh)
    assert found.interactions().equals(expected.interactions())
    assert found.stats() == expected.stats()
    assert (found.matrix() != expected.matrix()).nnz == 0
    assert not list((settings.staging / "sealed").glob("*"))
    assert len(list_versions(settings)) <= 2


def _event(text: str) -> dict[str, str]:
    user, product, rating, moment, comment = text.split(",")
    return {
        "event_id": f"event-{user}",
        "user_id": user,
        "product_id": product,
        "rating": rating,
        "timestamp": moment,
        "comment": comment,
    }


def _time(number: int) -> str:
    return (FIRST + timedelta(hours=number)).isoformat()
