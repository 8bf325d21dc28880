"""Processes that all want one pipeline's lock, whose holders leave, are killed or hang.

    python -m benchmarks.drills.locks

Each round starts processes that enter `PipelineLock` at the same moment. Survived: exactly one
of them has it, whatever became of the holder of the round before.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

from recsys.locks import PipelineLock
from recsys.settings import Settings

ROUNDS = 60
PROCESSES = 6
JOB = "data_refresh"


def contend(home: Path, barrier: Barrier, answers: SimpleQueue) -> None:
    """Want the lock once, tell whether it was had, and keep it until told to leave."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    lock = PipelineLock(JOB, Settings(home))
    barrier.wait()
    with lock:
        answers.put((os.getpid(), lock.acquired))
        if lock.acquired:
            time.sleep(60)


def has_one_holder(home: Path, end: Callable[[int, Path], None]) -> bool:
    """Whether exactly one process of a round has the lock; `end` is what then becomes of it."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(PROCESSES), context.SimpleQueue()
    arguments = (home, barrier, answers)
    processes = [context.Process(target=contend, args=arguments) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    told = dict(answers.get() for _ in processes)
    holders = [pid for pid, acquired in told.items() if acquired]
    for holder in holders:
        end(holder, home / "logs" / "locks" / f"{JOB}.lock")
    if end is not hangs:
        for process in processes:
            process.join()
    return len(holders) == 1


def leaves(holder: int, path: Path) -> None:
    """It ends its block."""
    os.kill(holder, signal.SIGTERM)


def is_killed(holder: int, path: Path) -> None:
    """It ends without a word."""
    os.kill(holder, signal.SIGKILL)


def hangs(holder: int, path: Path) -> None:
    """A day passes, and it goes on holding what it took for the lock."""
    os.utime(path, (0, 0))


def main() -> int:
    """Print a row of docs/reliability.md for each kind; 1 if a round had not one holder."""
    survived_all = True
    for what, end in (("leaves", leaves), ("is killed", is_killed), ("hangs for a day", hangs)):
        home = Path(tempfile.mkdtemp(prefix="recsys-drill-"))
        try:
            survived = sum(has_one_holder(home, end) for _ in range(ROUNDS))
        finally:
            for process in multiprocessing.active_children():
                process.kill()
            shutil.rmtree(home)
        kind = f"{PROCESSES} processes want one lock, whose holder before them {what}"
        print(f"| {kind} | `locks` | {ROUNDS} | {survived} |")
        survived_all &= survived == ROUNDS
    return 0 if survived_all else 1


if __name__ == "__main__":
    sys.exit(main())
