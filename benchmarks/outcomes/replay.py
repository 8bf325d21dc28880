"""Claim: a day of 1,000,000 lists and 100,000 events takes at most 60 s and 2 GB, and is the truth.

Writes a day's lists of ten products and events whose lists are known (half of them name theirs, the
others are found by their user), runs `compute_outcomes` in a process of its own, and compares every
count and the value with the truth. Its reference, measured in the same run, is plain pandas in a
process of its own: read the same lists, put their products below each other, and count them by
placement and model. Then a month of such days is reported: at most 10 s. With ``--hour`` an
ordinary run follows: seven earlier days have as many lists, and 1,000 events came that belong to
lists of all eight, so that each of these is made again: at most 120 s of the processor, for which
the job has 15 minutes.

    python -m benchmarks.outcomes.replay [--lists 1000000] [--events 100000] [--days 28] [--hour]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import schema
from recsys.data.staging import write_past_events
from recsys.outcomes.partitions import PRODUCTS, SCHEMA, TIME, read_lists
from recsys.settings import REPOSITORY, Settings

DAY = date(2026, 3, 10)
MIDNIGHT = datetime(2026, 3, 9, 17, tzinfo=UTC)
USERS, CATALOGUE, LENGTH = 300_000, 2_244, 10
KINDS = {"click": "clicks", "cart": "carts", "purchase": "purchases"}
LIMIT_SECONDS, LIMIT_MB, LIMIT_PAGE_SECONDS, LIMIT_HOUR_SECONDS = 60.0, 2048, 10.0, 120.0
EARLIER, IN_AN_HOUR = 7, 1_000

_IN_A_PROCESS = """
import json, resource, sys, time
began = time.perf_counter()
{work}
seconds = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_SELF)
processor = used.ru_utime + used.ru_stime
print(json.dumps([seconds, processor, used.ru_maxrss / 1024, result]))
"""
_JOB = """
from datetime import datetime, timedelta
from pathlib import Path
from recsys.outcomes.job import compute_outcomes
from recsys.schedule import DataInterval
from recsys.settings import Settings
end = datetime.fromisoformat(sys.argv[2])
interval = DataInterval(end - timedelta(hours=1), end)
result = compute_outcomes(Settings(Path(sys.argv[1])), interval)
"""
_PANDAS = """
import pandas as pd
lists = pd.read_parquet(sys.argv[1] + "/data/served/day=2026-03-10")
shown = lists[["placement", "model_id", "products"]].explode("products")
result = len(shown.groupby(["placement", "model_id", "products"]).size())
"""
_PAGE = """
from datetime import date
from pathlib import Path
from recsys.outcomes.report import write_outcome_report
from recsys.settings import Settings
result = write_outcome_report(Settings(Path(sys.argv[1])), date.fromisoformat(sys.argv[2]))
"""


def write_lists(
    settings: Settings, count: int, draw: np.random.Generator, days_before: int = 0
) -> pa.Table:
    """A day of lists, in its partition."""
    moment = np.sort(draw.integers(0, 86_400_000_000 - 10_000_000, count))
    before = timedelta(days=days_before)
    time_us = moment + int((MIDNIGHT - before).timestamp() * 1e6)
    high = ((time_us // 1000) << 16 | 7 << 12).astype(np.uint64)
    low = draw.integers(0, 2**62, count).astype(np.uint64) | np.uint64(1 << 63)
    raw = np.column_stack([high, low]).astype(">u8").tobytes()
    first = draw.integers(0, CATALOGUE, (count, 1))
    products = pa.array([f"{100_000 + number}" for number in range(CATALOGUE)])
    places = (first + 7 * np.arange(LENGTH)) % CATALOGUE
    users = pa.array([f"khach-{number}" for number in range(USERS)])

    def some(*values: str) -> pa.Array:
        return pa.array(values).take(pa.array(draw.integers(0, len(values), count)))

    columns: dict[str, Any] = {
        schema.RECOMMENDATION: pa.Array.from_buffers(
            pa.binary(16), count, [None, pa.py_buffer(raw)]
        ),
        TIME: pa.array(time_us).cast(pa.timestamp("us", "UTC")),
        schema.USER: users.take(pa.array(draw.integers(0, USERS, count))),
        schema.SESSION: some(""),
        schema.PLACEMENT: some("home", "product", "cart"),
        "endpoint": some("recommend", "similar_items"),
        "model_id": some("als_20260301", "hybrid_20260308"),
        "fallback_method": some("", "", "", "popularity"),
        "experiment": some("", "", "", "holdout"),
        "variant": some(""),
        PRODUCTS: pa.ListArray.from_arrays(
            pa.array(np.arange(0, count * LENGTH + 1, LENGTH), pa.int32()),
            products.take(pa.array(places.ravel())),
        ),
        "sources": some("m" * LENGTH, "mmmmmmcccp", "mmmmmmmmme"),
        "propensities": pa.array([[]] * 1, pa.list_(pa.float32())).take(
            pa.array(np.zeros(count, dtype=np.int64))
        ),
    }
    table = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    folder = settings.home / "data" / "served" / f"day={DAY - before}"
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, count, 50_000)):
        pq.write_table(table.slice(start, 50_000), folder / f"{number:03}.parquet")
    return table


def write_events(
    settings: Settings,
    lists: pa.Table,
    count: int,
    draw: np.random.Generator,
    at: datetime | None = None,
) -> dict[str, int]:
    """Events of some lists, a moment after them or `at` a time; returns the true counts."""
    rows = draw.choice(len(lists), count, replace=False)
    chosen = lists.take(pa.array(rows))
    kinds = draw.choice([*KINDS], count, p=[0.8, 0.13, 0.07])
    place, value = draw.integers(0, LENGTH, count), draw.integers(50, 900, count) * 1000
    truth = {name: int((kinds == kind).sum()) for kind, name in KINDS.items()}
    truth |= {"lists": len(lists), "value": int(value[kinds == "purchase"].sum())}
    ids, users = (chosen[name].to_pylist() for name in (schema.RECOMMENDATION, schema.USER))
    products, times = chosen[PRODUCTS].to_pylist(), chosen[TIME].to_pylist()
    events = []
    for number in range(count):
        when = (at or times[number] + timedelta(milliseconds=1)).isoformat()
        event = {
            schema.EVENT: f"e{number}" if at is None else f"hour-{number}",
            schema.USER: users[number],
            schema.PRODUCT: products[number][place[number]],
            schema.KIND: str(kinds[number]),
            schema.TIMESTAMP: when,
            schema.RECEIVED: when,
            schema.VALUE: int(value[number]),
        }
        if number % 2:
            event[schema.RECOMMENDATION] = str(uuid.UUID(bytes=ids[number]))
        events.append(event)
    write_past_events(settings, events)
    return truth


def measured(work: str, *arguments: str) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and the peak of memory in MB, of `work` in a
    process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _IN_A_PROCESS.format(work=work), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "include")},
    )
    seconds, processor, peak, _ = json.loads(done.stdout.splitlines()[-1])
    return seconds, processor, peak


def an_hour(settings: Settings, lists: int, draw: np.random.Generator) -> float:
    """Prints what a run takes whose events reopen eight days of `lists` lists; its seconds of the
    processor."""
    home = str(settings.home)
    earlier = range(1, EARLIER + 1)
    some = [write_lists(settings, lists, draw, day).slice(0, IN_AN_HOUR) for day in earlier]
    some.append(read_lists(settings, [DAY]).slice(0, IN_AN_HOUR))
    measured(_JOB, home, "2026-03-10T23:00:00+07:00")  # all is known by then
    at = MIDNIGHT + timedelta(hours=23)
    write_events(settings, pa.concat_tables(some), IN_AN_HOUR, draw, at)
    seconds, processor, peak = measured(_JOB, home, "2026-03-11T00:00:00+07:00")
    print(
        f"{IN_AN_HOUR:,} events that reopen {EARLIER + 1} days of {lists:,} lists: {seconds:.1f} s "
        f"({processor:.1f} of the processor), {peak:,.0f} MB (at most {LIMIT_HOUR_SECONDS:.0f})"
    )
    return processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--hour", action="store_true", help="measure an ordinary run as well")
    arguments = parser.parse_args()
    draw = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings(Path(scratch))
        began = time.perf_counter()
        lists = write_lists(settings, arguments.lists, draw)
        truth = write_events(settings, lists, arguments.events, draw)
        del lists
        spent = time.perf_counter() - began
        print(f"{arguments.lists:,} lists and {arguments.events:,} events in {spent:.0f} s")
        seconds, processor, peak = measured(_JOB, scratch, "2026-03-10T23:00:00+07:00")
        folder = settings.outcomes / f"day={DAY}"
        totals = json.loads((folder / "totals.json").read_text(encoding="utf-8"))
        found = {name: int(totals[name]) for name in truth}
        right = "the truth" if found == truth else f"NOT the truth {truth}"
        print(f"counted {found}: {right}")
        plain, plain_processor, plain_peak = measured(_PANDAS, scratch)
        print(
            f"outcomes {seconds:.1f} s ({processor:.1f} of the processor), {peak:,.0f} MB "
            f"(at most {LIMIT_SECONDS:.0f} s, {LIMIT_MB:,} MB); plain pandas {plain:.1f} s "
            f"({plain_processor:.1f}), {plain_peak:,.0f} MB: {processor / plain_processor:.1f} "
            f"times its work, {peak / plain_peak:.2f} of its memory"
        )
        last = DAY + timedelta(days=arguments.days - 1)
        for number in range(1, arguments.days):
            shutil.copytree(folder, settings.outcomes / f"day={DAY + timedelta(days=number)}")
        page, page_processor, page_peak = measured(_PAGE, scratch, str(last))
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(
            f"page of {arguments.days} days {page:.1f} s ({page_processor:.1f}), "
            f"{page_peak:,.0f} MB (at most {LIMIT_PAGE_SECONDS:.0f} s); a day's files have "
            f"{size / 1e6:.1f} MB"
        )
        hour = an_hour(settings, arguments.lists, draw) if arguments.hour else 0.0
    slow = seconds > LIMIT_SECONDS or peak > LIMIT_MB or page > LIMIT_PAGE_SECONDS
    slow = slow or hour > LIMIT_HOUR_SECONDS
    sys.exit(1 if found != truth or slow else 0)


if __name__ == "__main__":
    main()
