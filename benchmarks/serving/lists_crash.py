"""Claim: `kill -9` of workers under load, and of the job that takes their lists over: of all lists
at most the last flush is lost, the loss is counted, and no list is there twice.

    python -m benchmarks.serving.lists_crash [--repeats 200] [--job-kills 50]

Clients ask one request after the other; a worker of two is killed again and again, and every tenth
time the whole service. The job is killed at random moments while lists go on coming in.
"""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil

from benchmarks.serving.harness import (
    TOKEN,
    add_model,
    free_port,
    fresh_home,
    make_histories,
    wait_until_healthy,
)
from recsys.models.model_types import model_class
from recsys.outcomes.partitions import lost_lists, read_lists, served_days, take_over
from recsys.settings import REPOSITORY, Settings

USERS, ITEMS, CLIENTS, WORKERS = 2_000, 500, 4, 2
ANSWERS_BEFORE_KILL = 40


@dataclass
class Answers:
    """The ids of the lists that were answered, and when something was killed."""

    port: int = 0
    got: set[uuid.UUID] = field(default_factory=set)
    kills: list[float] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--job-kills", type=int, default=50)
    options = parser.parse_args()
    settings = fresh_home("lists_crash", f"workers: {WORKERS}\n")
    histories = make_histories(USERS, ITEMS)
    model = model_class("item_knn").create({}).fit(histories, ITEMS)
    add_model(settings, model, histories, ITEMS, "item_knn_bench")
    answers, chance = Answers(port=free_port()), random.Random(0)
    started, job_kills = time.monotonic(), 0
    service = start(settings, answers.port)
    with clients(answers):
        for repeat in range(1, options.repeats + 1):
            before = len(answers.got)
            while len(answers.got) < before + ANSWERS_BEFORE_KILL:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.7))
            workers = psutil.Process(service.pid).children()
            whole = repeat % 10 == 0
            kill(answers, [psutil.Process(service.pid), *workers] if whole else workers[:1])
            if whole:
                service.wait()
                service = start(settings, answers.port)
            if repeat % max(1, options.repeats // max(1, options.job_kills)) == 0:
                job_kills += take_over_killed(settings, chance.uniform(0, 0.08))
        answers.stop.set()
    service.send_signal(signal.SIGTERM)
    service.wait()
    take_over(settings)
    days = served_days(settings)
    ids = read_lists(settings, days, ["recommendation_id"])["recommendation_id"].to_pylist()
    recorded = [uuid.UUID(bytes=one) for one in ids]
    lost = sum(lost_lists(settings, days).values())
    missing = answers.got - set(recorded)
    # An id begins with the milliseconds in which its list was made.
    made = [(one.int >> 80) / 1000 for one in missing]
    longest = max(min(at - moment for at in answers.kills if at >= moment) for moment in made)
    print(
        f"input: {options.repeats} times kill -9 of the service, {job_kills} of the job, "
        f"{CLIENTS} clients"
    )
    print(f"lists: {len(answers.got)} answered, {len(recorded)} recorded, {lost} counted as lost")
    print(f"twice: {len(recorded) - len(set(recorded))} (wanted 0)")
    print(f"answered and neither recorded nor counted: {max(0, len(missing) - lost)} (wanted 0)")
    on_their_way = lost - len(missing)
    print(
        f"counted as lost and not answered: {on_their_way} (at most {CLIENTS} a kill: on their way)"
    )
    print(f"the oldest that was lost: {longest:.2f} s before the kill (a flush: 0.5 s)")
    print(f"took {time.monotonic() - started:.0f} s")
    if len(recorded) > len(set(recorded)) or not 0 <= on_their_way <= CLIENTS * options.repeats:
        raise SystemExit(1)


def start(settings: Settings, port: int) -> subprocess.Popen[bytes]:
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
    wait_until_healthy(port, process)
    return process


def kill(answers: Answers, processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
        answers.kills.append(time.time())


def take_over_killed(settings: Settings, seconds: float) -> bool:
    """Begin to take over, and be killed after so many seconds; whether it was still at it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recsys.outcomes.partitions"])
    process = context.Process(target=take_over, args=(settings,))
    process.start()
    time.sleep(seconds)
    process.kill()
    process.join()
    return process.exitcode != 0


@contextlib.contextmanager
def clients(answers: Answers) -> Iterator[None]:
    threads = [threading.Thread(target=ask, args=(answers, n)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        answers.stop.set()
        for thread in threads:
            thread.join()


def ask(answers: Answers, client: int) -> None:
    """Ask again and again, for another user each time."""
    connection, number = None, client
    while not answers.stop.is_set():
        number = (number + CLIENTS) % USERS
        try:
            connection = connection or http.client.HTTPConnection(
                "127.0.0.1", answers.port, timeout=5
            )
            body = json.dumps({"user_id": number})
            connection.request("POST", "/recommend", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            connection = None
            time.sleep(0.02)
            continue
        if answer.status == 200:
            answers.got.add(uuid.UUID(json.loads(content)["recommendation_id"]))
        time.sleep(0.002)


if __name__ == "__main__":
    main()
