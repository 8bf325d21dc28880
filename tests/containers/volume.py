"""The volume `state` on a small file system of its own, so that it can be filled up."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

from tests.containers.engine import ROOT, Engine

NAME = "recsys_state"
MEGABYTES = 2000
OWNER = 10001
FOLDER = ROOT / "state"
"""Not below the engine's own folder: what is mounted there goes when the engine is restarted."""


@contextlib.contextmanager
def small_volume(engine: Engine) -> Iterator[None]:
    """Compose finds it as if it had made it; it goes with `down --volumes` after this block."""
    unmount()
    FOLDER.mkdir(exist_ok=True)
    image = ROOT / "state.ext4"
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(MEGABYTES * 1_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(FOLDER)], check=True)
    (FOLDER / "lost+found").rmdir()
    os.chown(FOLDER, OWNER, OWNER)
    bound = ("type=none", "o=bind", f"device={FOLDER}")
    marks = ("project=recsys", "volume=state")
    command = [f"--opt={each}" for each in bound]
    command += [f"--label=com.docker.compose.{mark}" for mark in marks]
    engine.docker("volume", "create", *command, NAME)
    try:
        yield
    finally:
        unmount()
        image.unlink()


def unmount() -> None:
    while FOLDER.is_mount():
        subprocess.run(["umount", "--lazy", str(FOLDER)], check=True)
