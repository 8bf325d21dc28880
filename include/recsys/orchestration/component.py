"""Becomes one component of the stack: ``python -m recsys.orchestration.component scheduler``.

A component that was killed with SIGKILL leaves its children behind, still holding their ports.
So before it starts, a component ends what its predecessor left. Children are found by process
group and session: Airflow overwrites the environment of its processes with their titles, so
nothing else is inherited that could mark them.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

# The API that tasks report to is a process of its own. In one process the two APIs can lock each
# other out on SQLite: the event loop waits for the write lock that a task's request holds, and
# that request waits for the event loop to commit (docs/decisions/002-two-api-processes.md).
COMMANDS = {
    "api-server": ("-m", "airflow", "api-server", "--apps", "core"),
    "execution-api": ("-m", "airflow", "api-server", "--apps", "execution"),
    "scheduler": ("-m", "airflow", "scheduler"),
    "dag-processor": ("-m", "airflow", "dag-processor"),
    "triggerer": ("-m", "airflow", "triggerer"),
    "service": ("-m", "serving"),
}
GRACE_SECONDS = 5.0


def session_processes(session: int, group: int | None = None) -> list[psutil.Process]:
    """The living processes of a session (and process group), without the caller."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if (
                process.pid != os.getpid()
                and os.getsid(process.pid) == session
                and group in (None, os.getpgid(process.pid))
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def end_processes(processes: list[psutil.Process]) -> None:
    """Ask processes to end, and kill those that have not after a grace period."""
    for process in processes:
        _signal(process, psutil.Process.terminate)
    _, stubborn = psutil.wait_procs(processes, timeout=GRACE_SECONDS)
    for process in stubborn:
        _signal(process, psutil.Process.kill)
    psutil.wait_procs(stubborn, timeout=GRACE_SECONDS)


def main(component: str) -> None:
    """Clean up after the predecessor, then replace this process by the component."""
    record = Path(os.environ["RECSYS_RUN"]) / f"{component}.group"
    if record.exists():
        end_processes(session_processes(os.getsid(0), int(record.read_text())))
    record.write_text(str(os.getpgrp()))
    if component == "execution-api":
        os.environ["AIRFLOW__API__PORT"] = os.environ["RECSYS_EXECUTION_PORT"]
    os.execv(sys.executable, [sys.executable, *COMMANDS[component]])  # noqa: S606


def _signal(process: psutil.Process, action: Callable[[psutil.Process], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        action(process)


if __name__ == "__main__":
    main(sys.argv[1])
