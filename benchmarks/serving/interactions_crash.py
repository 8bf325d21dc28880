"""Claim: `kill -9` of the whole service under a stream of /interactions: everything that was
acknowledged is in the next refresh exactly once.

    python -m benchmarks.serving.interactions_crash [--repeats 200]

Three clients send one event after the other; what is not acknowledged they send again with the
same id until it is, as docs/serving.md tells them to. Every event is of a user of its own, so that
the published interactions show each one; the rows that the refresh counted, before it keeps the
latest of each user and product, show whether one counted twice.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psutil

from benchmarks.serving.harness import TOKEN, free_port, fresh_home
from recsys.data.sample import write_sample_shop
from recsys.data.staging import open_segments, segment_lines
from recsys.data.versions import current_version
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import REPOSITORY, Settings

CLIENTS, REFRESH_EVERY = 3, 50
ACKNOWLEDGED_BEFORE_KILL = 20


@dataclass
class Stream:
    """Events on their way, and those that the service acknowledged."""

    port: int = 0
    sent: int = 0
    again: int = 0
    acknowledged: set[str] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    settings = fresh_home("interactions_crash", "max_events_of_product_per_day: 0\n")
    write_sample_shop(settings, reviews=600)
    valid_before = refresh(settings)
    stream = Stream()
    staged_twice = refreshes = counted = 0
    started = time.monotonic()
    with clients(stream):
        for repeat in range(1, options.repeats + 1):
            crash_once(settings, stream)
            if repeat == options.repeats:
                stream.stop.set()
            if repeat % REFRESH_EVERY == 0 or repeat == options.repeats:
                staged_twice += count_repeated(settings)
                counted = refresh(settings) - valid_before
                refreshes += 1
    users = current_version(settings).interactions(["user_id"])["user_id"]
    found = set(users[users.str.startswith("crash-")])
    lost = len(stream.acknowledged - found)
    doubled = counted - len(found)
    print(f"input: {options.repeats} times kill -9, {refreshes} refreshes, {CLIENTS} clients")
    print(
        f"events: {len(stream.acknowledged)} acknowledged; {stream.again} of {stream.sent} "
        f"requests were repeats, {staged_twice} events were staged more than once"
    )
    print(f"published: {len(found)} events, {len(found) / len(stream.acknowledged):.4f} of those")
    print(f"acknowledged but lost: {lost} (wanted 0)")
    print(f"counted more than once: {doubled} (wanted 0)")
    print(f"took {time.monotonic() - started:.0f} s")
    if lost or doubled:
        raise SystemExit(1)


def refresh(settings: Settings) -> int:
    """Publish everything up to now; the number of valid rows, each event id counted once."""
    end = datetime.now(UTC) + timedelta(seconds=1)
    return int(run_refresh(settings, DataInterval(end - timedelta(days=1), end))["rows"]["valid"])


def count_repeated(settings: Settings) -> int:
    """Events that stand in the segments more than once."""
    ids = [
        json.loads(line)["event_id"]
        for segment in open_segments(settings).glob("*.jsonl")
        for line in segment_lines(segment)
    ]
    return len(ids) - len(set(ids))


def crash_once(settings: Settings, stream: Stream) -> None:
    """Start the service, wait until it has acknowledged some events, kill every process of it."""
    stream.port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "serving"],
        cwd=REPOSITORY,
        env=os.environ
        | {
            "RECSYS_HOME": str(settings.home),
            "RECSYS_SERVICE_PORT": str(stream.port),
            "RECSYS_ADMIN_TOKEN": TOKEN,
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'include'}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = len(stream.acknowledged)
    while len(stream.acknowledged) < before + ACKNOWLEDGED_BEFORE_KILL:
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with status {process.returncode}")
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.1))
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def clients(stream: Stream) -> Iterator[None]:
    threads = [threading.Thread(target=send, args=(stream, n)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stream.stop.set()
        for thread in threads:
            thread.join()


def send(stream: Stream, client: int) -> None:
    """Send events one by one, each until it is acknowledged."""
    connection = None
    number = 0
    while not stream.stop.is_set():
        number += 1
        event_id = f"crash-{client}-{number}"
        body = json.dumps(
            {"event_id": event_id, "user_id": event_id, "product_id": "422000001", "rating": 5}
        )
        attempts = 0
        while not stream.stop.is_set():
            try:
                if connection is None or connection.port != stream.port:
                    connection = http.client.HTTPConnection("127.0.0.1", stream.port, timeout=5)
                connection.request(
                    "POST", "/interactions", body, {"Content-Type": "application/json"}
                )
                attempts += 1
                answer = connection.getresponse()
                answer.read()
            except ConnectionRefusedError:
                connection = None
                time.sleep(0.02)
            except (OSError, http.client.HTTPException):
                connection = None
            else:
                if answer.status == 200:
                    stream.acknowledged.add(event_id)
                    break
        stream.sent += attempts
        stream.again += max(attempts - 1, 0)


if __name__ == "__main__":
    main()
