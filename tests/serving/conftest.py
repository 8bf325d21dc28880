"""A service over a small shop, in this process and with a token."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.serving.shops import add_model

TOKEN = "a-token-for-tests"


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A service with one model."""
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment(admin_token=TOKEN))) as client:
        yield client


@pytest.fixture
def admin() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="session")
def shared_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One service for all tests that leave it as it is."""
    settings = Settings(tmp_path_factory.mktemp("shared"))
    add_model(settings, "als_1")
    with TestClient(create_app(settings, ServiceEnvironment(admin_token=TOKEN))) as client:
        yield client
