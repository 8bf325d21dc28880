"""How long it takes to tell a hundred of 300,000 customers what is kept of them.

    python -m benchmarks.privacy.export [--users 300000] [--customers 100]

A sample shop is written and refreshed once in a folder of its own; then the customers are exported
together, and the first of them alone. Printed are seconds, seconds of the processor and, of the
whole process, the most memory. The reference is reading the interactions of the version, which any
search has to do.
"""

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from recsys.data.sample import write_sample_shop
from recsys.data.versions import current_version
from recsys.refresh.job import run_refresh
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.upkeep.customers import export_customers

REVIEWS_OF_A_USER = 1.23


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--customers", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder) / "home")
        reviews = int(REVIEWS_OF_A_USER * given.users)
        write_sample_shop(settings, reviews=reviews, users=given.users)
        now = datetime.now(UTC)
        run_refresh(settings, DataInterval(now - timedelta(days=1), now))
        version = current_version(settings)
        users = version.interactions(["user_id"])["user_id"].drop_duplicates()
        chosen = users.sample(given.customers, random_state=0).tolist()
        answers = Path(folder) / "answers"
        answers.mkdir()

        def export(ids: list[str], to: Path | None) -> None:
            export_customers(settings, ids, to, asked_by="benchmark", to=io.StringIO())

        timed("reading the interactions", lambda: version.interactions())
        timed(f"exporting {len(chosen)} customers", lambda: export(chosen, answers))
        timed("exporting one", lambda: export(chosen[:1], None))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"most memory, the refresh included: {most:.0f} MB")


def timed(what: str, work: Callable[[], object]) -> None:
    """Print what `work` took."""
    began, used = time.perf_counter(), time.process_time()
    work()
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    print(f"{what}: {seconds:.2f} s, {processor:.2f} s of the processor")


if __name__ == "__main__":
    main()
