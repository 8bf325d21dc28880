"""Claim: the lists of 300,000 customers for a mail are in a file after 60 s at most.

    python -m benchmarks.serving.export [--customers 300000] [--rules 10] [--explain]

A shop of 2,244 products; the file is read again and counted. Wall time, processor time and the
largest memory are those of a process of its own that runs the command. The reference is the time in
which the same file is written and read without making any list.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

import pyarrow.parquet as pq

from benchmarks.serving.harness import SCRATCH, add_model, fresh_home, make_histories
from recsys.models.als import Als, AlsParameters
from recsys.settings import REPOSITORY

ITEMS = 2_244
TRAINED_ON = 30_000


def rules(count: int) -> str:
    """Some of each action that the shop can give."""
    lines = ["rules:"]
    for number in range(count):
        action, more = [
            ("boost", "strength: 0.3"),
            ("limit", "at_most: 2"),
            ("pin", f"position: {1 + number % 5}"),
            ("hide", ""),
            ("quota", "at_least: 1"),
        ][number % 5]
        group = f"brands: ['Thương hiệu {number}']"
        if action == "pin":
            group = f"ids: ['{422_000_000 + number}']"
        more = f", {more}" if more else ""
        named = f"name: rule{number}, action: {action}{more}, products: {{{group}}}"
        lines.append(f"  - {{{named}, author: a, reason: b}}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--customers", type=int, default=300_000)
    parser.add_argument("--rules", type=int, default=0)
    parser.add_argument("--explain", action="store_true")
    options = parser.parse_args()
    settings, file = fresh_home("export"), SCRATCH / "lists.parquet"
    histories = make_histories(options.customers, ITEMS)
    model = Als(AlsParameters(factors=64, starts=1, iterations=3))
    model.fit(make_histories(TRAINED_ON, ITEMS), ITEMS)
    add_model(settings, model, histories, ITEMS, "als_1")
    if options.rules:
        (settings.home / "config" / "rules.yaml").write_text(rules(options.rules))
    command = [sys.executable, "-m", "recsys", "export-lists", "--placement", "mail"]
    command += ["--to", str(file), *(["--explain"] if options.explain else [])]
    paths = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'include'}", "OPENBLAS_NUM_THREADS": "1"}
    environment = os.environ | paths | {"RECSYS_HOME": str(settings.home)}
    started = time.perf_counter()
    subprocess.run(command, env=environment, cwd=REPOSITORY, check=True)
    wall = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    table = pq.read_table(file)
    started = time.perf_counter()
    pq.write_table(table, SCRATCH / "again.parquet")
    again = time.perf_counter() - started
    kinds = f"{options.rules} rules{', with reasons' if options.explain else ''}"
    print(f"input: {options.customers} customers x {ITEMS} products, {kinds}")
    print(
        f"{table.num_rows} lists in {wall:.1f} s (wanted for 300,000: at most 60 s), "
        f"{used.ru_utime + used.ru_stime:.1f} s of a processor, {used.ru_maxrss / 1024:.0f} MB, "
        f"{file.stat().st_size / 1e6:.0f} MB; the same table written alone: {again:.1f} s"
    )


if __name__ == "__main__":
    main()
