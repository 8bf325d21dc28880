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
