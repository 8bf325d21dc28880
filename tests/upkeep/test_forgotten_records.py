"""Logs, records, reports, quarantine and Airflow's own keep nothing of who is forgotten, and the
rest of what they have."""

import json
import sqlite3
from pathlib import Path

import pytest

from recsys.personal import Erased, Record, Sought, Unread
from recsys.settings import Settings
from recsys.upkeep.personal import PERSONAL, sought
from tests.upkeep.byte_search import search
from tests.upkeep.test_customers import SECRETS, add_airflow

WHO = "mộc-an"
SOUGHT = Sought(frozenset(["3", WHO]))


def forget(settings: Settings) -> dict[str, int]:
    """What went, by place; the same again finds nothing, and so do readers."""
    told = []
    for declared in PERSONAL:
        if declared.forget is not None:
            told += declared.forget(settings, SOUGHT)
            assert list(declared.forget(settings, SOUGHT)) == []
        if declared.find is not None:
            found = declared.find(settings, SOUGHT)
            assert [one for one in found if isinstance(one, Record)] == []
    assert [one for one in told if not isinstance(one, Erased)] == []
    return {one.place: one.records for one in told}


def write(settings: Settings, place: str, text: str) -> Path:
    path = settings.home / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "place",
    [
        *("logs/service/recommender.log", "logs/service/recommender.log.2", "logs/jobs.log"),
        ".airflow/logs/dag_id=x/run_id=y/task_id=z/attempt=1.log",
    ],
)
def test_a_log_gets_blanks_in_the_place_of_a_line(settings, place):
    path = write(settings, place, f"one\nuser_id=3, topk=1\nof {WHO}\nretries=3\n")
    inode = path.stat().st_ino
    assert forget(settings) == {place: 2}
    assert [line.strip() for line in path.read_text().splitlines()] == ["one", "", "", "retries=3"]
    assert path.stat().st_ino == inode


@pytest.mark.parametrize(
    "place", ["reports/health/20260101.json", "logs/state.json", "exports/a.json", "config/b.json"]
)
def test_a_document_stays_one(settings, place):
    content = {"worst": [{"user_id": 3}, {"user_id": 4}], "said": f"{WHO} failed", "n": 3}
    path = write(settings, place, json.dumps(content))
    if place.startswith("config"):  # of nobody, says its declaration
        assert forget(settings) == {}
        return
    assert forget(settings) == {place: 2}
    assert json.loads(path.read_text()) == {"worst": [{"user_id": 4}], "n": 3}


def test_rows_that_could_not_be_used_go_with_their_customers(settings):
    rows = ['"a.csv",3,"?","3.0 | p9 | 99"', '"a.csv",4,"?","4 | p3\n | 99"']
    torn = [f'"a.csv",5,"torn","x;{WHO};y"', '"a.csv",6,"torn","x;y"']
    head = '\ufeff"file","row","reason","raw"'
    place = "data/quarantine/v1.csv"
    path = write(settings, place, "\n".join([head, rows[0], torn[0], rows[1], torn[1], ""]))
    assert forget(settings) == {place: 2}
    assert path.read_text() == "\n".join([head, rows[1], torn[1], ""])


def test_events_that_are_not_plausible_go_with_their_customers(settings):
    events = [
        {"user_id": 3.0, "event_id": "a"},
        {"user_id": "4", "session_id": WHO, "event_id": "b"},
        {"user_id": f" {WHO} ", "event_id": "c"},
    ]
    place = "data/quarantine/interactions/x.jsonl"
    path = write(settings, place, "".join(f"{json.dumps(one)}\n" for one in events))
    assert forget(settings) == {place: 2}
    assert [json.loads(line)["event_id"] for line in path.read_text().splitlines()] == ["b"]


@pytest.mark.parametrize("place", ["data/quarantine/interactions", "data/staging/sealed"])
@pytest.mark.parametrize("left", ["", '{"user_id": "bình", "event_id": "x"}\n'])
def test_of_a_segment_without_sessions_there_may_be_nothing_left(settings, place, left):
    path = write(settings, f"{place}/x.jsonl", f'{{"user_id": "{WHO}", "event_id": "a"}}\n{left}')
    assert sought(settings, [WHO]).sessions == {}
    assert forget(settings) == {f"{place}/x.jsonl": 1}
    assert path.read_text() == left
    assert sought(settings, [WHO]).sessions == {}


def test_damaged_lists_of_whom_nobody_can_tell_go(settings):
    place = "data/quarantine/served/2026-01-01.x.parquet"
    write(settings, place, "PAR1 and then nothing")
    segment = write(settings, "data/quarantine/served/x.lists", "junk")
    assert forget(settings) == {place: 1, "data/quarantine/served/x.lists": 1}
    assert not segment.exists()


def test_damaged_files_of_the_shop_are_for_a_person(settings):
    path = write(settings, "data/quarantine/files/a.parquet", "PAR1 and then nothing")
    told = [
        one
        for declared in PERSONAL
        if declared.forget is not None
        for one in declared.forget(settings, SOUGHT)
    ]
    assert [(type(one), one.place) for one in told] == [(Unread, "data/quarantine/files/a.parquet")]
    assert path.exists()


def test_airflows_records_lose_texts_and_keep_their_rows_and_secrets(settings):
    settings.home.mkdir(parents=True, exist_ok=True)
    add_airflow(settings)
    database = settings.home / ".airflow" / "airflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE dag_run (id INTEGER PRIMARY KEY, run_id TEXT, conf JSON)")
        conf = json.dumps({"user_id": "3", "days": 3})
        rows = [("r1", conf), ("r2", json.dumps({"ids": [WHO, "x"], "n": 1}))]
        connection.executemany("INSERT INTO dag_run (run_id, conf) VALUES (?, ?)", rows)
        before = dump(connection)
    connection.close()
    assert forget(settings) == {".airflow/airflow.db#xcom": 1, ".airflow/airflow.db#dag_run": 2}
    with sqlite3.connect(database) as connection:
        after = dump(connection)
        confs = [row[0] for row in connection.execute("SELECT conf FROM dag_run ORDER BY id")]
    connection.close()
    assert confs == ["null", '{"ids": ["x"], "n": 1}']
    assert [one for one in after if one not in before] == [
        one for one in after if 'INTO "xcom" VALUES(1,' in one or 'dag_run" VALUES' in one
    ]
    assert len(after) == len(before)
    text = "\n".join(after)
    assert [one for one in SECRETS if one not in text] == []
    assert search(settings.home, [WHO]) == {}


def dump(connection: sqlite3.Connection) -> list[str]:
    return list(connection.iterdump())
