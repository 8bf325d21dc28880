"""A refresh on a standalone Spark cluster within a limit of memory for all its processes together.

    python -m benchmarks.scale.standalone --rows 3_000_000 [--memory-gb 6] [--compare] [--folder AT]

Writes the shop of `benchmarks.scale.engines` (seeded, a million rows at a time), starts a master
and two workers of one core as processes of this machine, and refreshes with `master: spark://...`;
the state root is the folder that all of them see. Master, workers, executors, driver and their
Python processes are in one control group with a hard limit where this user may make one: a refresh
that needed more would be killed. Prints the input, the time of each step, and the peak memory,
sampled once a second: *own* is what the processes have for themselves (anonymous and shared pages,
each once), *with files* adds pages of files that they have mapped. With ``--compare`` the pandas
engine refreshes the same shop in one process without a limit, and the exit status is 1 if their
statistics or rows differ. Comments are not scored: that step stays in one process.
"""

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil

from benchmarks.scale.engines import Figures, configure, run_refresh, write_shop
from recsys.data.config import Engine
from recsys.data.sample import FOLDER, REVIEWS_NAME
from recsys.settings import Settings
from tests.spark.standalone import standalone

HOST, WORKERS, HEAP_MB = "127.0.0.1", 2, 512
SPARK = f"executors: {WORKERS}\ncores: 1\nmemory_mb: {HEAP_MB}\ndriver_memory_mb: {HEAP_MB}\n"
_ROOTS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
_FULL = 0.85


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=3_000_000)
    parser.add_argument("--memory-gb", type=float, default=6)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the shop is, or is to be written")
    parser.add_argument("--child", choices=list(Engine), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == Engine.SPARK:
        on_a_cluster(options.folder)
        return
    if options.child == Engine.PANDAS:
        configure(Settings(options.folder), Engine.PANDAS)
        run_refresh(Settings(options.folder), Engine.PANDAS)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(compare(options.folder or Path(folder), options))


def compare(home: Path, options: argparse.Namespace) -> int:
    """0 unless two engines differ."""
    started = time.perf_counter()
    write_shop(Settings(home), options.rows)
    size = (Settings(home).raw / FOLDER / REVIEWS_NAME).stat().st_size
    print(
        f"input: {options.rows:,} rows, {size / 1e9:.2f} GB CSV, written in "
        f"{time.perf_counter() - started:.0f} s; load {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} cores",
        flush=True,
    )
    with memory_group(options.memory_gb) as group:
        spark = measure(home, Engine.SPARK, group)
    if not options.compare:
        return 0
    pandas = measure(home, Engine.PANDAS, None)
    equal = all(spark[name] == pandas[name] for name in ("stats", "rows"))
    print(f"statistics and rows of both engines are {'equal' if equal else 'DIFFERENT'}")
    return 0 if equal else 1


def on_a_cluster(home: Path) -> None:
    """Start the cluster, refresh on it, and stop it."""
    settings = Settings(home)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=home)))
        master = stack.enter_context(standalone(folder, HOST))
        for number in range(WORKERS):
            name = f"worker-{number}"
            worker = master.worker(name, HOST, HEAP_MB, folder / name)
            stack.enter_context(worker)
        os.environ |= master.secret
        configure(settings, Engine.SPARK)
        text = f"{SPARK}master: {master.address}\n"
        (settings.home / "config" / "spark.yaml").write_text(text)
        run_refresh(settings, Engine.SPARK)


