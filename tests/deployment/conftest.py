"""A live service on loopback, and a deployment that talks to it over HTTP."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn

from recsys.deployment import DeploymentConfig, VerifyConfig
from recsys.deployment.client import ServiceAddress, ServiceClient
from recsys.settings import Settings
from serving.app import create_app
from serving.config import ServiceEnvironment
from tests.conftest import find_free_port

TOKEN = "the-admin-token-of-tests"


@contextlib.contextmanager
def running_service(settings: Settings, port: int, token: str | None = TOKEN) -> Iterator[None]:
    """The service in a thread of this process, listening on `port`."""
    app = create_app(settings, ServiceEnvironment(port=port, admin_token=token))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=20)


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
