"""An S3 server for the tests of this folder, and a bucket for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.settings import Settings
from recsys.storage import Store, open_store
from tests.storage.buckets import CREDENTIALS, machine, new_bucket, s3_server


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3") / "server.log") as address:
        yield address


@pytest.fixture
def bucket(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a bucket of the test's own, with credentials in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return new_bucket(s3_address)


@pytest.fixture
def join(bucket: str, s3_address: str, tmp_path: Path) -> Callable[[str], Settings]:
    """Adds a machine of a name to those that share the bucket."""
    return lambda name: machine(tmp_path / name, bucket, s3_address)


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.boots)])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Settings, Settings]:
    """Two users of one store: of one state root, or on two machines with a bucket."""
    if request.param == "file":
        settings = Settings(tmp_path / "home")
        return settings, settings
    join = request.getfixturevalue("join")
    return join("a"), join("b")


@pytest.fixture
def stores(two: tuple[Settings, Settings]) -> tuple[Store, Store]:
    return open_store(two[0]), open_store(two[1])
