import contextlib
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from recsys.database import connect, transaction

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
