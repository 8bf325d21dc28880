"""Progress of a run for a person who watches the terminal."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape

from recsys.orchestration.client import AirflowClient, RunProgress

MARKS = {
    "success": "[green]done[/]",
    "failed": "[red]failed[/]",
    "skipped": "[dim]skipped[/]",
    "upstream_failed": "[red]not run[/]",
    "up_for_retry": "[yellow]failed, will be tried again[/]",
}


class RunDisplay:
    """Shows a run's tasks as they end, and a spinner with what is under way meanwhile."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status(f"{job}: waiting for the scheduler")
        self._shown: dict[str, str] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._status.stop()

    def show(self, progress: RunProgress) -> None:
        """Print what has changed since the last call."""
        for task, state in progress.tasks.items():
            if state in MARKS and self._shown.get(task) != state:
                name = f"{self._job}.{escape(task)}"
                self._console.print(f"  {name}: {MARKS[state]} ({self._elapsed})")
            self._shown[task] = state
        under_way = {t: state for t, state in progress.tasks.items() if state not in MARKS}
        active = [f"{escape(task)} {state}" for task, state in under_way.items()]
        ended = len(progress.tasks) - len(active)
        self._status.update(
            f"{self._job}: {progress.state}, {ended}/{len(progress.tasks)} tasks"
            + (f", {', '.join(active[:3])}" if active else "")
        )

    @property
    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._started:.0f} s"


def follow(client: AirflowClient, job: str, run_id: str) -> dict[str, Any]:
    """Wait for a run with a display; returns the ended run as Airflow describes it."""
    with RunDisplay(job) as display:
        return client.follow(job, run_id, display.show)
