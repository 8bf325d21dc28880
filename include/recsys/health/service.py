"""Is the recommendation service there, does it recommend, and what did it do lately?"""

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import requests

from recsys.alerting import Severity
from recsys.deployment.client import read_address
from recsys.errors import InputError
from recsys.health.config import MetricsConfig
from recsys.health.verdict import Finding, verdict
from recsys.pseudonyms import names_in_logs
from recsys.registry import Registry
from recsys.request_log import read_traffic
from recsys.settings import Settings, load_settings

TRIAL_USER: Final = "health-check"
"""Whom the trial recommendation is for; the metrics of the service leave these requests out."""

RATES: Final = ("avg_latency_ms", "p95_latency_ms", "error_rate", "fallback_rate")

_TIMEOUT: Final = 5  # seconds for each answer
_TRIAL_TOPK: Final = 5
_NO_MODEL: Final = "no_model"


def check_service_health(settings: Settings | None = None) -> dict[str, Any]:
    """Ask ``GET /health``, then for a recommendation: a service whose lists are empty is ill.

    Returns ``healthy``; when the service answered ``latency_ms`` and ``response`` (of ``/health``)
    and ``recommendations`` (how many the trial gave, None if it failed); when unhealthy ``error``
    and ``severity``."""
    began = time.perf_counter()
    answered, status, content = _ask("GET", "/health")
    latency = (time.perf_counter() - began) * 1000
    if status is None:
        return verdict([Finding(answered)])
    details: dict[str, Any] = {"latency_ms": round(latency, 2), "response": content}
    if content is None:
        return verdict([Finding(f"{answered} without a JSON object")], **details)
    if status != 200:
        problem = f"{answered}: {content.get('detail') or content.get('status')}"
        severity = _severity(settings or load_settings(), content)
        return verdict([Finding(problem, severity)], **details)
    details["recommendations"], failure = _trial()
    return verdict([Finding(failure)] if failure else [], **details)


def serving_model() -> str | None:
    """Id of the model in service; None when there is none or the service does not say."""
    _, _, content = _ask("GET", "/health")
    return (content or {}).get("model_id")


def service_metrics(settings: Settings, config: MetricsConfig, now: datetime) -> dict[str, Any]:
    """Requests of the last ``metrics.window_minutes`` before `now`, without the health check's.

    Returns ``window_minutes``, ``requests`` and ``requests_per_minute`` (None if the service never
    wrote a request); ``avg_latency_ms``, ``p95_latency_ms`` (nearest rank), ``error_rate`` (the
    service's own failures: a caller's bad request is none), ``fallback_rate`` (of the requests that
    can have one) and ``known_fallback_rate`` (of those of customers whom the model knows:
    ``known_requests``), each None without requests."""
    minutes = config.window_minutes
    since = now - timedelta(minutes=minutes)
    trial = names_in_logs(settings, TRIAL_USER)
    found = read_traffic(settings.service_db, since, now, TRIAL_USER, trial) or {}
    made = found.get("requests")
    rates = {name: found.get(name) for name in (*RATES, "known_fallback_rate")}
    return {
        "window_minutes": minutes,
        "requests": made,
        "requests_per_minute": None if made is None else round(made / minutes, 3),
        **{name: None if rate is None else round(rate, 4) for name, rate in rates.items()},
        "known_requests": found.get("known_requests"),
    }


def judged(metrics: Mapping[str, Any], min_requests: int) -> dict[str, float | None]:
    """The metrics that rules may be held against: rates of too few requests are unknown.

    ``fallback_rate`` is that of customers whom the model knows: visitors whom nobody knows get
    what is popular, and however many come on a day, that is no failure."""
    known = {name: metrics[name] for name in ("requests", "requests_per_minute", *RATES)}
    known["fallback_rate"] = metrics["known_fallback_rate"]
    if (metrics["requests"] or 0) < min_requests:
        known |= dict.fromkeys(RATES)
    if (metrics["known_requests"] or 0) < min_requests:
        known["fallback_rate"] = None
    return known


def _trial() -> tuple[int | None, str | None]:
    """How many products a trial recommendation has, and what is wrong with it."""
    asked = {"user_id": TRIAL_USER, "topk": _TRIAL_TOPK}
    answered, status, content = _ask("POST", "/recommend", asked)
    if status != 200 or content is None:
        return None, answered
    products = content.get("recommendations")
    if not isinstance(products, list) or not products:
        return 0, f"{answered} with an empty list of recommendations"
    return len(products), None


def _severity(settings: Settings, content: dict[str, Any]) -> Severity:
    """A service without a model is no emergency as long as no model was ever selected."""
    if content.get("status") != _NO_MODEL:
        return Severity.CRITICAL
    try:
        selected = Registry(settings).current_best() is not None
    except InputError:
        selected = True
    return Severity.CRITICAL if selected else Severity.WARNING


def _ask(method: str, path: str, body: Any = None) -> tuple[str, int | None, dict[str, Any] | None]:
    """What came of a request, in words; the answer's status and JSON object, as far as it has."""
    url = f"{read_address().url}{path}"
    try:
        answer = requests.request(method, url, json=body, timeout=_TIMEOUT)
    except requests.RequestException as error:
        return f"{method} {url} failed: {type(error).__name__}", None, None
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        content = None
    answered = f"{method} {url} answered {answer.status_code}"
    return answered, answer.status_code, content if isinstance(content, dict) else None
