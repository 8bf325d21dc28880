import contextlib
import os
import sqlite3
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import sqlalchemy
import sqlalchemy.orm

from recsys.database import SAVEPOINTS, HelperDatabase, connect, transaction

PROCESSES = 6


def open_and_write(path: Path, at: float) -> None:
    time.sleep(max(0.0, at - time.time()))
    with contextlib.closing(connect(path)) as database, transaction(database):
        database.execute("CREATE TABLE IF NOT EXISTS openers (name TEXT)")
        database.execute("INSERT INTO openers VALUES ('one more')")


def test_many_processes_create_one_database_at_the_same_moment(tmp_path):
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        list(pool.map(open_and_write, [tmp_path / "warm.db"] * PROCESSES, [0.0] * PROCESSES))
        for number in range(40):
            path = tmp_path / f"{number}.db"
            at = time.time() + 0.02
            list(pool.map(open_and_write, [path] * PROCESSES, [at] * PROCESSES))
            with contextlib.closing(connect(path)) as database:
                assert database.execute("SELECT count(*) FROM openers").fetchone()[0] == PROCESSES


def test_a_database_that_can_have_no_wal_is_opened_as_it_is():
    with contextlib.closing(connect(Path(":memory:"))) as database:
        assert database.execute("PRAGMA journal_mode").fetchone()[0] == "memory"


def prepare(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    connection.execute("EXPLAIN INSERT INTO notes (text) VALUES (NULL)")


def write_note(helper: HelperDatabase, text: str) -> None:
    with helper.use() as database, transaction(database):
        database.execute("INSERT INTO notes VALUES (?)", (text,))


def notes(helper: HelperDatabase) -> list[str]:
    with helper.use() as database:
        return [row["text"] for row in database.execute("SELECT text FROM notes")]


def junk(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says" * 200)


def foreign(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (colour TEXT)")


def folder(path: Path) -> None:
    path.mkdir()
    (path / "something").touch()


@pytest.mark.parametrize("damage", [junk, foreign, folder])
def test_what_is_no_database_of_ours_is_set_aside_and_made_again(tmp_path: Path, damage):
    path = tmp_path / "helper.db"
    damage(path)
    helper = HelperDatabase(path, prepare)
    write_note(helper, "after")
    assert notes(helper) == ["after"]
    [aside] = tmp_path.glob("helper.db.damaged-*")
    helper.close()
    assert aside.is_dir() == (damage is folder)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_database_that_is_truncated_or_overwritten_in_use_is_made_again(
    tmp_path: Path, keep: int
):
    path = tmp_path / "helper.db"
    one, other = HelperDatabase(path, prepare), HelperDatabase(path, prepare)
    for number in range(200):
        write_note(one, f"{number}" * 100)
    with one.use() as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    one.close()
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    helper = HelperDatabase(path, prepare)
    for _ in range(3):
        with contextlib.suppress(sqlite3.Error):
            write_note(helper, "after")
            break
    assert notes(helper)[-1:] == ["after"]
    write_note(other, "from the other")
    assert notes(helper)[-2:] == ["after", "from the other"]


@pytest.mark.parametrize("first", [0, 3])
def test_a_database_that_is_emptied_under_all_who_use_it_is_made_again(tmp_path: Path, first: int):
    path = tmp_path / "helper.db"
    helpers = [HelperDatabase(path, prepare, timeout=1) for _ in range(3)]
    for helper in helpers:
        write_note(helper, "before")
    os.truncate(path, 0)
    newcomer = HelperDatabase(path, prepare, timeout=1)  # the others are open, and at rest
    helpers.insert(first, newcomer)
    for number, helper in enumerate(helpers):
        write_note(helper, f"{number}")
    assert all(notes(helper) == ["0", "1", "2", "3"] for helper in helpers)
    [aside] = [one for one in tmp_path.glob("*.damaged-*") if not one.name.endswith(("wal", "shm"))]
    assert aside.stat().st_size == 0


def test_all_users_of_a_damaged_database_go_on_with_one_new_one(tmp_path: Path):
    path = tmp_path / "helper.db"
    helpers = [HelperDatabase(path, prepare) for _ in range(8)]
    write_note(helpers[0], "before")
    for helper in helpers:
        notes(helper)
    for file in tmp_path.iterdir():
        file.unlink()
    junk(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda helper: write_note(helper, "after"), helpers))
    assert notes(helpers[0]) == ["after"] * 8
    assert len([p for p in tmp_path.glob("helper.db.damaged-*") if p.suffix != ".lock"]) == 1


def test_a_lock_is_no_damage(tmp_path: Path):
    path = tmp_path / "helper.db"
    helper = HelperDatabase(path, prepare, timeout=0.05)
    write_note(helper, "before")
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write_note(helper, "refused")
        other.rollback()
    write_note(helper, "after")
    assert notes(helper) == ["before", "after"]
    assert not list(tmp_path.glob("*.damaged-*"))


class Row(sqlalchemy.orm.DeclarativeBase):
    pass


class Note(Row):
    __tablename__ = "notes"
    text: sqlalchemy.orm.Mapped[str] = sqlalchemy.orm.mapped_column(primary_key=True)


def test_what_savepoints_change_is_seen_when_it_is_committed(tmp_path):
    """As Airflow creates the runs of a backfill, while its scheduler writes."""
    engine = sqlalchemy.create_engine(
        f"sqlite:///{tmp_path / 'airflow.db'}?timeout=20", connect_args=SAVEPOINTS
    )
    Row.metadata.create_all(engine)
    inside, done = threading.Event(), threading.Event()
    seen = []

    def write_meanwhile() -> None:
        inside.wait()
        with sqlalchemy.orm.Session(engine) as other:
            seen.extend(other.scalars(sqlalchemy.select(Note.text)))
            other.rollback()
            done.set()
            other.add(Note(text="the scheduler's"))
            other.commit()

    with ThreadPoolExecutor(1) as aside, sqlalchemy.orm.Session(engine) as session:
        other = aside.submit(write_meanwhile)
        for number in range(3):
            with session.begin_nested():
                session.scalars(sqlalchemy.select(Note)).all()
                if number == 1:
                    inside.set()
                    done.wait()
                session.add(Note(text=f"run {number}"))
        session.commit()
        other.result()
    assert seen == []
    with sqlalchemy.orm.Session(engine) as session:
        assert sorted(session.scalars(sqlalchemy.select(Note.text))) == [
            "run 0",
            "run 1",
            "run 2",
            "the scheduler's",
        ]
    engine.dispose()
