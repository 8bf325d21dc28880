"""Time and memory of a refresh and of an ALS fit, without Spark and with it, on one large shop.

    python -m benchmarks.scale.engines --rows 10_000_000 --engine both [--shop FOLDER]

The shop is `recsys.data.sample`'s, a million rows of it; further millions are the same rows of
other customers, at other times, on other products. Comments are scored only with ``--comments``:
that step is the same under both engines; without it every row gets the same quality. ALS is fitted
on the version's matrix, from one random start. Each engine runs in a process of its own; memory is
that of the process and all below it (with Spark: the Java and Python processes of driver and
executors), sampled five times a second. *Peak* counts every resident page; *anonymous* leaves out
pages of files, which the system takes back when it needs them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from recsys import refresh
from recsys.config import load_config
from recsys.data.config import DataConfig, Engine
from recsys.data.sample import FOLDER, REVIEWS_NAME, write_sample_shop
from recsys.data.versions import current_version
from recsys.models.als import Als, AlsParameters
from recsys.models.factor_model import users_of_several
from recsys.publishing import write_json
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.spark.als import als_trainer

BASE_ROWS, USERS_PER_ROW, PRODUCTS = 1_000_000, 0.3, 20_000
UNTIL = datetime(2025, 3, 1, tzinfo=UTC)
SAMPLES_A_SECOND = 5
FACTORS, ITERATIONS = 32, 10

Figures = dict[str, Any]


def write_shop(settings: Settings, rows: int) -> None:
    """Write so many rows; what is there already is kept."""
    target = settings.raw / FOLDER / REVIEWS_NAME
    done = target.with_suffix(".rows")
    if done.exists() and done.read_text() == str(rows):
        return
    base_rows = min(rows, BASE_ROWS)
    users = int(base_rows * USERS_PER_ROW)
    shop = write_sample_shop(
        settings, reviews=base_rows, users=users, products=PRODUCTS, until=UNTIL.date()
    )
    base = pacsv.read_csv(shop.reviews_path)
    with pacsv.CSVWriter(shop.reviews_path, base.schema) as writer:
        for copy in range(-(-rows // base_rows)):
            table = other_customers(base, copy, copy * users)
            writer.write_table(table.slice(0, min(base_rows, rows - copy * base_rows)))
    done.write_text(str(rows))


def other_customers(base: pa.Table, copy: int, first_user: int) -> pa.Table:
    users = pc.add(base["user_id"], first_user)
    products = (base["product_id"].to_numpy() + 7_919 * copy) % PRODUCTS
    times = pc.subtract(base["cmt_date"], pa.scalar(timedelta(seconds=copy), pa.duration("s")))
    columns = {"user_id": users, "product_id": pa.array(products), "cmt_date": times}
    return pa.table({name: columns.get(name, base[name]) for name in base.column_names})


def run_refresh(settings: Settings, engine: Engine, *, comments: bool = False) -> None:
    """Refresh with force, and score `comments` if wanted; prints one JSON line a step, and what was
    published."""
    interval = DataInterval(UNTIL - timedelta(days=1), UNTIL)
    work = refresh.workspace_of(settings, f"{engine.value}-scale")
    with refresh.open_engine(settings, load_config(settings, DataConfig), work):
        ingested = step("ingest", lambda: refresh.ingest(settings, work, interval, force_full=True))
        if comments:
            step("comments", lambda: refresh.score_comments(settings, work))
        else:
            score_alike(work, ingested["rows"]["accepted"])
        step("publish", lambda: refresh.publish(settings, work))
    version = current_version(settings)
    print(json.dumps({"stats": version.stats(), "rows": version.manifest["rows"]}), flush=True)


def fit_als(settings: Settings, engine: Engine) -> None:
    """Fit ALS on the published matrix, as `Als.fit` hands it to its trainer."""
    matrix = current_version(settings).matrix()
    matrix = users_of_several(matrix)
    matrix.data *= 8  # confidence of a five-star row: 40 and something
    parameters = AlsParameters(factors=FACTORS, iterations=ITERATIONS, starts=1)
    with als_trainer(engine, settings) as trainer:
        train = trainer or partial(Als(parameters).train_here, progress=None)
        factors = step("als", lambda: train(matrix, parameters, 0))
    assert np.isfinite(factors).all()
    print(json.dumps({"als": [*matrix.shape, matrix.nnz]}), flush=True)


def step(name: str, function: Any) -> Any:
    started = time.perf_counter()
    result = function()
    print(json.dumps({"step": name, "seconds": time.perf_counter() - started}), flush=True)
    return result


def score_alike(work: refresh.Workspace, rows: int) -> None:
    quality = np.lib.format.open_memmap(work.quality, "w+", np.float32, (rows,))
    quality[:] = 0.5
    quality.flush()
    write_json(work.scores, {"scorer": "none", "scored_now": 0})


def configure(settings: Settings, engine: Engine) -> None:
    own = settings.home / "config"
    own.mkdir(parents=True, exist_ok=True)
    text = Settings(Path("/nonexistent")).config_file("data.yaml").read_text(encoding="utf-8")
    text = text.replace("engine: pandas", f"engine: {engine.value}")
    (own / "data.yaml").write_text(text, encoding="utf-8")


def measure(home: Path, engine: Engine, only: str, *, comments: bool) -> Figures:
    """Run an engine in a process of its own and watch the memory of its tree."""
    command = [sys.executable, "-m", "benchmarks.scale.engines", "--child", str(home)]
    command += ["--engine", engine.value, "--only", only, "--rows", "0"]
    command += ["--comments"] if comments else []
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch = _Watch(process.pid)
    watch.start()
    assert process.stdout is not None
    figures: Figures = {"steps": {}}
    for line in process.stdout:
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        if "step" in said:
            figures["steps"][said["step"]] = (said["seconds"], *watch.take())
            show_step(said["step"], *figures["steps"][said["step"]])
        else:
            figures |= said
    if process.wait():
        assert process.stderr is not None
        raise SystemExit(process.stderr.read()[-3_000:])
    return figures | {"seconds": time.perf_counter() - started}


class _Watch(threading.Thread):
    """Samples the memory of a process tree."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._peak = self._anonymous = 0

    def run(self) -> None:
        while self._process.is_running():
            self._look()
            time.sleep(1 / SAMPLES_A_SECOND)

    def _look(self) -> None:
        resident, anonymous = _memory(self._process)
        self._peak = max(self._peak, resident)
        self._anonymous = max(self._anonymous, anonymous)

    def take(self) -> tuple[float, float]:
        """Peaks since the last call, in GB: all resident pages, and the anonymous ones."""
        self._look()
        peaks = self._peak / 1e9, self._anonymous / 1e9
        self._peak = self._anonymous = 0
        return peaks