def measure(home: Path, engine: Engine, group: "Group | None") -> Figures:
    """Refresh in a process of its own, and watch it and all below it."""
    command = [sys.executable, "-m", "benchmarks.scale.standalone"]
    command += ["--child", engine.value, "--folder", str(home)]
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=group and group.join,
    )
    watch = Watch(process.pid, group)
    watch.start()
    assert process.stdout is not None
    figures: Figures = {}
    print(f"{engine.value}:", flush=True)
    for line in process.stdout:
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        if "step" in said:
            own, with_files = watch.take()
            print(
                f"  {said['step']:10} {said['seconds']:7.0f} s   peak {own:5.2f} GB own, "
                f"{with_files:5.2f} with files",
                flush=True,
            )
        else:
            figures |= said
    if process.wait():
        raise SystemExit(f"the refresh ended with {process.returncode}")
    rows, stats = figures["rows"], figures["stats"]
    print(
        f"  {time.perf_counter() - started:.0f} s from start to end; {rows['read']:,} rows read, "
        f"{stats['interactions']:,} accepted, {stats['users']:,} users, {stats['products']:,} "
        f"products, {stats['matrix']['entries']:,} entries in the matrix",
        flush=True,
    )
    if group is not None:
        print(f"  {group.peak()}", flush=True)
    return figures


class Group:
    """A control group with a limit of memory, pages of files included."""

    def __init__(self, path: Path, gigabytes: float) -> None:
        self._path, self._limit = path, int(gigabytes * 1e9)
        path.mkdir()
        self._is_old = (path / "memory.limit_in_bytes").exists()
        (path / ("memory.limit_in_bytes" if self._is_old else "memory.max")).write_text(
            str(self._limit)
        )
        if not self._is_old:
            (path / "memory.high").write_text(str(int(_FULL * self._limit)))

    def join(self) -> None:
        """Move this process, and all that it starts, into the group."""
        (self._path / "cgroup.procs").write_text(str(os.getpid()))

    def relieve(self) -> None:
        """Let go the cache of a group that is nearly full. Old groups leave it to whoever touches a
        page next, which on a busy machine takes all of its time."""
        used = int((self._path / "memory.usage_in_bytes").read_text()) if self._is_old else 0
        if used > _FULL * self._limit:
            (self._path / "memory.force_empty").write_text("0")

    def peak(self) -> str:
        name = "memory.max_usage_in_bytes" if self._is_old else "memory.peak"
        peak = int((self._path / name).read_text()) / 1e9
        return f"hard limit {self._limit / 1e9:g} GB, most of it used {peak:.2f} GB (the cache too)"

    def remove(self) -> None:
        self._path.rmdir()


@contextlib.contextmanager
def memory_group(gigabytes: float) -> Iterator[Group | None]:
    """A new group for the block; None, with a word why, where this user may make none."""
    root = next((root for root in _ROOTS if root.is_dir()), _ROOTS[-1])
    try:
        group = Group(root / f"recsys-{uuid4().hex[:8]}", gigabytes)
    except OSError as error:
        print(f"no hard limit of memory: {error}", flush=True)
        yield None
        return
    try:
        yield group
    finally:
        group.remove()


class Watch(threading.Thread):
    """Samples the memory of a process and of all below it, and relieves their group."""

    def __init__(self, pid: int, group: Group | None) -> None:
        super().__init__(daemon=True)
        self._root, self._group = psutil.Process(pid), group
        self._peak = (0, 0)

    def run(self) -> None:
        while self._root.is_running():
            self._look()
            if self._group is not None:
                self._group.relieve()
            time.sleep(1)

    def take(self) -> tuple[float, float]:
        """The peaks since the last call, in GB: own pages, and with those of files."""
        self._look()
        own, with_files = self._peak
        self._peak = (0, 0)
        return own / 1e9, with_files / 1e9

    def _look(self) -> None:
        own = of_files = 0
        for process in self._tree():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                pages = {
                    name: 1024 * int(size.split()[0])
                    for name, _, size in (line.partition(":") for line in text.splitlines()[1:])
                }
                own += pages["Pss_Anon"] + pages["Pss_Shmem"]
                of_files += pages["Pss_File"]
        self._peak = tuple(map(max, self._peak, (own, own + of_files)))

    def _tree(self) -> Iterator[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from itertools.chain([self._root], self._root.children(recursive=True))


if __name__ == "__main__":
    main()
