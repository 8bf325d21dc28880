"""The service, as the deployment sees it: a few HTTP requests, to each of its replicas.

A proxy hands a request to one replica. A model has to reach all of them, so the deployment
talks to each: ``RECSYS_SERVICE_REPLICAS`` lists their addresses.
"""

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import requests

from recsys.deployment import DeploymentConfig

REPLICAS_VARIABLE = "RECSYS_SERVICE_REPLICAS"
# Any answer but that to a reload takes milliseconds; a service that needs seconds is out of order.
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class ServiceAddress:
    """Where the service listens, and the token that it wants for administration."""

    url: str = "http://127.0.0.1:8000"
    token: str | None = field(default=None, repr=False)


def read_address(variables: Mapping[str, str] | None = None) -> ServiceAddress:
    """The service's address and token from the environment."""
    variables = os.environ if variables is None else variables
    return ServiceAddress(
        url=(variables.get("RECSYS_SERVICE_URL") or "http://127.0.0.1:8000").rstrip("/"),
        token=variables.get("RECSYS_ADMIN_TOKEN", "").strip() or None,
    )


class ServiceError(Exception):
    """The service did not answer, or answered with an error; the text says which."""


class ServiceClient:
    """Asks the service at `address`. Every method raises `ServiceError` on failure."""

    def __init__(
        self,
        address: ServiceAddress,
        config: DeploymentConfig,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        self._address = address
        self._config = config
        self._answer_seconds = answer_seconds

    def health(self) -> dict[str, Any]:
        """The content of ``/health``. An unhealthy service is an error."""
        return self._ask("GET", "/health")

    def serving_model(self) -> str | None:
        """The id of the model in service, None when there is none."""
        status, content = self._exchange("GET", "/health")
        if "model_id" not in content:
            raise ServiceError(f"GET /health answered {status}: {_sentence(content)}")
        model_id = content["model_id"]
        return None if model_id is None else str(model_id)

    def models_in_use(self) -> set[str]:
        """Ids of the model in service and of the one on trial, if there are any."""
        report = self._ask("GET", "/canary?minutes=1", headers=self._admin())
        found = (report.get("model_id"), report.get("canary_model_id"))
        return {str(model_id) for model_id in found if model_id}

    def wait_for_serving_model(self) -> str | None:
        """The same, waiting for a service that is not there yet, for the configured patience."""
        until = time.monotonic() + self._config.patience_seconds
        while True:
            try:
                return self.serving_model()
            except ServiceError:
                if time.monotonic() >= until:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def reload(self, model_id: str) -> None:
        """Serve `model_id` in every worker, or fail and serve what was served."""
        self._load("/reload_model", {"model_id": model_id})

    def start_canary(self, model_id: str, share: float) -> None:
        """Serve `model_id` to a share of the users, beside the model in service."""
        self._load("/canary", {"model_id": model_id, "share": share})

    def end_canary(self) -> None:
        """Serve everybody with the model in service again."""
        status, content = self._exchange("DELETE", "/canary", headers=self._admin())
        if status != 204:
            raise ServiceError(f"DELETE /canary answered {status}: {_sentence(content)}")

    def traffic_by_model(self, minutes: float) -> dict[str, dict[str, Any]]:
        """Requests, error_rate, fallback_rate, avg_latency_ms of each model that answered."""
        report = self._ask("GET", f"/canary?minutes={minutes:g}", headers=self._admin())
        return {row["model_id"]: row for row in report["models"]}

    def recommend(self, user_id: str, topk: int) -> dict[str, Any]:
        """The answer of ``/recommend``."""
        return self._ask("POST", "/recommend", {"user_id": user_id, "topk": topk})

    def _load(self, path: str, body: Any) -> None:
        seconds = self._config.reload_timeout_seconds
        self._ask("POST", path, body, headers=self._admin(), timeout=seconds)

    def _admin(self) -> dict[str, str]:
        token = self._address.token
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _ask(self, method: str, path: str, body: Any = None, **options: Any) -> dict[str, Any]:
        status, content = self._exchange(method, path, body, **options)
        if status != 200:
            raise ServiceError(f"{method} {path} answered {status}: {_sentence(content)}")
        return content

    def _exchange(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[int, dict[str, Any]]:
        url = self._address.url + path
        try:
            answer = requests.request(
                method,
                url,
                json=body,
                headers=headers,
                timeout=timeout or self._answer_seconds,
                allow_redirects=False,
            )
            content = answer.json() if answer.content else {}
        except requests.JSONDecodeError as error:
            raise ServiceError(f"{method} {url} did not answer with JSON") from error
        except requests.RequestException as error:
            raise ServiceError(f"{method} {url} failed: {type(error).__name__}") from error
        if not isinstance(content, dict):
            raise ServiceError(f"{method} {url} did not answer with a JSON object")
        return answer.status_code, content


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
    urls = [url.strip().rstrip("/") for url in variables.get(REPLICAS_VARIABLE, "").split(",")]
    addresses = [replace(address, url=url) for url in urls if url]
    if len(addresses) > 1:
        return ReplicatedService(addresses, config)
    return ServiceClient(addresses[0] if addresses else address, config)


def _sentence(content: dict[str, Any]) -> str:
    return str(content.get("detail") or content)[:500]
