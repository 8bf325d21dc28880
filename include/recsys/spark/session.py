"""A Spark session of this machine: loopback only, its files in one folder, gone afterwards."""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from recsys.config import ConfigModel
from recsys.errors import InputError
from recsys.settings import REPOSITORY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA_NEEDED = 17
_LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 30


class SparkConfig(ConfigModel):
    """``config/spark.yaml``; every key is explained there."""

    FILE = "spark.yaml"

    executors: int = Field(default=2, ge=1)
    cores: int = Field(default=1, ge=1)
    memory_mb: int = Field(default=1024, ge=512)
    driver_memory_mb: int = Field(default=1024, ge=512)


class SparkError(InputError):
    """Spark cannot be used on this machine; the text says what is missing."""


_open: "list[SparkSession]" = []
"""The session of this process, if it has one: Spark knows no second."""


@contextlib.contextmanager
def spark_session(config: SparkConfig, folder: Path) -> "Iterator[SparkSession]":
    """A session whose executors are processes of their own; all of them end with the block.

    Everything that Spark writes goes into `folder`, which is emptied before and removed after.
    Within a block that has a session already, that one is given and goes on. Raises `SparkError` if
    there is no Java or no PySpark.
    """
    if _open:
        yield _open[0]
        return
    java, package = find_java(), _package()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        # The package under another path: executors write into ``$SPARK_HOME/work``.
        home = folder / "home"
        home.mkdir(parents=True)
        for name in ("bin", "jars"):
            (home / name).symlink_to(package / name)
        with warnings.catch_warnings():
            # About pandas 3: only PySpark's Arrow interface is used here.
            warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
            with _environment(_variables(home, java)):
                _open.append(_start(config, folder))
            try:
                yield _open[0]
            finally:
                _stop(_open.pop())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def session_folder(work: Path) -> Path:
    """Where Spark keeps its files: beside the work folder `work`."""
    return work.with_name(f"{work.name}-spark")


def as_literal(path: Path) -> str:
    """`path` for Spark, which takes brackets and stars in a name for a pattern."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", str(path))


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


def _variables(spark_home: Path, java: Path) -> dict[str, str]:
    return {
        "SPARK_HOME": str(spark_home),
        "SPARK_LOCAL_IP": _LOOPBACK,
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
    from pyspark.sql import SparkSession

    master = f"local-cluster[{config.executors},{config.cores},{config.memory_mb}]"
    builder: Any = SparkSession.builder
    builder = builder.master(master).appName("recsys").config(map=_options(config, folder))
    session: SparkSession = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    # ALS cuts its lineage there every ten iterations: one of thirty is too deep to be sent.
    session.sparkContext.setCheckpointDir(str(folder / "checkpoints"))
    return session


def _options(config: SparkConfig, folder: Path) -> dict[str, str]:
    java = f"-Djava.io.tmpdir={folder} -XX:-UsePerfData"
    return {
        "spark.driver.bindAddress": _LOOPBACK,
        "spark.driver.host": _LOOPBACK,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.authenticate": "true",
        "spark.authenticate.secret": secrets.token_hex(32),
        "spark.driver.memory": f"{config.driver_memory_mb}m",
        "spark.executor.memory": f"{config.memory_mb}m",
        "spark.executor.cores": str(config.cores),
        "spark.local.dir": str(folder / "local"),
        "spark.driver.extraJavaOptions": java,
        "spark.executor.extraJavaOptions": java,
        "spark.executorEnv.PYTHONPATH": str(REPOSITORY / "include"),
        "spark.executorEnv.SPARK_LOCAL_IP": _LOOPBACK,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.shuffle.partitions": str(4 * config.executors * config.cores),
        "spark.executorEnv.TMPDIR": str(folder),
        "spark.executorEnv.PYTHONWARNINGS": "ignore",
        # Several BLAS threads in each of several workers only get in each other's way.
        "spark.executorEnv.OMP_NUM_THREADS": "1",
    }


def _stop(session: "SparkSession") -> None:
    """Stop the session and the Java process behind it, which PySpark keeps for the next session:
    that would go on with the first one's memory, environment and folder."""
    from pyspark import SparkContext

    context: Any = SparkContext
    gateway = context._gateway
    try:
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
