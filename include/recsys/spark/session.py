"""A Spark session: executors of this machine, on loopback only, or those of a cluster."""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field

from recsys.config import ConfigModel
from recsys.errors import InputError
from recsys.settings import REPOSITORY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA_NEEDED = 17
SECRET = "RECSYS_SPARK_SECRET"  # noqa: S105 - the name of the variable
"""The environment variable with what a standalone cluster's members have in common."""
_LOCAL = "local"
_STANDALONE = "spark"
_LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 30
_EXECUTOR_SECONDS = 120
# ALS without a folder for checkpoints sends a lineage as deep as it has iterations.
_DEEP_STACKS = "-Xss16m"


class SparkConfig(ConfigModel):
    """``config/spark.yaml``; every key is explained there."""

    FILE = "spark.yaml"

    master: str = Field(default=_LOCAL, pattern=r"^(local|yarn|spark://\S+:\d+|k8s://\S+)$")
    driver_host: str | None = None
    properties: dict[str, str] = Field(default_factory=dict)
    executors: int = Field(default=2, ge=1)
    cores: int = Field(default=1, ge=1)
    memory_mb: int = Field(default=1024, ge=512)
    driver_memory_mb: int = Field(default=1024, ge=512)

    @property
    def is_local(self) -> bool:
        """Whether the executors are processes of this machine."""
        return self.master == _LOCAL


class SparkError(InputError):
    """Spark cannot be used; the text says what is missing."""


_open: "list[SparkSession]" = []
"""The session of this process, if it has one: Spark knows no second."""


@contextlib.contextmanager
def spark_session(config: SparkConfig, folder: Path) -> "Iterator[SparkSession]":
    """A session whose executors are processes of their own; all of them end with the block.

    Everything that Spark writes on this machine goes into `folder`, which is emptied before and
    removed after. Within a block that has a session already, that one is given and goes on. Raises
    `SparkError` if there is no Java, no PySpark, no secret of the cluster, or no answer from it.
    """
    if _open:
        yield _open[0]
        return
    java, package, secret = find_java(), _package(), _secret(config)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        # The package under another path: executors write into ``$SPARK_HOME/work``.
        home = folder / "home"
        home.mkdir(parents=True)
        for name in ("bin", "jars"):
            (home / name).symlink_to(package / name)
        _write_properties(home / "conf", secret)
        with warnings.catch_warnings():
            # About pandas 3: only PySpark's Arrow interface is used here.
            warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
            with _environment(_variables(config, home, java)):
                _open.append(_start(config, folder))
            try:
                _wait_for_executor(_open[0], config)
                yield _open[0]
            finally:
                _stop(_open.pop())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def session_folder(work: Path) -> Path:
    """Where Spark keeps its files: beside the work folder `work`."""
    return work.with_name(f"{work.name}-spark")


def find_java() -> Path:
    """The ``java`` of ``$JAVA_HOME``, else of ``$PATH``. Raises `SparkError` if it is too old."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin") if home else None)
    advice = f"engine: spark needs Java {JAVA_NEEDED} or later; install it or set engine: pandas"
    if found is None:
        raise SparkError(f"there is no java in {home or '$PATH'}; {advice}")
    said = subprocess.run(  # noqa: S603
        [found, "-version"], capture_output=True, text=True, check=False, timeout=60
    ).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA_NEEDED:
        raise SparkError(f"{found} is {said.splitlines()[0] if said else 'broken'}; {advice}")
    return Path(found)


def _package() -> Path:
    try:
        import pyspark
    except ImportError:
        raise SparkError(
            "engine: spark needs PySpark; install it by `make spark` or set engine: pandas"
        ) from None
    return Path(pyspark.__file__).parent


def _secret(config: SparkConfig) -> str | None:
    """What driver and executors want of each other. YARN and Kubernetes make it themselves."""
    if config.is_local:
        return secrets.token_hex(32)
    if not config.master.startswith(f"{_STANDALONE}://"):
        return None
    secret = os.environ.get(SECRET)
    if not secret:
        raise SparkError(
            f"{config.master} needs its secret in the environment variable {SECRET}: without one, "
            "whoever reaches it could run what he likes; see docs/scale.md"
        )
    return secret


def _write_properties(folder: Path, secret: str | None) -> None:
    """What Spark reads when it starts: not on a command line, which everybody sees."""
    folder.mkdir()
    lines = ["spark.authenticate true"]
    lines += [] if secret is None else [f"spark.authenticate.secret {secret}"]
    path = folder / "spark-defaults.conf"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _variables(config: SparkConfig, spark_home: Path, java: Path) -> dict[str, str]:
    own = {"SPARK_LOCAL_IP": _LOOPBACK} if config.is_local else {}
    return own | {
        "SPARK_HOME": str(spark_home),
        "SPARK_CONF_DIR": str(spark_home / "conf"),
        "JAVA_HOME": str(java.resolve().parents[1]),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(REPOSITORY / "include"),
    }


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """`variables` for the processes that are started in the block."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


