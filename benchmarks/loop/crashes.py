"""Claim: whatever is killed, every acknowledged event counts once, clicks, carts, purchases and
value are the truth for the lists that are recorded, and lists that are lost are counted.

    python -m benchmarks.loop.crashes [--kills 200] [--job-kills 50] [--seconds 400]

Customers ask two replicas of the service, which share a bucket, for lists, and tell either of them
what they do with these: named or not, late, again, out of order, under two ids, or of lists that
nobody was given. Every second or two a worker is killed with SIGKILL, every fifth time a whole
service, and beside that the job `outcomes`, on a third machine or on that of a replica. What was
not acknowledged is sent again, to whichever replica. Then the services end, the job runs once on
each machine, and its figures are held against what the customers know, by other code.
"""

import argparse
import bisect
import contextlib
import http.client
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event as Begun
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from benchmarks.serving.harness import add_model, free_port, make_histories, wait_until_healthy
from recsys.data.staging import hand_in_segments
from recsys.models.model_types import model_class
from recsys.outcomes.attribution import Fate
from recsys.outcomes.daily import figured_days, has_events, read_day, read_happened, read_totals
from recsys.outcomes.job import compute_outcomes
from recsys.outcomes.partitions import lost_lists, read_lists, served_days
from recsys.schedule import DataInterval, load_zone
from recsys.served_lists import hand_in_lists
from recsys.settings import REPOSITORY, Settings
from recsys.storage import open_store
from tests.storage.buckets import CREDENTIALS, machine, new_bucket, s3_server

USERS, ITEMS, CUSTOMERS, WORKERS = 400, 200, 4, 2
WHOLE_EVERY = 5
ANSWERS_BEFORE_KILL = 5
THINKING_SECONDS = 0.08
LATE_SECONDS = 20.0
KINDS = ("view", "click", "click", "cart", "purchase")
COUNTED = {"click": "clicks", "cart": "carts", "purchase": "purchases"}
OLDEST = timedelta(days=3)
PATIENCE_SECONDS = 120.0
FAULTS_SHOWN = 5


@dataclass(frozen=True)
class Deed:
    """What a customer did; `time` in microseconds since 1970, texts "" where there is nothing."""

    event_id: str
    user_id: str
    session_id: str
    product_id: str
    kind: str
    time: int
    recommendation_id: str
    value: int | None

    def body(self) -> dict[str, Any]:
        said = {name: what for name, what in asdict(self).items() if what not in ("", None)}
        moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=said.pop("time"))
        return said | {"timestamp": moment.isoformat()}


@dataclass
class Known:
    """What the customers know, and what was done to the services."""

    late_seconds: float
    ports: list[int] = field(default_factory=lambda: [0, 0])
    lists: dict[uuid.UUID, tuple[str, str, list[str]]] = field(default_factory=dict)
    deeds: dict[str, Deed] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    answers: list[int] = field(default_factory=lambda: [0, 0])
    kills: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def count(self, **more: int) -> None:
        with self.turn:
            self.counts.update(more)


