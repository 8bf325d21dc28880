"""One session for all tests of a module: starting Java is what takes the time."""

from collections.abc import Iterator

import pytest

from recsys.spark.session import SparkConfig, spark_session
from tests.spark.cluster import java_is_missing


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A running cluster of two executors, each a process of its own."""
    if java_is_missing():
        pytest.skip("there is no java on this machine")
    with spark_session(SparkConfig(), tmp_path_factory.mktemp("cluster") / "spark"):
        yield
