"""Kill refreshes at 200 random moments of each phase: building, publishing, pruning.

    python -m benchmarks.data.crashes [--kills 200] [--phase refresh|publish|prune] [--seed 0]

After every kill all versions are verified; every fifth state is refreshed to the end and compared
with what a fresh shop of the same rows publishes.
"""

import argparse
import tempfile
import time
from pathlib import Path

from tests.data.crashing import PHASES, Phase, crash_refreshes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--phase", choices=[phase.name.lower() for phase in PHASES])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    phases = (Phase[arguments.phase.upper()],) if arguments.phase else PHASES
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = crash_refreshes(Path(folder), arguments.kills, arguments.seed, phases)
    killed = ", ".join(f"{tally.killed[phase]} in {phase.name.lower()}" for phase in phases)
    print(
        f"killed: {killed}; {tally.finished} attempts ended before they were killed; "
        f"{tally.versions_checked} times a version was verified, none was damaged; "
        f"{tally.continued + 1} states were refreshed to the end, all equal to a fresh shop's "
        f"({time.perf_counter() - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
