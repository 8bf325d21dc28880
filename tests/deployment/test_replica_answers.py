"""What is asked of several replicas, each of which answers for itself."""

import pytest

from recsys.deployment import CanaryConfig, DeploymentConfig
from recsys.deployment.client import (
    ReplicatedService,
    ServiceAddress,
    ServiceClient,
    ServiceError,
)
from recsys.deployment.verification import try_on_some_users


class Swap:
    model_id, serving = "new", "old"


@pytest.fixture
def canaries(monkeypatch):
    """Which replicas have a canary; the addresses in `canaries.broken` refuse to do anything."""

    class Canaries(set):
        broken: frozenset = frozenset()

    on = Canaries()

    def start(client, model_id, share):
        refuse(client)
        on.add(client._address.url)

    def end(client):
        refuse(client)
        on.discard(client._address.url)

    def refuse(client):
        if client._address.url in on.broken:
            raise ServiceError("it is broken")

    monkeypatch.setattr(ServiceClient, "start_canary", start)
    monkeypatch.setattr(ServiceClient, "end_canary", end)
    return on


@pytest.fixture
def replicas():
    config = DeploymentConfig(patience_seconds=0)
    return ReplicatedService([ServiceAddress("one"), ServiceAddress("two")], config)


@pytest.mark.parametrize("broken", ["one", "two"])
def test_a_canary_that_cannot_be_started_everywhere_is_ended_where_it_was(
    canaries, replicas, broken
):
    canaries.broken = frozenset({broken})
    with pytest.raises(ServiceError, match="it is broken"):
        try_on_some_users(replicas, CanaryConfig(), Swap)
    assert canaries == set()


def test_a_canary_is_ended_in_every_replica_that_can_even_if_another_cannot(canaries, replicas):
    canaries |= {"one", "two"}
    canaries.broken = frozenset({"one"})
    with pytest.raises(ServiceError, match="replica 1: it is broken"):
        replicas.end_canary()
    assert canaries == {"one"}


def test_replicas_that_serve_different_models_are_told_of(replicas, monkeypatch):
    monkeypatch.setattr(ServiceClient, "serving_model", lambda client: client._address.url)
    with pytest.raises(ServiceError, match="different models: one, two"):
        replicas.serving_model()


def test_a_replica_that_does_not_answer_is_not_overlooked(replicas, monkeypatch):
    def answer(client):
        if client._address.url == "two":
            raise ServiceError("it is down")
        return "als_1"

    monkeypatch.setattr(ServiceClient, "serving_model", answer)
    with pytest.raises(ServiceError, match="replica 2: it is down"):
        replicas.serving_model()
