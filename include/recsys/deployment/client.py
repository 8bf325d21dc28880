"""The service, as the deployment sees it: a few HTTP requests, to each of its replicas, which
``RECSYS_SERVICE_REPLICAS`` lists: a proxy would hand a model to one of them only. An entry
``dns+http://name:port`` stands for all addresses that the name has at the time."""

import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from recsys.deployment import DeploymentConfig
from recsys.experiments.definitions import CHECK_PLACEMENT

REPLICAS_VARIABLE = "RECSYS_SERVICE_REPLICAS"
_NAMED = "dns+"
# Any answer but that to a reload takes milliseconds; a service that needs seconds is out of order.
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 1.0
_ADMINISTRATION = ("/canary", "/reload_model", "/rules")

Result = TypeVar("Result")


@dataclass(frozen=True)
class ServiceAddress:
    """Where the service listens, and the token that it wants for administration."""

    url: str = "http://127.0.0.1:8000"
    token: str | None = field(default=None, repr=False)


def read_address(variables: Mapping[str, str] = os.environ) -> ServiceAddress:
    """The service's address and token from the environment."""
    return ServiceAddress(
        (variables.get("RECSYS_SERVICE_URL") or ServiceAddress.url).rstrip("/"),
        variables.get("RECSYS_ADMIN_TOKEN", "").strip() or None,
    )


class ServiceError(Exception):
    """The service did not answer, or answered with an error; the text says which."""


class DividedServiceError(ServiceError):
    """Some replicas serve another model than others, or failed where others did not."""


