"""A standalone Spark cluster of this machine's processes: what an administrator would start."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.settings import REPOSITORY
from recsys.spark.session import SECRET, find_java
from tests.ports import find_free_port

_SECRET = "not-a-secret"
_START_SECONDS = 60.0
_PROPERTIES = f"""
spark.authenticate true
spark.authenticate.secret {_SECRET}
spark.network.crypto.enabled true
spark.ui.enabled false
spark.master.ui.enabled false
spark.worker.ui.enabled false
"""


@dataclass(frozen=True)
class Standalone:
    """A running master; `folder` has the logs of all."""

    address: str
    folder: Path

    @property
    def secret(self) -> Mapping[str, str]:
        """What the environment of a driver needs."""
        return {SECRET: _SECRET}

    @contextlib.contextmanager
    def worker(
        self, name: str, host: str, memory_mb: int, scratch: Path, prefix: Sequence[str] = ()
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of one core for the block, with its files in `scratch`; `prefix` is a command
        that starts another one somewhere."""
        options = ["--host", host, "--cores", "1", "--memory", f"{memory_mb}m"]
        options += ["--work-dir", str(scratch / "work"), "--webui-port", "0", self.address]
        with _daemon("worker.Worker", name, self.folder, options, scratch, prefix) as process:
            wait_for_line(process, self.folder / f"{name}.log", "Successfully registered")
            yield process


@contextlib.contextmanager
def standalone(folder: Path, host: str) -> Iterator[Standalone]:
    """A master at `host` for the block."""
    (folder / "properties").write_text(_PROPERTIES)
    port = find_free_port()
    options = ["--host", host, "--port", str(port), "--webui-port", "0"]
    with _daemon("master.Master", "master", folder, options, folder / "scratch") as process:
        wait_for_line(process, folder / "master.log", "I have been elected leader")
        yield Standalone(f"spark://{host}:{port}", folder)


@contextlib.contextmanager
def _daemon(
    kind: str,
    name: str,
    folder: Path,
    options: Sequence[str],
    scratch: Path,
    prefix: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    import pyspark

    home = Path(pyspark.__file__).parent
    environment = os.environ | {
        "SPARK_HOME": str(home),
        "SPARK_CONF_DIR": str(folder),
        "JAVA_HOME": str(find_java().resolve().parents[1]),
        "SPARK_LOCAL_DIRS": str(scratch / "local"),
        "SPARK_DAEMON_MEMORY": "256m",
        "PYTHONPATH": str(REPOSITORY / "include"),
    }
    command = [*prefix, str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{kind}"]
    command += ["--properties-file", str(folder / "properties"), *options]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for_line(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while text not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{log.name} never says {text!r}: {log.read_text()[-2_000:]}")
        time.sleep(0.1)
