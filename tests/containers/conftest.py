"""One engine, one set of images and one running stack for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.bases import make_bases
from tests.containers.engine import Engine, running_engine, why_not
from tests.containers.stack import PROFILES, Containers, new_containers
from tests.containers.volume import small_volume
from tests.containers.wheels import torch_index

ORDER = (
    "test_images",
    "test_first_run",
    "test_watching",
    "test_deploy",
    "test_drills",
    "test_backup",
)
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Nothing here is run but by `make container-test`, in the order of a stack's life."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.containers)
            item.add_marker(pytest.mark.boots)
            item.add_marker(pytest.mark.timeout(1800))
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else 0)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if reason := why_not():
        pytest.skip(f"no container engine: {reason}")
    with running_engine() as engine:
        for left in engine.docker("ps", "--all", "--quiet").split():
            engine.docker("rm", "--force", "--volumes", left)
        engine.docker("volume", "prune", "--force")
        engine.docker("network", "prune", "--force")
        engine.docker("image", "prune", "--force")
        engine.docker("builder", "prune", "--force", "--keep-storage", "10gb")
        yield engine


@pytest.fixture(scope="session")
def images(engine: Engine) -> Containers:
    """The two images, built as documented; nothing is started."""
    make_bases(engine)
    containers = new_containers(engine)
    with torch_index() as index:
        containers.build(index)
    return containers


@pytest.fixture(scope="session")
def started(images: Containers) -> Iterator[Containers]:
    """Everything is up, and nothing was ever refreshed or trained."""
    with small_volume(images.engine):
        images.up()
        try:
            yield images
        finally:
            images.compose(*PROFILES, "kill")
    images.compose(*PROFILES, "down", "--volumes")
    left = (
        images.engine.docker("ps", "--all", "--quiet"),
        images.engine.docker("volume", "ls", "-q"),
    )
    assert left == ("", "")


@pytest.fixture(scope="session")
def serving(started: Containers) -> Containers:
    """A stack in which the documented first run has ended well: both services have a model."""
    from tests.containers.test_first_run import first_run

    first_run(started)
    return started
