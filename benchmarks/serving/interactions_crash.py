"""Claim: `kill -9` of the whole service under a stream of /interactions: everything that was
acknowledged is in the staging area, which a refresh reads, exactly once after ids are compared.

    python -m benchmarks.serving.interactions_crash [--repeats 200]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import threading
import time

import psutil
import requests

from benchmarks.serving.harness import TOKEN, free_port, fresh_home
from recsys.data.staging import open_segments, segment_lines
from recsys.settings import REPOSITORY, Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    settings = fresh_home("interactions_crash", "workers: 1\n")
    acknowledged: set[str] = set()
    sent = 0
    started = time.monotonic()
    for repeat in range(options.repeats):
        sent += crash_once(settings, repeat, acknowledged)
    staged = [
        line.split('"event_id": "', 1)[1].split('"', 1)[0]
        for segment in open_segments(settings).glob("*.jsonl")
        for line in segment_lines(segment)
    ]
    lost = acknowledged - set(staged)
    print(f"input: {options.repeats} times kill -9, {sent} events sent")
    print(f"acknowledged: {len(acknowledged)}, staged: {len(set(staged))} different events")
    print(f"acknowledged but lost: {len(lost)} (wanted 0)")
    print(f"took {time.monotonic() - started:.0f} s")
    if lost:
        raise SystemExit(1)


def crash_once(settings: Settings, repeat: int, acknowledged: set[str]) -> int:
    """Start the service, stream events into it, kill every process of it; events sent."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "serving"],
        cwd=REPOSITORY,
        env=os.environ
        | {
            "RECSYS_HOME": str(settings.home),
            "RECSYS_SERVICE_PORT": str(port),
            "RECSYS_ADMIN_TOKEN": TOKEN,
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'include'}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    counter = [0]
    stop = threading.Event()

    def stream(client: int) -> None:
        session = requests.Session()
        while not stop.is_set():
            counter[0] += 1
            event_id = f"{repeat}-{client}-{counter[0]}-{random.getrandbits(32)}"
            body = {"event_id": event_id, "user_id": client, "product_id": "p1", "rating": 5}
            try:
                answer = session.post(f"http://127.0.0.1:{port}/interactions", json=body, timeout=5)
            except requests.RequestException:
                time.sleep(0.02)
                continue
            if answer.status_code == 200:
                acknowledged.add(event_id)

    clients = [threading.Thread(target=stream, args=(number,)) for number in range(3)]
    for client in clients:
        client.start()
    before = len(acknowledged)
    while len(acknowledged) < before + 20:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.wait()
    stop.set()
    for client in clients:
        client.join()
    return counter[0]


if __name__ == "__main__":
    main()
