"""How long a browser waits for the monitor of a shop with a year of records, and what the jobs'
record of runs notices of it.

    python -m benchmarks.monitor.first_paint [--tries 10] [--home FOLDER]

The reference, measured in the same minute: an empty page of the same server, in the same browser.
Records are written by one process, first alone and then while pages are read without a pause."""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import requests
from playwright.sync_api import sync_playwright

from benchmarks.monitor.made_year import make_year, runs_in
from recsys.settings import Settings
from recsys.tracking import PipelineTracker

PAGES = ("/", "/time?days=28", "/time?days=365", "/outcomes?days=365", "/reports", "/alerts")
PORT = 8977
WRITES = 300
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    env = os.environ | {
        "RECSYS_HOME": str(settings.home),
        "RECSYS_SERVICE_URL": "http://127.0.0.1:9",
    }
    env["AIRFLOW_HOME"] = str(settings.home / "airflow")
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.monitor.server", str(PORT)], env=env
    )
    url = f"http://127.0.0.1:{PORT}/recsys"
    try:
        while server.poll() is None:
            try:
                requests.get(f"{url}/alerts", timeout=30)
                break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def paints(url: str, tries: int) -> dict[str, list[float]]:
    """Milliseconds until the first paint with content, by path, in a window of its own each."""
    found: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for page_path in ("/no-such-page", *PAGES):
            for _ in range(tries):
                page = browser.new_context().new_page()
                page.goto(url + page_path)
                while (paint := page.evaluate(_PAINT)) is None:
                    page.wait_for_timeout(20)
                found.setdefault(page_path, []).append(paint)
                page.context.close()
        browser.close()
    return found


def written(settings: Settings) -> list[float]:
    """Milliseconds of each write to the record of runs."""
    tracker, taken = PipelineTracker(settings.pipeline_db), []
    for _ in range(WRITES):
        begun = time.perf_counter()
        tracker.complete_run(tracker.start_run("load"))
        taken.append(1_000 * (time.perf_counter() - begun))
        time.sleep(0.005)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--home", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(given.home or Path(folder) / "home")
        if not settings.pipeline_db.exists():
            make_year(settings, datetime.now(UTC))
        print(f"{runs_in(settings)} runs on record, load {os.getloadavg()[0]:.1f}")
        with running(settings) as url:
            for path, taken in paints(url, given.tries).items():
                middle = statistics.median(taken)
                print(f"{path:<16} first paint {middle:5.0f} ms, worst {max(taken):5.0f} ms")
            alone, over = written(settings), threading.Event()

            def read() -> None:
                while not over.is_set():
                    requests.get(f"{url}/time?days=365", timeout=60)

            reader = threading.Thread(target=read)
            reader.start()
            beside = written(settings)
            over.set()
            reader.join()
        for name, taken in (("alone", alone), ("while pages are read", beside)):
            middle, most = (statistics.quantiles(taken, n=100)[rank] for rank in (49, 98))
            print(f"a run recorded {name}: median {middle:.2f} ms, 99% {most:.2f} ms")


if __name__ == "__main__":
    main()
