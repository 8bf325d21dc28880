"""Two services over one state root: a model reaches both, or neither keeps it."""

import socket

import pytest
import requests

from recsys.deployment import DeploymentConfig, job
from recsys.deployment.client import (
    ReplicatedService,
    ServiceClient,
    ServiceError,
    connect_service,
)
from recsys.deployment.job import DeploymentFailedError
from tests.ports import find_free_port
from tests.serving.service_process import running_service
from tests.serving.shops import add_model

pytestmark = pytest.mark.boots


@pytest.fixture
def replicas(settings, monkeypatch):
    """Addresses of two running services that serve als_1."""
    (settings.home / "config").mkdir(parents=True)
    (settings.home / "config" / "deployment.yaml").write_text("patience_seconds: 1\n")
    add_model(settings, "als_1")
    ports = (find_free_port(), find_free_port())
    with running_service(settings, ports[0]), running_service(settings, ports[1]):
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        monkeypatch.setenv("RECSYS_SERVICE_REPLICAS", ", ".join(addresses))
        monkeypatch.setenv("RECSYS_ADMIN_TOKEN", "tok")
        yield addresses


def served(addresses):
    return [requests.get(f"{url}/health", timeout=5).json()["model_id"] for url in addresses]


def test_a_model_is_deployed_to_every_replica_and_taken_back_from_every_one(
    settings, replicas, monkeypatch
):
    add_model(settings, "als_2", recall=0.2, seed=1)
    plan = job.check_gate(settings, {})
    summary = job.bring_into_service(settings, plan, {})
    assert summary["status"] == "success"
    assert served(replicas) == ["als_2", "als_2"]

    # A third that does not exist: those that took the model have to give it back.
    add_model(settings, "als_3", recall=0.3, seed=2)
    plan = job.check_gate(settings, {})
    unreachable = f"http://127.0.0.1:{find_free_port()}"
    monkeypatch.setenv("RECSYS_SERVICE_REPLICAS", ",".join([*replicas, unreachable]))
    with pytest.raises(DeploymentFailedError, match="replica 3"):
        job.bring_into_service(settings, plan, {})
    assert served(replicas) == ["als_2", "als_2"]

    service = connect_service(DeploymentConfig())
    assert isinstance(service, ReplicatedService)


def test_without_a_list_of_replicas_there_is_one_service():
    service = connect_service(DeploymentConfig(), {"RECSYS_SERVICE_URL": "http://127.0.0.1:1"})
    assert type(service) is ServiceClient


def test_a_name_stands_for_all_addresses_that_it_has():
    variables = {"RECSYS_SERVICE_REPLICAS": "dns+http://localhost:8000", "RECSYS_ADMIN_TOKEN": "t"}
    found = {place[0] for *_, place in socket.getaddrinfo("localhost", 8000)}
    service = connect_service(DeploymentConfig(), variables)
    clients = service._replicas if isinstance(service, ReplicatedService) else [service]
    addresses = {client._address.url: client._address.token for client in clients}
    assert set(addresses) == {
        f"http://[{host}]:8000" if ":" in host else f"http://{host}:8000" for host in found
    }
    assert set(addresses.values()) == {"t"}


def test_a_name_without_an_address_is_an_error_that_names_it():
    variables = {"RECSYS_SERVICE_REPLICAS": "dns+http://no-such-service.invalid:8000"}
    with pytest.raises(ServiceError, match=r"dns\+http://no-such-service\.invalid:8000: "):
        connect_service(DeploymentConfig(), variables)
