"""A live service on loopback, and a deployment that talks to it over HTTP."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from recsys.deployment import DeploymentConfig, VerifyConfig
from recsys.deployment.client import ServiceAddress, ServiceClient
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.ports import find_free_port
from tests.serving.service_process import service_in_thread

TOKEN = "the-admin-token-of-tests"


@contextlib.contextmanager
def running_service(settings: Settings, port: int, token: str | None = TOKEN) -> Iterator[None]:
    """The service in a thread of this process, listening on `port`."""
    app = create_app(settings, ServiceEnvironment(port=port, admin_token=token))
    with service_in_thread(app, port):
        yield


@pytest.fixture
def config() -> DeploymentConfig:
    return DeploymentConfig(patience_seconds=0.5, verify=VerifyConfig(sample_users=3))


@pytest.fixture
def port() -> int:
    return find_free_port()


@pytest.fixture
def client(port: int, config: DeploymentConfig) -> ServiceClient:
    return client_of(port, config)


def client_of(port: int, config: DeploymentConfig, token: str | None = TOKEN) -> ServiceClient:
    return ServiceClient(ServiceAddress(f"http://127.0.0.1:{port}", token), config)


@pytest.fixture
def service(settings: Settings, port: int) -> Callable[[], contextlib.AbstractContextManager]:
    return lambda: running_service(settings, port)