class Customer(threading.Thread):
    """Asks for lists, now as this user and now as that guest, and tells what became of them."""

    def __init__(self, known: Known, number: int) -> None:
        super().__init__(name=f"customer {number}")
        self._known, self._number, self._draw = known, number, random.Random(number)
        self._connections: dict[int, http.client.HTTPConnection] = {}
        self._waiting: list[tuple[float, Deed]] = []
        self._asked = self._done = 0

    def run(self) -> None:
        while not self._known.stop.is_set():
            self._look()
            self._tell()
            time.sleep(THINKING_SECONDS)
        until = time.monotonic() + PATIENCE_SECONDS
        while self._waiting and time.monotonic() < until:
            self._tell()
            time.sleep(THINKING_SECONDS)
        self._known.count(unacknowledged=len(self._waiting))

    def _look(self) -> None:
        self._asked += 1
        session = f"s-{self._number}-{self._asked // 3}"
        user = "" if self._draw.random() < 0.3 else str(self._draw.randrange(1, USERS))
        said = {"session_id": session, "user_id": user or session, "topk": 8, "placement": "home"}
        if (answer := self._ask("/recommend", said)) is None:
            return
        shown = [one["product_id"] for one in answer["recommendations"]]
        name = answer["recommendation_id"]
        self._known.lists[uuid.UUID(name)] = user or session, session, shown
        for product in self._draw.sample(shown, self._draw.choice((0, 1, 1, 2))):
            self._do(user, session, product, name)

    def _do(self, user: str, session: str, product: str, name: str) -> None:
        """Do something with a product of the list, and perhaps something strange."""
        draw, kind = self._draw, self._draw.choice(KINDS)
        self._note(user, session, product, kind, name if draw.random() < 0.6 else "")
        if draw.random() < 0.15:  # another event, which counts as happened and not as an outcome
            self._note(user, session, product, kind, name)
        if draw.random() < 0.15:
            strange = draw.choice((str(uuid.uuid4()), "no-list", "late", "product"))
            if strange == "product":
                self._note(user, session, str(422_000_000 + draw.randrange(ITEMS)), kind, name)
            elif strange == "late":
                back = draw.uniform(3600, OLDEST.total_seconds())
                self._note(user, session, product, kind, draw.choice((name, "")), back)
            else:
                self._note(user, session, product, kind, strange)

    def _note(
        self, user: str, session: str, product: str, kind: str, name: str, back: float = 0.0
    ) -> None:
        """It happens in a while, and is told a while later."""
        draw, now = self._draw, time.time()
        late = draw.uniform(0, self._known.late_seconds if draw.random() < 0.1 else 1.0)
        happens = now - back if back else now + draw.uniform(0, late)
        worth = kind == "purchase" and draw.random() < 0.9
        value = 1000 * draw.randrange(1, 900) if worth else None
        known_as = draw.choice(("both", "user", "session")) if user and not name else "both"
        self._done += 1
        deed = Deed(
            *(f"crash-{self._number}-{self._done}", user if known_as != "session" else ""),
            *(session if known_as != "user" else "", product, kind, int(happens * 1e6)),
            *(name, value),
        )
        self._waiting.append((now + late, deed))

    def _tell(self) -> None:
        """Send what is due, in any order; what is not acknowledged is due again, and some of what
        is acknowledged as well."""
        draw, now = self._draw, time.time()
        due = [deed for when, deed in self._waiting if when <= now]
        if not due:
            return
        self._waiting = [one for one in self._waiting if one[0] > now]
        draw.shuffle(due)
        answer = self._ask("/interactions", {"events": [deed.body() for deed in due]})
        if answer is None:
            self._known.count(sent_again=len(due))
            self._waiting += [(now + 0.1, deed) for deed in due]
            return
        self._known.refused.extend(one["reason"] for one in answer["rejected"])
        repeated = [deed for deed in due if draw.random() < 0.1]
        self._known.count(repeated=len(repeated))
        self._known.deeds.update({deed.event_id: deed for deed in due})
        self._waiting += [(now + draw.uniform(0, 2), deed) for deed in repeated]

    def _ask(self, path: str, body: object) -> dict[str, Any] | None:
        """The answer of one of the replicas, None if there is none."""
        number = self._draw.randrange(len(self._known.ports))
        port = self._known.ports[number]
        connection = self._connections.get(number)
        if connection is None or connection.port != port:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            self._connections[number] = connection
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            del self._connections[number]
            if not isinstance(error, ConnectionRefusedError):  # else nobody saw the request
                self._known.count(**{path: 1})
            return None
        if answer.status == 422:
            self._known.refused.append(content.decode())
        if answer.status != 200:
            return None
        self._known.answers[number] += 1
        return dict(json.loads(content))


