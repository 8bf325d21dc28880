"""Claim: however often the job is killed, every count is the truth, and no event counts twice.

Simulated traffic, with late, repeated, doubled and strange events and a robot, comes in by pieces;
after each piece the job runs and is killed with SIGKILL at a random moment, if it is not done by
then. At the end the job runs
once to its end, and its figures must be the simulator's truth, and the bytes of a job that was
never killed.

    python -m benchmarks.outcomes.kills [--kills 50] [--lists 20000]
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from recsys import schema
from recsys.outcomes.daily import figured_days, read_totals
from recsys.outcomes.job import compute_outcomes
from recsys.schedule import DataInterval
from recsys.served_lists import SegmentWriter
from recsys.settings import REPOSITORY, Settings
from recsys.simulation import Disorder, Period, Traffic, World, invented_shop, simulate, truth_of
from recsys.simulation.files import event_table, served_lists, write_events

END = datetime(2026, 3, 16, 5, tzinfo=UTC)
DAYS = 7
LATER = timedelta(days=8)
COUNTED = ("lists", "users", "clicks", "carts", "purchases", "value")
_JOB = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from recsys.outcomes.job import compute_outcomes
from recsys.schedule import DataInterval
from recsys.settings import Settings
print("begun", flush=True)
now = datetime.fromisoformat(sys.argv[2])
compute_outcomes(Settings(Path(sys.argv[1])), DataInterval(now - timedelta(hours=1), now))
"""


def interval() -> DataInterval:
    now = END + LATER
    return DataInterval(now - timedelta(hours=1), now)


def pieces(traffic: Traffic, count: int) -> Iterator[tuple[slice, pd.DataFrame]]:
    """Lists in the order of time and events in that of their arrival, in `count` parts each."""
    events = event_table(traffic)
    lists = np.linspace(0, len(traffic.lists), count + 1).astype(int)
    rows = np.linspace(0, len(events), count + 1).astype(int)
    for number in range(count):
        part = slice(int(lists[number]), int(lists[number + 1]))
        yield part, events.iloc[rows[number] : rows[number + 1]]


def bring(settings: Settings, traffic: Traffic, part: slice, events: pd.DataFrame) -> None:
    """What the service leaves behind of a piece."""
    writer = SegmentWriter(settings)
    lists = list(served_lists(traffic, part.start, part.stop))
    with writer.turn:
        last = writer.count(len(lists))
    writer.append(last, lists)
    writer.close()
    write_events(settings, events)


def killed_run(settings: Settings, now: datetime, draw: random.Random, usual: float) -> bool:
    """Run the job of `now` and kill it in the time it usually takes; whether it was at work."""
    job = subprocess.Popen(
        [sys.executable, "-c", _JOB, str(settings.home), now.isoformat()],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "include")},
    )
    assert job.stdout is not None
    job.stdout.readline()
    time.sleep(draw.uniform(0, usual))
    job.send_signal(signal.SIGKILL)
    return job.wait() == -signal.SIGKILL


def days_of(settings: Settings) -> dict[str, bytes]:
    """All files of the figures, but what killed writers left."""
    found = {}
    for path in settings.outcomes.rglob("*"):
        name = str(path.relative_to(settings.outcomes))
        if path.is_file() and not name.startswith(".") and path.name != "ledger.json":
            found[name] = path.read_bytes()
    return {name: content for name, content in found.items() if "/." not in name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--lists", type=int, default=20_000)
    arguments = parser.parse_args()
    draw = random.Random(1)
    disorder = Disorder(late=0.1, repeated=0.2, doubled=0.3, strange=0.1, robots=1)
    zone = ZoneInfo("Asia/Ho_Chi_Minh")
    traffic = simulate(
        World(invented_shop(240, 2_000), 200, 1),
        Period(END - timedelta(days=DAYS), END, zone),
        arguments.lists,
        disorder=disorder,
        seed=1,
    )
    with tempfile.TemporaryDirectory() as scratch:
        never, often = (Settings(Path(scratch) / name) for name in ("never", "often"))
        for settings in (never, often):
            config = settings.home / "config" / "outcomes.yaml"
            config.parent.mkdir(parents=True)
            robots = ", ".join(traffic.customer_ids[-traffic.robots :])
            config.write_text(f"robots: [{robots}]\n", encoding="utf-8")
        bring(never, traffic, slice(0, len(traffic.lists)), event_table(traffic))
        began = time.perf_counter()
        compute_outcomes(never, interval())
        usual = time.perf_counter() - began
        killed = 0
        for part, events in pieces(traffic, arguments.kills):
            bring(often, traffic, part, events)
            arrived = events[schema.RECEIVED].max().to_pydatetime()
            # A piece is less work than all of it: most runs are still at it then.
            killed += killed_run(often, arrived + timedelta(minutes=1), draw, usual / 3)
        compute_outcomes(often, interval())
        truth = truth_of(traffic).totals()
        totals = [read_totals(often, day) for day in figured_days(often)]
        found = pd.DataFrame(totals).set_index("day")[list(COUNTED)]
        found = found[found["lists"] > 0]
        right = bool((found.to_numpy() == truth[list(COUNTED)].to_numpy()).all())
        if not right:
            print(truth[list(COUNTED)].reset_index(drop=True).compare(found.reset_index(drop=True)))
        same = days_of(often) == days_of(never)
        events_there = len(event_table(traffic))
        print(
            f"{len(traffic.lists):,} lists and {events_there:,} events in {arguments.kills} pieces,"
            f" {killed} runs killed: counts are {'the truth' if right else 'NOT the truth'}, bytes"
            f" {'those' if same else 'NOT those'} of a job that was never killed"
        )
        shutil.rmtree(often.home, ignore_errors=True)
    sys.exit(0 if right and same else 1)


if __name__ == "__main__":
    main()
