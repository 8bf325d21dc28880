"""The volume `state` on a small file system of its own, so that it can be filled up."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.containers.engine import ROOT, Engine

NAME = "recsys_state"
MEGABYTES = 2000


@contextlib.contextmanager
def small_volume(engine: Engine) -> Iterator[None]:
    """Compose finds it as if it had made it; it goes with `down --volumes` after this block."""
    marks = ("project=recsys", "volume=state")
    labels = [f"--label=com.docker.compose.{mark}" for mark in marks]
    engine.docker("volume", "create", *labels, NAME)
    folder = Path(engine.docker("volume", "inspect", "--format", "{{.Mountpoint}}", NAME).strip())
    unmount(folder)
    image = ROOT / "state.ext4"
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(MEGABYTES * 1_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    (folder / "lost+found").rmdir()
    try:
        yield
    finally:
        unmount(folder)
        image.unlink()


def unmount(folder: Path) -> None:
    while folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