class ServiceClient:
    """Asks the service at `address`. Every method raises `ServiceError` on failure."""

    def __init__(
        self, address: ServiceAddress, config: DeploymentConfig, seconds: float = _ANSWER_SECONDS
    ) -> None:
        self._address, self._config, self._answer_seconds = address, config, seconds

    def health(self) -> dict[str, Any]:
        """The content of ``/health``. An unhealthy service is an error."""
        return self._ask("GET", "/health")

    def serving_model(self) -> str | None:
        """The id of the model in service, None when there is none."""
        served: str | None = self._ask("GET", "/health", needed="model_id")["model_id"]
        return served

    def wait_for_serving_model(self) -> str | None:
        """The same, waiting for a service that is not there yet, for the configured patience."""
        until = time.monotonic() + self._config.patience_seconds
        while True:
            try:
                return self.serving_model()
            except ServiceError as error:
                if isinstance(error, DividedServiceError) or time.monotonic() >= until:
                    raise
            time.sleep(_PAUSE_SECONDS)

    def models_in_use(self) -> set[str]:
        """Ids of the model in service and of the one on trial, if there are any."""
        report = self._ask("GET", "/canary?minutes=1")
        return {str(report[key]) for key in ("model_id", "canary_model_id") if report.get(key)}

    def reload(self, model_id: str) -> None:
        """Serve `model_id` in every worker, or fail and serve what was served."""
        self._ask("POST", "/reload_model", {"model_id": model_id})

    def start_canary(self, model_id: str, share: float) -> None:
        """Serve `model_id` to a share of the users, beside the model in service."""
        self._ask("POST", "/canary", {"model_id": model_id, "share": share})

    def end_canary(self) -> None:
        """Serve everybody with the model in service again."""
        self._ask("DELETE", "/canary")

    def traffic_by_model(self, minutes: float) -> dict[str, dict[str, Any]]:
        """Requests, error_rate, fallback_rate, avg_latency_ms of each model that answered."""
        report = self._ask("GET", f"/canary?minutes={minutes:g}")
        return {row["model_id"]: row for row in report["models"]}

    def recommend(self, user_id: str, topk: int) -> dict[str, Any]:
        """The answer of ``/recommend`` by the deployed model, whatever experiments run."""
        asked = {"user_id": user_id, "topk": topk, "placement": CHECK_PLACEMENT}
        return self._ask("POST", "/recommend", asked)

    def rules(self) -> dict[str, Any]:
        """The rules in service and what they will not get: the answer of ``/rules``."""
        return self._ask("GET", "/rules")

    def preview_rules(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """A list without the rules and with them: the answer of ``/rules/preview``."""
        return self._ask("POST", "/rules/preview", dict(asked))

    def _ask(
        self, method: str, path: str, body: Any = None, needed: str | None = None
    ) -> dict[str, Any]:
        """The JSON of an answer that is no error, or, whatever its status, has the key `needed`."""
        url, token = self._address.url + path, self._address.token
        headers, seconds = {}, self._answer_seconds
        if path.startswith(_ADMINISTRATION):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            seconds = self._config.reload_timeout_seconds if body is not None else seconds
        ask = partial(requests.request, json=body, headers=headers, allow_redirects=False)
        try:
            answer = ask(method, url, timeout=seconds)
            content = answer.json() if answer.content else {}
        except requests.JSONDecodeError as error:
            raise ServiceError(f"{method} {url} did not answer with JSON") from error
        except requests.RequestException as error:
            raise ServiceError(f"{method} {url} failed: {type(error).__name__}") from error
        if not isinstance(content, dict):
            raise ServiceError(f"{method} {url} did not answer with a JSON object")
        if not (needed in content if needed else answer.status_code in (200, 204)):
            sentence = str(content.get("detail") or content)[:500]
            raise ServiceError(f"{method} {path} answered {answer.status_code}: {sentence}")
        return content


class ReplicatedService(ServiceClient):
    """All replicas as one service: what is asked of it, each of them has to do, even if another
    failed. Raises `ServiceError` if all failed, `DividedServiceError` if some did, with what each
    of them said."""

    def __init__(self, addresses: Sequence[ServiceAddress], config: DeploymentConfig) -> None:
        super().__init__(addresses[0], config)
        self._replicas = [ServiceClient(address, config) for address in addresses]
        self._turn = itertools.cycle(self._replicas)

    def health(self) -> dict[str, Any]:
        """The answer of the first one; an error if one is unhealthy or serves another model."""
        answers = self._each(ServiceClient.health)
        _the_one([answer.get("model_id") for answer in answers])
        return answers[0]

    def serving_model(self) -> str | None:
        """The model that all of them serve."""
        return _the_one(self._each(ServiceClient.serving_model))

    def models_in_use(self) -> set[str]:
        return set().union(*self._each(ServiceClient.models_in_use))

    def reload(self, model_id: str) -> None:
        self._each(lambda replica: replica.reload(model_id))

    def start_canary(self, model_id: str, share: float) -> None:
        """Start it in every replica: a user gets the same model from each."""
        self._each(lambda replica: replica.start_canary(model_id, share))

    def end_canary(self) -> None:
        self._each(ServiceClient.end_canary)

    def recommend(self, user_id: str, topk: int) -> dict[str, Any]:
        """The answer of the replica whose turn it is."""
        return next(self._turn).recommend(user_id, topk)

    def _each(self, ask: Callable[[ServiceClient], Result]) -> list[Result]:
        answers, problems = [], []
        for number, replica in enumerate(self._replicas, start=1):
            try:
                answers.append(ask(replica))
            except ServiceError as error:
                problems.append(f"replica {number}: {error}")
        if problems:
            raise (DividedServiceError if answers else ServiceError)("; ".join(problems))
        return answers


def connect_service(
    config: DeploymentConfig, variables: Mapping[str, str] = os.environ
) -> ServiceClient:
    """A client of the service, or of all its replicas if the environment lists them. Raises
    `ServiceError` if a name among them has no address."""
    address = read_address(variables)
    listed = [url.strip().rstrip("/") for url in variables.get(REPLICAS_VARIABLE, "").split(",")]
    urls = itertools.chain.from_iterable(_addresses_of(url) for url in listed if url)
    addresses = [replace(address, url=url) for url in urls] or [address]
    if len(addresses) > 1:
        return ReplicatedService(addresses, config)
    return ServiceClient(addresses[0], config)


def _addresses_of(url: str) -> list[str]:
    """The url itself; of ``dns+http`` one for each address of its name."""
    if not url.startswith(_NAMED):
        return [url]
    parts = urlsplit(url.removeprefix(_NAMED))
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServiceError(f"{REPLICAS_VARIABLE}: {url}: {error}") from error
    hosts = sorted({str(place[0]) for *_, place in found})
    hosts = [f"[{host}]" if ":" in host else host for host in hosts]
    return [f"{parts.scheme}://{host}:{parts.port}" for host in hosts]


def _the_one(served: Sequence[str | None]) -> str | None:
    if len(set(served)) > 1:
        models = ", ".join(map(str, served))
        raise DividedServiceError(f"the replicas serve different models: {models}, in their order")
    return served[0]
