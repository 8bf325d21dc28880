"""What the store costs: nothing to speak of on a disk, and what a bucket adds to a plain copy.

    python -m benchmarks.storage.store [--megabytes 100] [--files 12]

On the disk the reference is what a reader would do without a store: follow the link, read the
file. For the bucket it is a copy of the same folder on the same disk, flushed and hashed like a
published one; the S3 server is moto's on loopback, in one process, so it says what the store adds
and not how fast a real bucket is.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recsys.publishing import atomic_folder, sha256_of
from recsys.settings import REGISTRY_KEY, Settings
from recsys.storage import open_store
from tests.storage.buckets import CREDENTIALS, machine, new_bucket, s3_server

KEY = "data/versions/v1"
POINTER = "data/processed"
ROUNDS = 2000
REPEATS = 3


def fill(folder: Path, megabytes: int, files: int) -> None:
    generator = np.random.default_rng(0)
    size = megabytes * 1_000_000 // files
    with atomic_folder(folder) as temporary:
        for number in range(files):
            (temporary / f"part{number}.bin").write_bytes(generator.bytes(size))


def microseconds(work: Callable[[], object]) -> float:
    """Median of one call."""
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) * 1e6


def seconds_of(work: Callable[[], object], tidy: Callable[[], object]) -> float:
    """The best of a few rounds; `tidy` is not counted."""
    best = float("inf")
    for _ in range(REPEATS):
        tidy()
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def on_disk(home: Path) -> None:
    settings = Settings(home)
    fill(home / KEY, 1, 2)
    store = open_store(settings)
    store.point(POINTER, KEY, lambda _: True)
    store.change(REGISTRY_KEY, lambda _: b"{}" * 50_000)
    link, registry = home / POINTER, home / REGISTRY_KEY
    print("On a disk, microseconds of one call (the plain call, and the ratio):")
    for name, ours, plain in (
        (
            "pointer and folder",
            lambda: store.fetch(f"data/versions/{store.leads_to(POINTER)}"),
            lambda: (home / "data/versions" / link.readlink().name).is_dir(),
        ),
        ("read 100 kB", lambda: store.read(REGISTRY_KEY), registry.read_bytes),
        ("open the store", lambda: open_store(settings), lambda: None),
    ):
        took, reference = microseconds(ours), microseconds(plain)
        print(f"  {name:20} {took:8.1f}  ({reference:.1f}, {took / reference:.2f}x)")


def in_bucket(folder: Path, megabytes: int, files: int) -> None:
    os.environ.update(CREDENTIALS)
    with s3_server(folder / "server.log") as address:
        url = new_bucket(address)
        one, two = (machine(folder / name, url, address) for name in ("one", "two"))
        fill(one.home / KEY, megabytes, files)
        store, other = open_store(one), open_store(two)
        copy = folder / "copy"

        def plain_copy() -> None:
            with atomic_folder(copy) as temporary:
                shutil.copytree(one.home / KEY, temporary, dirs_exist_ok=True)
                for path in temporary.iterdir():
                    sha256_of(path)

        def unpublish() -> None:
            keep = folder / "keep"
            (one.home / KEY).rename(keep)
            store.remove(KEY)
            keep.rename(one.home / KEY)

        reference = seconds_of(plain_copy, lambda: shutil.rmtree(copy, ignore_errors=True))
        published = seconds_of(lambda: store.publish(KEY), unpublish)
        fetched = seconds_of(
            lambda: other.fetch(KEY), lambda: shutil.rmtree(two.home / KEY, ignore_errors=True)
        )
        print(f"{megabytes} MB in {files} files, seconds (ratio to a flushed, hashed local copy):")
        print(f"  local copy           {reference:8.2f}")
        print(f"  publish to a bucket  {published:8.2f}  ({published / reference:.1f}x)")
        print(f"  fetch from a bucket  {fetched:8.2f}  ({fetched / reference:.1f}x)")
        calls = [
            ("pointer", lambda: other.leads_to(POINTER)),
            ("change of a file", lambda: other.change("f", lambda b: (b or b"") + b"x")),
        ]
        for name, call in calls:
            print(f"  {name:20} {seconds_of(call, lambda: None) * 1000:8.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--files", type=int, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        on_disk(Path(folder) / "disk")
        in_bucket(Path(folder), arguments.megabytes, arguments.files)


if __name__ == "__main__":
    main()