class Replica:
    """One service, as `python -m serving` starts it."""

    def __init__(self, settings: Settings, known: Known, number: int) -> None:
        self._settings, self._known, self._number = settings, known, number
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        port = free_port()
        with (self._settings.home / "service.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                cwd=REPOSITORY,
                env=os.environ
                | {
                    "RECSYS_HOME": str(self._settings.home),
                    "RECSYS_SERVICE_PORT": str(port),
                    "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'include'}",
                    "OPENBLAS_NUM_THREADS": "1",
                },
                stdout=log,
                stderr=log,
            )
        wait_until_healthy(port, process)
        self._known.ports[self._number] = port
        return process

    def wait_for_answers(self, more: int) -> None:
        """Wait until it has given so many more answers. Raises `RuntimeError` if it does not."""
        wanted = self._known.answers[self._number] + more
        until = time.monotonic() + PATIENCE_SECONDS
        while self._known.answers[self._number] < wanted:
            if time.monotonic() > until:
                raise RuntimeError(f"the service of {self._settings.home} does not answer")
            time.sleep(0.005)

    def kill_worker(self, draw: random.Random) -> bool:
        workers = psutil.Process(self._process.pid).children()
        return bool(workers) and self._kill(draw.choice(workers))

    def kill_whole(self) -> bool:
        """Kill all of it, and start it again."""
        parent = psutil.Process(self._process.pid)
        workers = parent.children()
        self._kill(parent)
        for one in workers:
            self._kill(one)
        self._process.wait()
        self._process = self._start()
        return True

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)

    def clear(self) -> None:
        """Leave no process behind, whatever happened."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            for one in [parent, *parent.children()]:
                self._kill(one)
        self._process.wait()

    def _kill(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            self._known.kills.append(time.time())
            return True
        return False


class Jobs(threading.Thread):
    """Runs the job on one machine after the other, and kills it somewhere in its work."""

    def __init__(self, machines: list[Settings], kills: int, pause: float) -> None:
        super().__init__(name="jobs")
        self._machines, self._wanted, self._pause = machines, kills, pause
        self.killed = self.ended = self.failed = 0

    def run(self) -> None:
        context, draw = multiprocessing.get_context("forkserver"), random.Random(2)
        context.set_forkserver_preload(["recsys.outcomes.job", "benchmarks.serving.harness"])
        longest, turn = 1.0, 0
        while self.killed < self._wanted:
            begun = context.Event()
            process = context.Process(target=begin_job, args=(self._machines[turn % 3], begun))
            turn += 1
            process.start()
            begun.wait(PATIENCE_SECONDS)
            process.join(draw.uniform(0, longest))
            process.kill()
            process.join()
            self.killed += process.exitcode == -signal.SIGKILL
            self.ended += process.exitcode == 0
            self.failed += process.exitcode not in (0, -signal.SIGKILL)
            longest *= 1.2 if process.exitcode else 0.7
            time.sleep(draw.uniform(0, 2 * self._pause))


def begin_job(settings: Settings, begun: Begun) -> None:
    begun.set()
    job(settings)


def job(settings: Settings) -> None:
    """The hourly job, and before it what a service does beside its requests every minute: no
    service here lives so long."""
    hand_in(settings)
    now = datetime.now(UTC)
    compute_outcomes(settings, DataInterval(now - timedelta(hours=1), now))


def hand_in(settings: Settings) -> None:
    hand_in_segments(settings)
    hand_in_lists(settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--job-kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=400, help="of the kills, about")
    options = parser.parse_args()
    os.environ.update(CREDENTIALS)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as scratch,
        s3_server(Path(scratch) / "s3.log") as address,
    ):
        url = new_bucket(address)
        machines = [shop(Path(scratch) / name, url, address) for name in ("one", "two", "jobs")]
        known = Known(min(LATE_SECONDS, options.seconds / 4))
        jobs = disturb(machines, known, options)
        for settings in machines[:2]:
            hand_in(settings)
        for settings in machines:
            job(settings)
        faults = [f"a job failed, {jobs.failed} times"] * bool(jobs.failed)
        faults += told(machines, known, jobs, options.kills)
    print(f"took {time.monotonic() - began:.0f} s")
    print("\n".join(faults) or "every figure is the truth")
    sys.exit(1 if faults else 0)


def shop(home: Path, url: str, address: str) -> Settings:
    """A machine that shares the bucket; of its shop nobody is a robot."""
    settings = machine(home, url, address)
    limits = "max_events_of_user_per_day: 0\nmax_events_of_product_per_day: 0\n"
    (home / "config" / "serving.yaml").write_text(
        f"workers: {WORKERS}\nrequests_per_client_minute: 100000000\n{limits}"
    )
    (home / "config" / "outcomes.yaml").write_text(
        "robot_lists_per_day: 100000000\nrobot_events_per_day: 100000000\n"
    )
    return settings


def disturb(machines: list[Settings], known: Known, options: argparse.Namespace) -> Jobs:
    """Traffic and kills, until there were enough of them and all is acknowledged."""
    histories = make_histories(USERS, ITEMS)
    model = model_class("item_knn").create({}).fit(histories, ITEMS)
    artifact = add_model(machines[0], model, histories, ITEMS, "item_knn_bench")
    open_store(machines[0]).publish(artifact.relative_to(machines[0].home).as_posix())
    jobs = Jobs(machines, options.job_kills, options.seconds / 2 / max(1, options.job_kills))
    customers = [Customer(known, number) for number in range(CUSTOMERS)]
    draw, pause = random.Random(1), options.seconds / 2 / max(1, options.kills)
    with contextlib.ExitStack() as running:
        replicas = []
        for number, settings in enumerate(machines[:2]):
            replicas.append(Replica(settings, known, number))
            running.callback(replicas[-1].clear)
        with at_work(known, [*customers, jobs]):
            done = 0
            while done < options.kills:
                replica = draw.choice(replicas)
                replica.wait_for_answers(ANSWERS_BEFORE_KILL)
                time.sleep(draw.uniform(0, 2 * pause))
                is_whole = done % WHOLE_EVERY == 0
                done += replica.kill_whole() if is_whole else replica.kill_worker(draw)
                known.count(whole=is_whole)
            jobs.join()
            for replica in replicas:
                replica.wait_for_answers(ANSWERS_BEFORE_KILL)
        for replica in replicas:
            replica.end()
    return jobs


@contextlib.contextmanager
def at_work(known: Known, threads: list[threading.Thread]) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        known.stop.set()
        for thread in threads:
            thread.join()


def told(machines: list[Settings], known: Known, jobs: Jobs, kills: int) -> list[str]:
    """Print what was counted; what differs from the truth."""
    days = served_days(machines[0])
    lists = read_lists(machines[0], days).to_pandas()
    lists["id"] = [uuid.UUID(bytes=one) for one in lists["recommendation_id"]]
    lists["us"] = lists["time"].astype("int64")  # microseconds: the unit of the files
    lost = sum(lost_lists(machines[0], days).values())
    fates = find_fates(lists, known.deeds)
    outcomes = find_outcomes(known.deeds, fates)
    missing = set(known.lists) - set(lists["id"])
    counts = known.counts
    print(
        f"input: {kills} times kill -9 of a service, {counts['whole']} of them of a "
        f"whole one, {jobs.killed} of the job ({jobs.ended} ended), 2 replicas with {WORKERS} "
        f"workers, {CUSTOMERS} customers at a time"
    )
    print(
        f"lists: {len(known.lists)} answered, {len(lists)} recorded, {lost} counted as lost "
        f"({len(missing)} of them answered), {counts['/recommend']} requests without an answer"
    )
    print(
        f"events: {len(known.deeds)} acknowledged, {counts['sent_again']} times sent again for "
        f"want of an answer, {counts['repeated']} times for no reason"
    )
    by_fate = Counter(str(fate) for fate, _ in fates.values())
    print("truth: " + ", ".join(f"{count} {fate}" for fate, count in by_fate.most_common()))
    of_lost = sum(known.deeds[one].recommendation_id in set(map(str, missing)) for one in fates)
    worth = sum(known.deeds[one].value or 0 for one in outcomes.values())
    print(
        f"truth: {len(outcomes)} outcomes worth {worth:,} dong; {of_lost} events name a list that "
        "is lost"
    )
    if missing:
        # An id begins with the milliseconds in which its list was made.
        made = [(one.int >> 80) / 1000 for one in missing]
        age = max(min((at - one for at in known.kills if at >= one), default=0) for one in made)
        print(f"the oldest list that was lost: {age:.2f} s before a kill (a flush: 0.5 s)")
    faults = [f"an event was refused: {reason}" for reason in known.refused[:FAULTS_SHOWN]]
    faults += differ("events that were never acknowledged", counts["unacknowledged"], 0)
    faults += differ("lists that are there twice", len(lists) - lists["id"].nunique(), 0)
    faults += differ("lists that are not as they were answered", changed(lists, known), 0)
    beside = len(lists) + lost - len(known.lists)
    if not 0 <= beside <= counts["/recommend"] or len(missing) > lost:
        faults.append(f"lists: {beside} were recorded or lost beside those that were answered")
    for settings in machines:
        found = judged(settings, known.deeds, fates, outcomes, len(lists))
        faults += [f"{settings.home.name}: {fault}" for fault in found]
    return faults


def changed(lists: pd.DataFrame, known: Known) -> int:
    """How many of the recorded lists are not what their customer was shown."""
    rows = zip(lists["id"], lists["user_id"], lists["session_id"], lists["products"], strict=True)
    return sum(
        (user, session, list(products)) != known.lists.get(one, (user, session, list(products)))
        for one, user, session, products in rows
    )


def find_fates(
    lists: pd.DataFrame, deeds: dict[str, Deed]
) -> dict[str, tuple[Fate, uuid.UUID | None]]:
    """What becomes of each event, and of which list it is, one event after the other."""
    named: dict[str, tuple[int, set[str]]] = {}
    shown: dict[tuple[str, str, str], list[tuple[int, uuid.UUID]]] = {}
    ordered = lists.sort_values(["us", "id"])
    columns = (ordered[name] for name in ("id", "us", "user_id", "session_id", "products"))
    for one, moment, user, session, products in zip(*columns, strict=True):
        named[str(one)] = moment, set(products)
        for product in products:
            for key in (("user", user, product), ("session", session, product)):
                shown.setdefault(key, []).append((moment, one))
    return {name: find_fate(deed, named, shown) for name, deed in deeds.items()}


def find_fate(
    deed: Deed,
    named: dict[str, tuple[int, set[str]]],
    shown: dict[tuple[str, str, str], list[tuple[int, uuid.UUID]]],
) -> tuple[Fate, uuid.UUID | None]:
    if deed.recommendation_id:
        if deed.recommendation_id not in named:
            return Fate.UNKNOWN_LIST, None
        moment, products = named[deed.recommendation_id]
        if moment > deed.time:
            return Fate.BEFORE_LIST, None
        if deed.product_id not in products:
            return Fate.NOT_IN_LIST, None
        return Fate.ATTRIBUTED, uuid.UUID(deed.recommendation_id)
    found = []
    for key, who in (("user", deed.user_id), ("session", deed.session_id)):
        before = shown.get((key, who, deed.product_id), []) if who else []
        place = bisect.bisect_right(before, deed.time, key=lambda one: one[0])
        found += before[max(0, place - 1) : place]
    return (Fate.ATTRIBUTED, max(found)[1]) if found else (Fate.NO_LIST, None)


def find_outcomes(
    deeds: dict[str, Deed], fates: dict[str, tuple[Fate, uuid.UUID | None]]
) -> dict[tuple[uuid.UUID, str, str], str]:
    """The first event of each list, product and kind."""
    first: dict[tuple[uuid.UUID, str, str], str] = {}
    for name in sorted(fates, key=lambda one: (deeds[one].time, one)):
        one = fates[name][1]
        if one is not None:
            first.setdefault((one, deeds[name].product_id, deeds[name].kind), name)
    return first


def judged(
    settings: Settings,
    deeds: dict[str, Deed],
    fates: dict[str, tuple[Fate, uuid.UUID | None]],
    outcomes: dict[tuple[uuid.UUID, str, str], str],
    lists: int,
) -> list[str]:
    """What the figures of a machine have that is not the truth."""
    today = datetime.now(load_zone(settings)).date()
    days = [today - timedelta(days=back) for back in range(OLDEST.days + 3)]
    happened = pd.concat(read_happened(settings, day) for day in days if has_events(settings, day))
    faults = differ("events that count twice", int(happened["event_id"].duplicated().sum()), 0)
    ids = [None if one is None else uuid.UUID(bytes=one) for one in happened["list_id"]]
    told = zip(happened["event_id"], zip(happened["fate"], ids, strict=True), strict=True)
    faults += differ_by_key("event", dict(told), fates)
    figured = figured_days(settings)
    table = pd.concat(read_day(settings, day, "outcomes") for day in figured)
    keys = [
        (uuid.UUID(bytes=one), product, kind)
        for one, product, kind in zip(
            table["list_id"], table["product_id"], table["kind"], strict=True
        )
    ]
    faults += differ("outcomes that count twice", len(keys) - len(set(keys)), 0)
    faults += differ_by_key("outcome", dict(zip(keys, table["event_id"], strict=True)), outcomes)
    totals = [read_totals(settings, day) for day in figured]
    faults += differ("lists", sum(one["lists"] for one in totals), lists)
    for kind, name in COUNTED.items():
        faults += differ(
            name, sum(one[name] for one in totals), sum(k[2] == kind for k in outcomes)
        )
    worth = sum(deeds[name].value or 0 for name in outcomes.values())
    return faults + differ("value", sum(one["value"] for one in totals), worth)


def differ(what: str, found: float, wanted: float) -> list[str]:
    return [] if found == wanted else [f"{what}: {found}, wanted {wanted}"]


def differ_by_key(what: str, found: dict[Any, Any], wanted: dict[Any, Any]) -> list[str]:
    wrong = [one for one in found.keys() | wanted.keys() if found.get(one) != wanted.get(one)]
    return [
        f"{what} {one}: {found.get(one)}, wanted {wanted.get(one)} ({len(wrong)} such)"
        for one in wrong[:FAULTS_SHOWN]
    ]


if __name__ == "__main__":
    main()
