"""Are customers forgotten under load: without a failed request, and without a list from a history?

    python -m benchmarks.privacy.under_load [--users 20000] [--customers 20] [--workers 2]
        [--replicas 2] [--clients 8] [--seconds 20]

A sample shop is written, refreshed and given a model; replicas of several workers serve it from one
state root. Clients ask all the while for lists of customers, one by one and in batches, and send
what they do; each goes on with another connection, so another worker, after some requests. After
some seconds the customers are forgotten one after the other, by the route of one replica or the
other; when all have asked, the job ``forget_customers`` runs beside the load, and the service
takes over what it wrote anew. An answer is from a history if it was asked for later than a second
after the request was noted and is no list of what is popular. Nothing of other customers may be
lost that the service recorded meanwhile. The reference are the answers before:
all of these customers got lists of their own.
"""

import argparse
import contextlib
import http.client
import json
import multiprocessing
import random
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.serving.harness import TOKEN, free_port, fresh_home, running
from recsys import schema
from recsys.data.event_log import read_events
from recsys.data.sample import write_sample_shop
from recsys.data.versions import current_version
from recsys.models.artifacts import load_artifact
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.served_lists import SERVED_KEY, id_text, open_lists, read_segment, sealed_lists
from recsys.settings import Settings
from recsys.training.job import select_best, train_model
from recsys.upkeep.forgetting import forget_customers

