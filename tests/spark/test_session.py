"""What is said where Spark cannot be used, and what is left after a session."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from recsys.config import load_config
from recsys.data.config import DataConfig
from recsys.refresh import Workspace, open_engine
from recsys.spark.session import SparkConfig, SparkError, find_java, spark_session
from tests.spark.cluster import java_is_missing


def fake_java(folder: Path, version: str) -> None:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)


def test_a_machine_without_java_is_told_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SparkError, match="needs Java 17 or later; install it or set engine"):
        find_java()


def test_an_old_java_is_refused(monkeypatch, tmp_path):
    fake_java(tmp_path / "old", "1.8.0_402")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    with pytest.raises(SparkError, match=r"1\.8\.0_402"):
        find_java()
    fake_java(tmp_path / "new", "21.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "new"))
    assert find_java() == tmp_path / "new" / "bin" / "java"


def test_without_pyspark_the_target_that_installs_it_is_named(tmp_path):
    fake_java(tmp_path, "17.0.1")
    code = (
        "import sys; sys.modules['pyspark'] = None\n"
        "from pathlib import Path\n"
        "from recsys.spark.session import SparkConfig, spark_session\n"
        "with spark_session(SparkConfig(), Path('x')): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "JAVA_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "install it by `make spark` or set engine: pandas" in done.stderr


@pytest.mark.skipif(java_is_missing(), reason="there is no java on this machine")
def test_a_cluster_without_a_secret_is_refused(tmp_path):
    config = SparkConfig(master="spark://127.0.0.1:7077")
    with pytest.raises(SparkError, match="RECSYS_SPARK_SECRET"), spark_session(config, tmp_path):
        pass


@pytest.mark.parametrize("master", ["spark://host", "host:7077", "local[4]", ""])
def test_a_master_of_no_kind_is_a_mistake(master):
    with pytest.raises(ValidationError, match="master"):
        SparkConfig(master=master)


def test_pandas_needs_no_session(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with open_engine(settings, load_config(settings, DataConfig), Workspace(tmp_path)):
        pass


LEAVES_NOTHING = """
import os, sys, tempfile
from pathlib import Path
import psutil
from recsys.spark.session import SparkConfig, spark_session
folder = Path(sys.argv[1])
try:
    with spark_session(SparkConfig(), folder) as session:
        assert session.range(10, numPartitions=4).count() == 10
        javas = [p for p in psutil.Process().children(recursive=True) if p.name() == "java"]
        open_to = {c.laddr.ip.removeprefix("::ffff:") for p in javas
                   for c in p.net_connections() if c.status == "LISTEN"}
        print(len(javas), *open_to)
        print(any("secret" in " ".join(p.cmdline()) for p in javas))
        raise RuntimeError("in the middle")
except RuntimeError:
    pass
print(any(p.is_running() for p in javas), folder.exists(), "SPARK_HOME" in os.environ)
print(Path(tempfile.gettempdir()).is_relative_to(folder))
"""


@pytest.mark.skipif(java_is_missing(), reason="there is no java on this machine")
@pytest.mark.boots
def test_a_session_listens_on_loopback_and_leaves_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_NOTHING, str(tmp_path / "spark")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.splitlines() == ["3 127.0.0.1", "False", "False False False", "False"], (
        done.stderr
    )
