"""Claim: however often the job is killed, customers are forgotten as if it never had been.

    python -m benchmarks.privacy.kills [--kills 200]

A small shop goes through all its parts: refreshes, training, service, events, outcomes, reports,
exports. Then, in copies of it, four of its customers are forgotten, and the job is killed with
SIGKILL at a random moment, again and again until it comes to its end. Each time all bytes are
searched for their ids in every spelling, sessions, comments and pseudonyms; the register has to
have the proofs; and after the next night's refresh, files of the shop, the version and the model
have to be those of a job that was never killed.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerContext
from pathlib import Path

from recsys.data.versions import current_version
from recsys.ids import IdRules
from recsys.privacy import AUDIT_KEY, Register, ask_to_forget
from recsys.pseudonyms import PRIVACY_KEY, load_pseudonyms
from recsys.publishing import sha256_of
from recsys.refresh.job import run_refresh
from recsys.registry import Registry
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.storage.bundle import MANIFEST
from recsys.upkeep.forgetting import forget_customers
from tests.upkeep.byte_search import search
from tests.upkeep.marked_shop import MARKED, WORDS, comment_mark, make_shop, session_of

MOST_IN_A_ROUND = 4
GONE = (*WORDS[:3], MARKED[-1])


def asked(made: Settings, home: Path) -> Settings:
    """A copy of the shop, in which the customers asked to be forgotten."""
    shutil.copytree(made.home, home, symlinks=True)
    settings = Settings(home)
    ask_to_forget(settings, GONE, "benchmark", IdRules())
    return settings


def killed(settings: Settings, seconds: float | None, context: ForkServerContext) -> bool:
    """Run the job, and kill it after so many `seconds`, never if None; whether that was before its
    end. Raises `RuntimeError` if it fails."""
    job = context.Process(target=forget_customers, args=(settings,))
    job.start()
    job.join(seconds)
    if job.exitcode is None and job.pid is not None:
        os.kill(job.pid, signal.SIGKILL)
        job.join()
    if job.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the job ended with {job.exitcode}")
    return job.exitcode != 0


def faults(settings: Settings) -> list[str]:
    """What is not as it should be after the job has come to its end."""
    names = load_pseudonyms(settings)
    found = [
        f"{request.number} is open: {request.proof}"
        for request in Register(settings).requests()
        if request.done_at is None
    ]
    ways = (str, session_of, comment_mark, names.of)
    left = search(settings.home, [way(one) for one in GONE for way in ways])
    proofs = (PRIVACY_KEY, AUDIT_KEY)
    return found + [f"{at}: {what}" for at, what in left.items() if not at.startswith(proofs)]


def next_night(settings: Settings) -> None:
    """The refresh that comes after the job: killed between publishing a version and archiving what
    is in it, the job leaves that to be archived then."""
    end = current_version(settings).as_of + timedelta(seconds=1)
    run_refresh(settings, DataInterval(end - timedelta(days=1), end), force_full=True)


def refreshed(settings: Settings, context: ForkServerContext) -> Counter[str]:
    """The `content` after that, which happens in a process of its own."""
    night = context.Process(target=next_night, args=(settings,))
    night.start()
    night.join()
    return content(settings)


def content(settings: Settings) -> Counter[str]:
    """Hashes of all files of the shop, and of what the published version and model consist of.
    Names of archives and versions tell when they were made, and are left out."""
    registry = Registry(settings)
    best = registry.current_best()
    assert best is not None
    version, model = current_version(settings).path, registry.folder(best)
    files = [path for root in (settings.raw, version, model) for path in sorted(root.rglob("*"))]
    return Counter(
        f"{path.suffix} {sha256_of(path)}"
        for path in files
        if path.is_file() and path.name != MANIFEST
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    wanted = parser.parse_args().kills
    draw, count, rounds, bad = random.Random(1), 0, 0, list[str]()
    # Forked from a process that has imported everything, and runs no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([forget_customers.__module__, make_shop.__module__])
    # Nobody answers there: the service of another shop is none of this one's.
    os.environ["RECSYS_SERVICE_URL"] = "http://127.0.0.1:9"
    with tempfile.TemporaryDirectory() as scratch:
        made = Settings(Path(scratch) / "made")
        maker = context.Process(target=make_shop, args=(made, datetime.now(UTC)))
        maker.start()
        maker.join()
        never = asked(made, Path(scratch) / "never")
        began = time.perf_counter()
        killed(never, None, context)
        usual = time.perf_counter() - began
        bad += faults(never)
        expected = refreshed(never, context)
        while count < wanted:
            often = asked(made, Path(scratch) / "often")
            rounds += 1
            for _ in range(min(MOST_IN_A_ROUND, wanted - count)):
                if not killed(often, draw.uniform(0, usual), context):
                    break
                count += 1
            began = time.perf_counter()
            killed(often, None, context)
            usual = max(usual, time.perf_counter() - began)  # other work slows this one
            bad += faults(often)
            if refreshed(often, context) != expected:
                bad.append(f"round {rounds}: other files than those of a job never killed")
            shutil.rmtree(often.home)
    print(
        f"{count} kills in {rounds} rounds of {usual:.1f} s: "
        f"{'all customers are forgotten, all else is as it should be' if not bad else 'NOT so:'}"
    )
    print("\n".join(bad), end="\n" if bad else "")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
