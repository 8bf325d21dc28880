"""Lists and outcomes of customers who asked to be forgotten go, and with them what they count."""

import itertools
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys.data.personal import PERSONAL as OF_DATA
from recsys.ids import IdRules
from recsys.outcomes import personal
from recsys.outcomes.partitions import lost_lists, read_lists, served_days, take_over
from recsys.outcomes.personal import PERSONAL
from recsys.personal import Erased, Record, Sought, Unread
from recsys.privacy import ask_to_forget
from recsys.served_lists import SegmentWriter, open_lists, sealed_lists
from recsys.settings import Settings
from tests.outcomes.shop import NOON, a_list, an_event, record, send
from tests.outcomes.test_job import Replay, files, rows, run
from tests.test_served_lists import served
from tests.upkeep.byte_search import search

GONE = frozenset(["u3", "u7", "u11"])
SESSIONS = {"s14": "u3", "s21": "u7"}
SOUGHT = Sought(GONE, SESSIONS)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return kept(settings)


def kept(settings: Settings) -> Settings:
    """Lists of the replay are still there today."""
    days = (datetime.now(UTC) - NOON).days + 60
    path = settings.home / "config" / "outcomes.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"keep_served_days: {days}\n")
    return settings


def forget(settings: Settings, sought: Sought = SOUGHT) -> list[Any]:
    found = []
    for one in (*OF_DATA, *PERSONAL):
        if one.forget is not None:
            found += one.forget(settings, sought)
    return found


def is_theirs(row: dict[str, Any]) -> bool:
    return row["user_id"] in GONE or (not row["user_id"] and row["session_id"] in SESSIONS)


def without(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if not is_theirs(row)]


def test_days_are_then_those_of_a_shop_that_never_had_them(settings: Settings) -> None:
    replay = Replay(1, 2000)
    record(settings, replay.lists[::2])
    send(settings, replay.events)
    run(settings)
    record(settings, replay.lists[1::2])
    run(settings)
    told = forget(settings)
    gone = sum(one.records for one in told if "served" in one.place)
    assert gone == len(replay.lists) - len(without(replay.lists)) > 10
    other = kept(Settings(settings.home.parent / "other"))
    record(other, without(replay.lists))
    send(other, without(replay.events))
    run(other)
    assert files(settings) == files(other)
    assert rows(settings) == rows(other)
    impressions = "data/outcomes/impressions.json"
    run(settings)
    assert (settings.home / impressions).read_text() == (other.home / impressions).read_text()
    assert files(settings) == files(other)
    assert forget(settings) == []


def test_killed_after_any_step_the_next_run_completes(settings: Settings, monkeypatch) -> None:
    replay = Replay(3, 120)
    record(settings, replay.lists)
    send(settings, replay.events)
    run(settings)
    before = settings.home.with_name("before")
    settings.home.rename(before)
    results = set[str]()
    for step in itertools.count(0, 4):
        shutil.copytree(before, settings.home)
        died = dies_at(step, settings, monkeypatch)
        forget(settings)
        assert not any(personal_places(settings)), step
        results.add(str(sorted(files(settings).items())))
        shutil.rmtree(settings.home)
        if not died:
            break
    assert step > 10
    assert len(results) == 1


def dies_at(step: int, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether forgetting was killed, at the renaming of that number."""
    renamed, left = Path.replace, itertools.count(step, -1)

    def replace(path: Path, target: Any) -> Any:
        if not next(left):
            raise KeyboardInterrupt
        return renamed(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace)
        try:
            forget(settings)
        except KeyboardInterrupt:
            return True
    return False


def personal_places(settings: Settings) -> Iterable[str]:
    for one in PERSONAL:
        assert one.find is not None
        yield from (found.place for found in one.find(settings, SOUGHT) if type(found) is Record)


def test_a_day_keeps_the_names_of_segments_and_what_they_lost(settings: Settings) -> None:
    record(settings, [a_list(0, ["p1"], "u3"), a_list(1, ["p2"])], lost=5)
    [segment] = sealed_lists(settings).iterdir()
    shutil.copy(segment, settings.home / "again")
    take_over(settings)
    forget(settings)
    days = served_days(settings)
    shutil.copy(settings.home / "again", segment)
    assert take_over(settings).lists == 0
    assert read_lists(settings, days)["user_id"].to_pylist() == ["u"]
    assert lost_lists(settings, days) == dict.fromkeys(days, 5)


def test_a_file_that_comes_back_from_elsewhere_is_removed(settings: Settings) -> None:
    record(settings, [a_list(0, ["p1"], "u3"), a_list(1, ["p2"])])
    take_over(settings)
    [path] = settings.home.glob("data/served/day=*/*.parquet")
    content = path.read_bytes()
    for user in ("u3", "u"):
        forget(settings, Sought(frozenset([user])))
    path.write_bytes(content)
    assert len(read_lists(settings, served_days(settings))) == 0
    assert not path.exists()


def test_lists_of_the_forgotten_that_come_later_are_not_taken_over(settings: Settings) -> None:
    ask_to_forget(settings, ["u3"], "lan", IdRules())
    record(settings, [a_list(0, ["p1"], " u3 "), a_list(1, ["p2"]), a_list(2, ["p3"], "")], lost=1)
    taken = take_over(settings)
    assert (taken.lists, taken.lost) == (2, 1)
    assert search(settings.home / "data" / "served", ["u3"]) == {}


def test_what_a_living_writer_has_is_waited_for(settings: Settings, monkeypatch) -> None:
    monkeypatch.setattr(personal, "ROLL_SECONDS", 0.2)
    writer = SegmentWriter(settings)
    writer.append(writer.count(1), [served(user_id="u3")])
    told = forget(settings)
    assert [(type(one), one.place.split("/")[2]) for one in told] == [(Unread, "open")]
    monkeypatch.setattr(personal, "ROLL_SECONDS", 20)
    monkeypatch.setattr(personal.time, "sleep", lambda _: writer.change())
    told = forget(settings)
    assert [(type(one), one.records) for one in told] == [(Erased, 1)]
    assert search(open_lists(settings), ["u3"]) == {}
    writer.close()


def test_rows_of_days_whose_lists_are_gone_go_and_figures_stay(settings: Settings) -> None:
    record(settings, [a_list(0, ["p1"], "u3"), a_list(1, ["p2"])])
    send(settings, [an_event(0, "p1", user="u3"), an_event(1, "p2", user="u")])
    run(settings)
    (settings.home / "config" / "outcomes.yaml").unlink()
    shutil.rmtree(settings.home / "data" / "served")
    groups = {path: content for path, content in files(settings).items() if "groups" in path}
    table = rows(settings)
    told = {
        one.place.rpartition("/")[2]: one.records
        for one in forget(settings)
        if "outcomes" in one.place
    }
    assert told == {"2026-03-10.parquet": 1, "outcomes.parquet": 1, "units.parquet": 1}
    assert search(settings.outcomes, ["u3"]) == {}
    assert {path: files(settings)[path] for path in groups} == groups
    assert rows(settings) == table
    run(settings)
    assert rows(settings) == table
