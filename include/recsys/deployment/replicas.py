"""Several replicas of the service behind one address, administered one by one.

A proxy hands a request to one replica. A model has to reach all of them, so the deployment
talks to each: ``RECSYS_SERVICE_REPLICAS`` lists their addresses.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recsys.deployment.client import ServiceClient, ServiceError
from recsys.deployment.config import DeploymentConfig, ServiceAddress, read_address

VARIABLE = "RECSYS_SERVICE_REPLICAS"


class ReplicatedService(ServiceClient):
    """All replicas as one service: what is asked of it, each of them has to do."""

    def __init__(self, addresses: Sequence[ServiceAddress], config: DeploymentConfig) -> None:
        super().__init__(addresses[0], config)
        self._replicas = [ServiceClient(address, config) for address in addresses]
        self._turn = itertools.cycle(self._replicas)

    def health(self) -> dict[str, Any]:
        """The answer of the first one; an error if one is unhealthy or serves another model."""
        answers = [replica.health() for replica in self._replicas]
        served = sorted({str(answer.get("model_id")) for answer in answers})
        if len(served) > 1:
            raise ServiceError(f"the replicas serve different models: {', '.join(served)}")
        return answers[0]

    def reload(self, model_id: str) -> None:
        """Serve `model_id` in every replica; those that can do so even if another cannot."""
        problems = []
        for number, replica in enumerate(self._replicas, start=1):
            try:
                replica.reload(model_id)
            except ServiceError as error:
                problems.append(f"replica {number}: {error}")
        if problems:
            raise ServiceError("; ".join(problems))

    def start_canary(self, model_id: str, share: float) -> None:
        """Start it in every replica: a user gets the same model from each."""
        for replica in self._replicas:
            replica.start_canary(model_id, share)

    def end_canary(self) -> None:
        for replica in self._replicas:
            replica.end_canary()

    def models_in_use(self) -> set[str]:
        return set().union(*(replica.models_in_use() for replica in self._replicas))

    def recommend(self, user_id: str, topk: int) -> dict[str, Any]:
        """The answer of the replica whose turn it is."""
        return next(self._turn).recommend(user_id, topk)


def connect_service(
    config: DeploymentConfig, variables: Mapping[str, str] | None = None
) -> ServiceClient:
    """A client of the service, or of all its replicas if the environment lists them."""
    variables = os.environ if variables is None else variables
    address = read_address(variables)
    urls = [url.strip().rstrip("/") for url in variables.get(VARIABLE, "").split(",")]
    addresses = [replace(address, url=url) for url in urls if url]
    if len(addresses) > 1:
        return ReplicatedService(addresses, config)
    return ServiceClient(addresses[0] if addresses else address, config)