REVIEWS_OF_A_USER = 3.0
REQUESTS_OF_A_CONNECTION = 40
CONFIG = "workers: {}\ncatalogue_check_seconds: 2\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--customers", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20, help="before, and after the job")
    given = parser.parse_args()
    settings = fresh_home("forgotten", CONFIG.format(given.workers))
    users = make_shop(settings, given.users)
    random.seed(0)
    gone = random.sample(users, given.customers)
    load = Load([free_port() for _ in range(given.replicas)], gone, users)
    print(
        f"input: {given.users} customers, {given.replicas} replicas of {given.workers} workers, "
        f"{given.clients} clients"
    )
    with contextlib.ExitStack() as stack:
        for port in load.ports:
            stack.enter_context(running(["-m", "serving"], port, settings.home, core=None))
        threads = [threading.Thread(target=load.run) for _ in range(given.clients)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(given.seconds)
            for number, user in enumerate(gone):
                load.forget(user, load.ports[number % len(load.ports)])
            job_began = time.monotonic()
            done = run_job(settings)
            job_ended = time.monotonic()
            time.sleep(given.seconds)
        finally:
            load.ending.set()
            for thread in threads:
                thread.join()
    report(load, job_began, job_ended, done)
    print(f"events of others that are lost: {lost_events(settings, load)} (wanted: 0)")
    print(f"lists of others that are lost: {lost_lists(settings, load)} (wanted: 0)")


def make_shop(settings: Settings, users: int) -> list[str]:
    """A shop with a model in service; the customers whom it knows."""
    write_sample_shop(settings, reviews=int(REVIEWS_OF_A_USER * users), users=users)
    now = datetime.now(UTC)
    run_refresh(settings, DataInterval(now - timedelta(days=1), now))
    trained = train_model(settings, "item_knn", current_version(settings).version_id)
    select_best(settings, [trained])
    best = Registry(settings).current_best()
    assert best is not None
    return list(load_artifact(Registry(settings).folder(best)).user_ids)


def run_job(settings: Settings) -> dict[str, Any]:
    """In a process of its own: the clients share this one's interpreter."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(forget_customers, settings).result()


@dataclass
class Load:
    """What clients ask of the replicas at `ports`, and what they got; customers in `gone` are asked
    for as often as all `users` together. Of each answer for one of them: when it was asked for,
    whose it is, and whether it was from a history. Of the others, what has to be on record."""

    ports: list[int]
    gone: list[str]
    users: list[str]
    asked_at: dict[str, float] = field(default_factory=dict)
    ending: threading.Event = field(default_factory=threading.Event)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    answers: list[tuple[float, str, bool]] = field(default_factory=list)
    taken: list[tuple[float, str, bool]] = field(default_factory=list)
    kept_events: list[str] = field(default_factory=list)
    kept_lists: list[str] = field(default_factory=list)

    def forget(self, user: str, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("DELETE", f"/users/{user}", headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 202:
            raise RuntimeError(content)
        self.asked_at[user] = time.monotonic()

    def run(self) -> None:
        while not self.ending.is_set():
            port = random.choice(self.ports)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            for _ in range(REQUESTS_OF_A_CONNECTION):
                if self.ending.is_set():
                    break
                self._ask(connection)
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        chosen = [random.choice(random.choice((self.gone, self.users))) for _ in range(3)]
        path, body = random.choices(
            [
                ("/recommend", {"user_id": chosen[0]}),
                ("/batch_recommend", {"user_ids": chosen}),
                ("/interactions", event(chosen[0])),
            ],
            (8, 1, 1),
        )[0]
        began = time.monotonic()
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(f"{path}: {error!r}")
            connection.close()
            return
        self.latencies.append((began, time.monotonic() - began))
        if answer.status != 200:
            self.failed.append(f"{path}: {answer.status}: {content[:300]!r}")
            return
        told = json.loads(content)
        if path == "/interactions":
            self.taken.append((began, chosen[0], told["accepted"] == 1))
            if chosen[0] not in self.gone:
                self.kept_events.append(body["event_id"])
            return
        for one in told.get("results", [told]):
            if one["user_id"] in self.gone:
                own = one["fallback_method"] != "popularity"
                self.answers.append((began, one["user_id"], own))
            else:
                self.kept_lists.append(one["recommendation_id"])


def lost_events(settings: Settings, load: Load) -> int:
    now = datetime.now(UTC)
    found = read_events(settings, now - timedelta(hours=3), now + timedelta(hours=1))
    return len({*load.kept_events}.difference(found[schema.EVENT]))


def lost_lists(settings: Settings, load: Load) -> int:
    """Of segments on their way, and of days that the job has made."""
    segments = [*open_lists(settings).glob("*.lists"), *sealed_lists(settings).glob("*.lists")]
    blocks = [block for path in segments for block in read_segment(path).blocks]
    found = [one for block in blocks for one in block.id]
    for path in (settings.home / SERVED_KEY).glob("day=*/*.parquet"):
        found += pq.read_table(path, columns=["recommendation_id"])[0].to_pylist()
    return len({*load.kept_lists}.difference(map(id_text, found)))


def event(user: str) -> dict[str, str]:
    return {
        "event_id": f"{user}-{time.time_ns()}",
        "user_id": user,
        "product_id": str(random.randrange(100)),
        "kind": "view",
    }


def report(load: Load, job_began: float, job_ended: float, done: dict[str, Any]) -> None:
    def since(what: list[tuple[float, str, bool]]) -> list[tuple[float, bool]]:
        """Seconds from the request of the customer on, negative before, and what was so."""
        asked = load.asked_at
        return [(at - asked[user], so) for at, user, so in what if user in asked]

    lists, events = since(load.answers), since(load.taken)
    before = [own for seconds, own in lists if seconds < 0]
    late = [own for seconds, own in lists if seconds > 1]
    last = max((seconds for seconds, own in lists if own), default=0.0)
    kept = [so for seconds, so in events if seconds > 1]
    print(f"requests: {len(load.latencies)}, failed: {len(load.failed)} (wanted: 0)")
    for text in load.failed[:5]:
        print(f"  {text}")
    print(f"lists of these customers before: {len(before)}, of their own: {sum(before)}")
    print(f"from a second after on: {len(late)}, from a history: {sum(late)} (wanted: 0)")
    print(f"the last list from a history was asked for {last:.2f} s after the request")
    print(f"their events from a second after on: {len(kept)}, taken: {sum(kept)} (wanted: 0)")
    print(f"the job: {job_ended - job_began:.1f} s beside the load, {json.dumps(done)}")
    for name, start, end in (
        ("before", 0.0, min(load.asked_at.values())),
        ("while the job ran", job_began, job_ended),
        ("after it", job_ended, float("inf")),
    ):
        found = [1000 * spent for at, spent in load.latencies if start <= at < end]
        if found:
            p50, p99 = np.percentile(found, (50, 99))
            print(f"{name}: {len(found)} requests, p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main()