def _memory(root: psutil.Process) -> tuple[int, int]:
    resident = anonymous = 0
    try:
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0, 0
    for process in tree:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        sizes = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Rss"))
        kilobytes = {name: int(size.split()[0]) for name, size in sizes.items()}
        resident += 1024 * sum(kilobytes.values())
        anonymous += 1024 * kilobytes.get("RssAnon", 0)
    return resident, anonymous


def show(engine: Engine, figures: Figures) -> None:
    print(f"  {figures['seconds']:.0f} s from start to end", flush=True)
    if "stats" in figures:
        stats = figures["stats"]
        print(
            f"  {figures['rows']['read']:,} rows read, {stats['interactions']:,} accepted, "
            f"{stats['users']:,} users ({stats['matrix']['users']:,} trainable), "
            f"{stats['products']:,} products, {stats['matrix']['entries']:,} entries in the matrix"
        )
    if "als" in figures:
        users, items, entries = figures["als"]
        print(f"  ALS on {entries:,} entries of {users:,} users and {items:,} products")


def show_step(step: str, seconds: float, resident: float, anonymous: float) -> None:
    print(
        f"  {step:10} {seconds:7.1f} s   peak {resident:5.2f} GB (anonymous {anonymous:5.2f})",
        flush=True,
    )


def compare(one: Figures, other: Figures) -> None:
    if "stats" in one:
        print(f"equal statistics: {one['stats'] == other['stats']}")
    for step, (seconds, _, anonymous) in other["steps"].items():
        of_one = one["steps"][step]
        print(
            f"  spark / pandas, {step}: time x {seconds / of_one[0]:.2f}, "
            f"anonymous memory x {anonymous / of_one[2]:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), required=True)
    parser.add_argument("--engine", choices=["pandas", "spark", "both"], default="both")
    parser.add_argument("--only", choices=["refresh", "als", "both"], default="both")
    parser.add_argument("--comments", action="store_true", help="score the comments")
    parser.add_argument("--shop", type=Path, help="where the shop is, or is to be written")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        settings, engine = Settings(options.child), Engine(options.engine)
        configure(settings, engine)
        refresh_all = partial(run_refresh, comments=options.comments)
        for name, run in (("refresh", refresh_all), ("als", fit_als)):
            if options.only in (name, "both"):
                run(settings, engine)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = options.shop or Path(folder)
        started = time.perf_counter()
        write_shop(Settings(home), options.rows)
        size = (Settings(home).raw / FOLDER / REVIEWS_NAME).stat().st_size
        print(
            f"input: {options.rows:,} rows, {size / 1e9:.2f} GB CSV (written in "
            f"{time.perf_counter() - started:.0f} s); load {os.getloadavg()[0]:.1f} on "
            f"{os.cpu_count()} cores",
            flush=True,
        )
        engines = list(Engine) if options.engine == "both" else [Engine(options.engine)]
        figures = {}
        for engine in engines:
            print(f"{engine.value}:", flush=True)
            figures[engine] = measure(home, engine, options.only, comments=options.comments)
            show(engine, figures[engine])
        if len(figures) == 2:
            compare(figures[Engine.PANDAS], figures[Engine.SPARK])


if __name__ == "__main__":
    main()
