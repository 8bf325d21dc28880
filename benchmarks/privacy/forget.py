"""How long it takes to forget a hundred of 300,000 customers at once. Bars: 5 minutes, 2 GB.

    python -m benchmarks.privacy.forget [--users 300000] [--customers 100]

A sample shop with purchases and clicks is written, refreshed, and trained on in a folder of its
own; its service has a request of every customer in its log. Then the job runs in a process of its
own. Printed are its seconds and the most memory that it had, and what it removed. The reference is
a full refresh of the same files in the same way: the job makes one, too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from recsys.data.sample import write_sample_shop
from recsys.data.staging import append_events
from recsys.data.versions import current_version
from recsys.ids import IdRules
from recsys.privacy import ask_to_forget
from recsys.refresh.job import run_refresh
from recsys.request_log import Answered, RequestLog
from recsys.schedule import DataInterval
from recsys.settings import REPOSITORY, Settings
from recsys.training.job import plan_training, select_best, train_model

REVIEWS_OF_A_USER = 1.23
AT_ONCE = 2_000  # what waits to be written is limited
SECONDS, MEGABYTES = 300.0, 2_000.0
_REFRESH = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings
end = datetime.fromisoformat(sys.argv[2])
interval = DataInterval(end - timedelta(days=1), end)
print(run_refresh(Settings(Path(sys.argv[1])), interval, force_full=True)["version_id"])
"""
_FORGET = """
import json, sys
from pathlib import Path
from recsys.settings import Settings
from recsys.upkeep.forgetting import forget_customers
print(json.dumps(forget_customers(Settings(Path(sys.argv[1])))))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--customers", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "home")
        make(settings, given.users)
        version = current_version(settings)
        users = version.interactions(["user_id"])["user_id"].drop_duplicates()
        chosen = users.sample(given.customers, random_state=0).tolist()
        measured("a full refresh", _REFRESH, str(settings.home), version.as_of.isoformat())
        version.close()
        ask_to_forget(settings, chosen, "benchmark", IdRules())
        what = f"forgetting {given.customers} of {len(users):,} customers"
        seconds, megabytes = measured(what, _FORGET, str(settings.home))
        measured("the next day, when nobody asks", _FORGET, str(settings.home))
    kept = seconds <= SECONDS and megabytes <= MEGABYTES
    print(f"bars of {SECONDS:.0f} s and {MEGABYTES:,.0f} MB: {'kept' if kept else 'BROKEN'}")
    sys.exit(0 if kept else 1)


def make(settings: Settings, users: int) -> None:
    """A shop of so many customers, and what its service has written down."""
    write_sample_shop(settings, reviews=int(REVIEWS_OF_A_USER * users), users=users)
    config = settings.home / "config" / "training.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("model_types: [als]\ntuning: {seconds: 1, trials: 1}\n", encoding="utf-8")
    now = datetime.now(UTC)
    interval = DataInterval(now - timedelta(days=1), now)
    run_refresh(settings, interval)
    version = current_version(settings)
    rows = version.interactions(["user_id", "product_id"]).drop_duplicates("user_id")
    pairs = list(rows.itertuples(index=False, name=None))
    at = (now - timedelta(hours=3)).isoformat()
    events = (
        {"event_id": f"e{number}", "user_id": user, "product_id": product, "kind": "view"}
        for number, (user, product) in enumerate(pairs)
    )
    append_events(settings, [{**event, "timestamp": at} for event in events])
    log_file = settings.logs / "service" / "recommender.log"
    log = RequestLog(settings.service_db, log_file, ZoneInfo("UTC"))
    asked = Answered(time.time(), "recommend", "", 10, 1.0, False, None, None, "als_1", 200)
    for number, (user, _) in enumerate(pairs, start=1):
        log.add(asked._replace(user_id=user))
        if number % AT_ONCE == 0:
            log.flush()
    log.close()
    run_refresh(settings, interval)
    tasks = plan_training(settings)
    select_best(settings, [train_model(settings, t["model_type"], t["version_id"]) for t in tasks])


def measured(what: str, code: str, *arguments: str) -> tuple[float, float]:
    """Run the code in a process of its own, and print what it says, the seconds that it takes and
    the most memory that it has, in megabytes; returns these two. Raises `RuntimeError` if it
    fails."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "include")}
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{what} failed with {process.returncode}")
    seconds, megabytes = time.perf_counter() - began, used.ru_maxrss / 1024
    processor = used.ru_utime + used.ru_stime
    print(f"{what}: {seconds:.1f} s, {processor:.1f} s of the processor, {megabytes:,.0f} MB")
    return seconds, megabytes


if __name__ == "__main__":
    main()
