"""Kill refreshes at random moments and look at what is left."""

import multiprocessing
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from recsys.config import load_config
from recsys.data.config import DataConfig
from recsys.data.retention import prune
from recsys.data.staging import append_events
from recsys.data.versions import current_version, list_versions, open_version
from recsys.refresh import ingest, publish, score_comments, workspace_of
from recsys.settings import Settings
from tests.data.shop import interval, refresh, row, write_shop

FIRST = datetime(2025, 1, 1, tzinfo=UTC)
RUN = "crashing"
DOOMED = 6  # versions that a killed pruning was about to remove
EVERY = 5  # of so many states one is refreshed to the end


class Phase(IntEnum):
    """What a process is at."""

    STARTING = 0
    REFRESH = 1  # reading and scoring
    PUBLISH = 2  # write the version, move the link, empty the inbox
    PRUNE = 3
    DONE = 4


PHASES = (Phase.REFRESH, Phase.PUBLISH, Phase.PRUNE)


@dataclass
class Tally:
    """How the attempts ended; `killed` counts those that died inside the phase they were at."""

    killed: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    finished: int = 0
    versions_checked: int = 0
    continued: int = 0


def crash_refreshes(home: Path, kills: int, seed: int, phases: tuple[Phase, ...] = PHASES) -> Tally:
    """Kill processes until each of `phases` has seen `kills` of them; check the state after each.

    A process says in shared memory what it is at, so that a kill is counted where it fell. The
    moment is drawn from the time that the phase takes.

    Raises `AssertionError` if ever a version is not whole, or the run after a crash does not end
    with what a fresh shop of the same rows would publish.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recsys.refresh.job", "tests.data.crashing"])
    rng = random.Random(seed)
    settings = Settings(home / "crashing")
    config = settings.home / "config"
    config.mkdir(parents=True)
    (config / "data.yaml").write_text("source: viecomrec\nkeep_versions: 2\n")
    rows = [row(f"u{number % 7}", number % 9, time=_time(number)) for number in range(20)]
    write_shop(settings, rows)
    refresh(settings, FIRST + timedelta(days=39))
    longest = {Phase.REFRESH: 0.4, Phase.PUBLISH: 0.05, Phase.PRUNE: 0.02}  # seconds
    staged: list[str] = []
    tally = Tally()
    attempt = 0
    while min(tally.killed[phase] for phase in phases) < kills:
        phase = min(phases, key=tally.killed.__getitem__)
        rows += [row(f"r{attempt}", attempt % 9, time=_time(attempt))]
        write_shop(settings, rows)
        staged += [row(f"s{attempt}", attempt % 9, time=_time(attempt))]
        append_events(settings, [_event(staged[-1])])
        end = FIRST + timedelta(days=40 + attempt)
        shutil.rmtree(settings.work, ignore_errors=True)
        at = context.Value("i", Phase.STARTING)
        work: Callable[..., None] = run_refresh
        if phase is Phase.PRUNE:
            add_doomed_versions(settings)
            work = run_prune
        child = context.Process(target=work, args=(settings, end, at))
        child.start()
        while child.is_alive() and at.value < phase:
            time.sleep(0.0005)
        time.sleep(rng.uniform(0, longest[phase]))
        child.kill()
        child.join()
        # A phase as long as the time to kill in it: nearly all of it is reached.
        if at.value == phase:
            tally.killed[phase] += 1
            longest[phase] *= 1.05
        else:
            tally.finished += 1
            longest[phase] *= 0.85
        tally.versions_checked += check_versions(settings)
        attempt += 1
        if attempt % EVERY == 0:
            check_next_run(settings, home / f"fresh-{attempt}", rows + staged, end)
            tally.continued += 1
    check_next_run(settings, home / "fresh", rows + staged, end)
    return tally


def run_refresh(settings: Settings, end: datetime, at: "Synchronized[int]") -> None:
    """The steps of a refresh up to `end`, as the tasks of its DAG do them."""
    work = workspace_of(settings, RUN)
    at.value = Phase.REFRESH
    ingest(settings, work, interval(end))
    score_comments(settings, work)
    at.value = Phase.PUBLISH
    publish(settings, work)
    at.value = Phase.DONE


def run_prune(settings: Settings, end: datetime, at: "Synchronized[int]") -> None:
    """Remove what need not be kept; `end` plays no part."""
    config = load_config(settings, DataConfig)
    at.value = Phase.PRUNE
    prune(settings, config)
    at.value = Phase.DONE


def add_doomed_versions(settings: Settings) -> None:
    """Copies of the published version under names that stand for older views."""
    published = current_version(settings).path
    for number in range(DOOMED):
        copy = settings.versions / f"20000101T00000{number}Z-{published.name[-15:]}"
        if not copy.exists():  # the last pruning may have been killed before it came to this one
            shutil.copytree(published, copy, symlinks=True)


def check_versions(settings: Settings) -> int:
    """Open and verify the published version and every kept one."""
    current_version(settings).verify()
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
    assert not list(settings.versions.glob(".*"))


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
