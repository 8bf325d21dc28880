"""Kill refreshes at 200 random moments; every version must stay whole, every next run end right.

python -m benchmarks.data.crashes [--times 200] [--seed 0]
"""

import argparse
import tempfile
import time
from pathlib import Path

from tests.data.crashing import crash_refreshes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = crash_refreshes(Path(folder), arguments.times, arguments.seed)
    print(
        f"{arguments.times} refreshes: {tally.killed} killed, {tally.finished} finished first; "
        f"{tally.versions_checked} times a version was verified, none was damaged; every fifth "
        f"state was refreshed to the end and equal to a fresh shop's "
        f"({time.perf_counter() - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