def _start(config: SparkConfig, folder: Path) -> "SparkSession":
    from py4j.protocol import Py4JError
    from pyspark.sql import SparkSession

    local = f"local-cluster[{config.executors},{config.cores},{config.memory_mb}]"
    builder: Any = SparkSession.builder
    builder = builder.master(local if config.is_local else config.master).appName("recsys")
    place = _here(folder) if config.is_local else _there(config, folder)
    found = {**_options(config), **place, **config.properties}
    try:
        session: SparkSession = builder.config(map=found).getOrCreate()
    except Py4JError as error:
        _stop(None)
        said = str(error).strip().splitlines()[0]
        raise SparkError(f"the Spark cluster {config.master} cannot be used: {said}") from error
    session.sparkContext.setLogLevel("ERROR")
    return session


def _options(config: SparkConfig) -> dict[str, str]:
    return {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": f"{config.driver_memory_mb}m",
        "spark.executor.memory": f"{config.memory_mb}m",
        "spark.executor.cores": str(config.cores),
        "spark.executor.instances": str(config.executors),
        "spark.cores.max": str(config.executors * config.cores),
        "spark.executorEnv.PYTHONPATH": str(REPOSITORY / "include"),
        "spark.executorEnv.PYTHONWARNINGS": "ignore",
        # Several BLAS threads in each of several workers only get in each other's way.
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.shuffle.partitions": str(4 * config.executors * config.cores),
    }


def _here(folder: Path) -> dict[str, str]:
    """Executors of this machine: on loopback, with all their files in `folder`."""
    java = f"-Djava.io.tmpdir={folder} -XX:-UsePerfData"
    return {
        "spark.driver.bindAddress": _LOOPBACK,
        "spark.driver.host": _LOOPBACK,
        "spark.driver.extraJavaOptions": java,
        "spark.executor.extraJavaOptions": java,
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.executorEnv.SPARK_LOCAL_IP": _LOOPBACK,
        "spark.executorEnv.TMPDIR": str(folder),
    }


def _there(config: SparkConfig, folder: Path) -> dict[str, str]:
    """Executors of other machines, which know the place of their own files."""
    host = config.driver_host or _address_towards(config.master)
    return {
        "spark.driver.bindAddress": host,
        "spark.driver.host": host,
        "spark.network.crypto.enabled": "true",
        "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={folder} {_DEEP_STACKS}",
        "spark.executor.extraJavaOptions": _DEEP_STACKS,
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }


def _address_towards(master: str) -> str:
    """The address of this machine from which the master is reached."""
    parts = urlsplit(master.removeprefix("k8s://") if master.startswith("k8s://") else master)
    if parts.hostname is None:
        return socket.getfqdn()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((parts.hostname, parts.port or 443))  # sends nothing
        except OSError as error:
            raise SparkError(f"the Spark cluster {master} cannot be reached: {error}") from error
        return str(probe.getsockname()[0])


def _wait_for_executor(session: "SparkSession", config: SparkConfig) -> None:
    """Spark itself would wait for ever."""
    context: Any = session.sparkContext
    deadline = time.monotonic() + _EXECUTOR_SECONDS
    while context._jsc.sc().getExecutorMemoryStatus().size() < 2:  # the driver is one
        if time.monotonic() > deadline:
            wanted = f"{config.cores} cores and {config.memory_mb} MB of heap"
            raise SparkError(
                f"{config.master} has given no executor in {_EXECUTOR_SECONDS} seconds: no worker "
                f"has {wanted} free, or none reaches {_address_of(session)}, where the driver is"
            )
        time.sleep(0.1)


def _address_of(session: "SparkSession") -> str:
    return str(session.sparkContext.getConf().get("spark.driver.host"))


def _stop(session: "SparkSession | None") -> None:
    """Stop the session, if it came to one, and the Java process behind it, which PySpark keeps for
    the next one: that would go on with the first one's memory, environment and folder."""
    from pyspark import SparkContext

    context: Any = SparkContext
    gateway = context._gateway
    try:
        if session is not None:
            session.stop()
    finally:
        context._gateway = context._jvm = None
        if gateway is not None:
            gateway.shutdown()
            gateway.proc.stdin.close()
            try:
                gateway.proc.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                gateway.proc.kill()
                gateway.proc.wait()
