"""Becomes one component of the stack: ``python -m recsys.orchestration.component scheduler``.

A component that was killed with SIGKILL leaves its children behind, still holding their ports.
So before it starts, a component ends whatever its predecessor left, which it finds by the marks
that the supervisor's children inherit through the environment.
"""

import contextlib
import os
import sys
from collections.abc import Callable

import psutil

COMMANDS = {
    "api-server": ("-m", "airflow", "api-server"),
    "scheduler": ("-m", "airflow", "scheduler"),
    "dag-processor": ("-m", "airflow", "dag-processor"),
    "triggerer": ("-m", "airflow", "triggerer"),
    "service": ("-m", "serving"),
}
STACK_MARK = "RECSYS_STACK"
COMPONENT_MARK = "RECSYS_COMPONENT"
GRACE_SECONDS = 5.0


def marked_processes(stack: str, component: str | None = None) -> list[psutil.Process]:
    """Processes other than this one that belong to the stack (and component) by their marks."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if (
            process.pid != os.getpid()
            and environment.get(STACK_MARK) == stack
            and component in (None, environment.get(COMPONENT_MARK))
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


def _signal(process: psutil.Process, action: Callable[[psutil.Process], None]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        action(process)


def main(component: str) -> None:
    """Clean up after the predecessor, then replace this process by the component."""
    end_processes(marked_processes(os.environ[STACK_MARK], component))
    os.environ[COMPONENT_MARK] = component
    os.execv(sys.executable, [sys.executable, *COMMANDS[component]])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1])
