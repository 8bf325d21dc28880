"""How long a refresh takes, and how much memory, against merely reading and writing the same file.

    python -m benchmarks.data.refresh [--scale 10] [--scorer none]

Each measurement runs in a process of its own; the reference (pyarrow reads the CSV and writes it
as Parquet) is measured just before each of them; the median of three counts.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from recsys import refresh
from recsys.data.sample import REVIEWS_NAME, SampleShop, write_sample_shop
from recsys.schedule import DataInterval
from recsys.settings import Settings

REVIEWS, USERS, PRODUCTS = 369_099, 304_708, 2_244
NEW_ROWS = 100
PAIRS = 5
NEW_ROW = 'new{0},{1},2024-12-0{2} 10:00:00,5,"Mua lần thứ {0}, rất ưng"\n'

Figures = dict[str, Any]


def measure(function: Callable[..., Any], *arguments: Any) -> Figures:
    """Run `function` in a fresh process: its result, seconds and peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_report, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    figures: Figures = ours.recv()
    process.join()
    return figures


def _report(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    gc.collect()  # what the imports left must not be cleared away on the function's time
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used = time.process_time()
    started = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - started
    used = time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(
        {
            "seconds": seconds,
            "cpu": used,
            "peak_mb": peak / 1024,
            "imports_mb": before / 1024,
            "result": result,
        }
    )


def read_and_write(source: Path, target: Path) -> None:
    """The reference."""
    pq.write_table(pacsv.read_csv(source), target)


def measure_reference(file: Path) -> Figures:
    """The median of three."""
    target = file.with_name("reference.parquet")
    return sorted((measure(read_and_write, file, target) for _ in range(3)), key=seconds_of)[1]


def seconds_of(figures: Figures) -> float:
    return float(figures["seconds"])


def full(home: Path, force_full: bool = False) -> Figures:
    """A whole refresh; seconds of each step."""
    settings = Settings(home)
    now = datetime.now(UTC)
    interval = DataInterval(now - timedelta(days=1), now)
    work = refresh.workspace_of(settings, "benchmark")
    steps: Figures = {}
    cpu: Figures = {}
    summaries: Figures = {}

    def step(name: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        used, started = time.process_time(), time.perf_counter()
        summaries[name] = function(*arguments, **options)
        steps[name] = time.perf_counter() - started
        cpu[name] = time.process_time() - used

    step("ingest", refresh.ingest, settings, work, interval, force_full=force_full)
    step("score_comments", refresh.score_comments, settings, work)
    step("publish", refresh.publish, settings, work)
    shutil.rmtree(work.folder)
    return {
        "steps": steps,
        "cpu": cpu,
        "plan": summaries["ingest"],
        "scoring": summaries["score_comments"],
    }


def without_scoring(seconds: Figures) -> float:
    return sum(value for step, value in seconds.items() if step != "score_comments")


def show(name: str, figures: Figures, reference: Figures) -> None:
    steps = figures["result"]["steps"]
    without, cpu = without_scoring(steps), without_scoring(figures["result"]["cpu"])
    scoring = {
        key: value
        for key, value in figures["result"]["scoring"].items()
        if isinstance(value, int | float | str)
    }
    print(
        f"reference, pyarrow CSV -> Parquet: {reference['seconds']:.2f} s "
        f"(CPU {reference['cpu']:.2f} s), peak {reference['peak_mb']:.0f} MB\n"
        f"{name}: {sum(steps.values()):.2f} s "
        f"(CPU {sum(figures['result']['cpu'].values()):.2f} s), "
        f"{figures['result']['plan']['strategy']}, peak {figures['peak_mb']:.0f} MB\n"
        f"  without scoring {without:.2f} s = {without / reference['seconds']:.1f} x the reference "
        f"(CPU {cpu:.2f} s = {cpu / reference['cpu']:.1f} x)\n"
        f"  steps { ({step: round(seconds, 2) for step, seconds in steps.items()}) }\n"
        f"  scoring {json.dumps(scoring, ensure_ascii=False)}",
        flush=True,
    )


def compare(home: Path, file: Path) -> None:
    """Full refreshes without scoring, each against the reference taken just before it."""
    walls, cpus = [], []
    for _ in range(PAIRS):
        reference, refreshed = measure_reference(file), measure(full, home, True)["result"]
        walls.append(without_scoring(refreshed["steps"]) / reference["seconds"])
        cpus.append(without_scoring(refreshed["cpu"]) / reference["cpu"])
    print(
        f"without scoring, {PAIRS} times: median {statistics.median(walls):.1f} x the reference "
        f"({min(walls):.1f} to {max(walls):.1f}), CPU {statistics.median(cpus):.1f} x "
        f"({min(cpus):.1f} to {max(cpus):.1f})",
        flush=True,
    )


def write_shop(home: Path, scale: float) -> SampleShop:
    reviews, users = round(scale * REVIEWS), round(scale * USERS)
    return write_sample_shop(Settings(home), reviews=reviews, users=users, products=PRODUCTS)


def use_scorer(settings: Settings, scorer: str) -> None:
    """Configure how this state root scores comments."""
    text = settings.config_file("comments.yaml").read_text(encoding="utf-8")
    own = settings.home / "config" / "comments.yaml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(text.replace("scorer: learned", f"scorer: {scorer}", 1), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--scorer", choices=["learned", "none"], default="learned")
    arguments = parser.parse_args()
    scale = arguments.scale
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        use_scorer(Settings(home), arguments.scorer)
        started = time.perf_counter()
        # In a process of its own: a child's peak memory begins with that of its parent.
        shop = measure(write_shop, home, scale)["result"]
        file = Settings(home).raw / "viecomrec" / REVIEWS_NAME
        print(
            f"input: {shop.reviews} reviews, {shop.users} users, {shop.products} products, "
            f"{file.stat().st_size / 1e6:.0f} MB CSV, made in {time.perf_counter() - started:.1f} s"
        )
        reference = measure_reference(file)
        first = measure(full, home)
        show("full, empty score cache", first, reference)
        reference = measure_reference(file)
        show("full again, same data", measure(full, home, True), reference)
        compare(home, file)
        with file.open("a", encoding="utf-8") as lines:
            lines.writelines(
                NEW_ROW.format(number, number % PRODUCTS, 1 + number % 9)
                for number in range(NEW_ROWS)
            )
        reference = measure_reference(file)
        increment = measure(full, home)
        show(
            f"{NEW_ROWS} new rows",
            increment,
            reference,
        )
        share = sum(increment["result"]["steps"].values()) / sum(first["result"]["steps"].values())
        used = [sum(figures["result"]["cpu"].values()) for figures in (increment, first)]
        print(
            f"{NEW_ROWS} new rows take {share:.2f} of the full time "
            f"({used[0] / used[1]:.2f} of its CPU time)"
        )


if __name__ == "__main__":
    main()
