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
from recsys.health.verdict import Finding, critical, verdict
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
    and ``severity``.
    """
    settings = settings or load_settings()
    url = read_address().url
    began = time.perf_counter()
    try:
        answer = requests.get(f"{url}/health", timeout=_TIMEOUT)
    except requests.RequestException as error:
        return verdict([critical(f"GET {url}/health failed: {type(error).__name__}")])
    latency = (time.perf_counter() - began) * 1000
    content = _json_object(answer)
    details: dict[str, Any] = {"latency_ms": round(latency, 2), "response": content}
    severity = Severity.CRITICAL
    problem: str | None
    answered = f"GET {url}/health answered {answer.status_code}"
    if content is None:
        problem = f"{answered} without a JSON object"
    elif answer.status_code != 200:
        severity = _severity(settings, content)
        problem = f"{answered}: {content.get('detail') or content.get('status')}"
    else:
        details["recommendations"], problem = _trial(url)
    return verdict([Finding(severity, problem)] if problem else [], **details)


def serving_model() -> str | None:
    """Id of the model in service; None when there is none or the service does not say."""
    try:
        answer = requests.get(f"{read_address().url}/health", timeout=_TIMEOUT)
    except requests.RequestException:
        return None
    return (_json_object(answer) or {}).get("model_id")


def service_metrics(settings: Settings, config: MetricsConfig, now: datetime) -> dict[str, Any]:
    """Requests of the last ``metrics.window_minutes`` before `now`, without the health check's.

    Returns ``window_minutes``, ``requests`` and ``requests_per_minute`` (None if the service never
    wrote a request); ``avg_latency_ms``, ``p95_latency_ms`` (nearest rank), ``error_rate`` (the
    service's own failures: a caller's bad request is none), ``fallback_rate`` (of the requests that
    can have one) and ``known_fallback_rate`` (of those of customers whom the model knows:
    ``known_requests``), each None without requests.
    """
    minutes = config.window_minutes
    since = now - timedelta(minutes=minutes)
    found = read_traffic(settings.service_db, since, now, TRIAL_USER) or {}
    requests_made = found.get("requests")
    rates = {name: found.get(name) for name in (*RATES, "known_fallback_rate")}
    return {
        "window_minutes": minutes,
        "requests": requests_made,
        "requests_per_minute": None if requests_made is None else round(requests_made / minutes, 3),
        **{name: None if rate is None else round(rate, 4) for name, rate in rates.items()},
        "known_requests": found.get("known_requests"),
    }


def judged(metrics: Mapping[str, Any], min_requests: int) -> dict[str, float | None]:
    """The metrics that rules may be held against: rates of too few requests are unknown.

    ``fallback_rate`` is that of customers whom the model knows: visitors whom nobody knows get
    what is popular, and however many come on a day, that is no failure.
    """
    known = {name: metrics[name] for name in ("requests", "requests_per_minute", *RATES)}
    known["fallback_rate"] = metrics["known_fallback_rate"]
    if (metrics["requests"] or 0) < min_requests:
        known |= dict.fromkeys(RATES)
    if (metrics["known_requests"] or 0) < min_requests:
        known["fallback_rate"] = None
    return known


def _trial(url: str) -> tuple[int | None, str | None]:
    """How many products a trial recommendation has, and what is wrong with it."""
    what, asked = f"POST {url}/recommend", {"user_id": TRIAL_USER, "topk": _TRIAL_TOPK}
    try:
        answer = requests.post(f"{url}/recommend", json=asked, timeout=_TIMEOUT)
    except requests.RequestException as error:
        return None, f"{what} failed: {type(error).__name__}"
    content = _json_object(answer)
    if answer.status_code != 200 or content is None:
        return None, f"{what} answered {answer.status_code}"
    products = content.get("recommendations")
    if not isinstance(products, list) or not products:
        return 0, f"{what} answered with an empty list of recommendations"
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


def _json_object(answer: requests.Response) -> dict[str, Any] | None:
    try:
        content = answer.json()
    except requests.JSONDecodeError:
        return None
    return content if isinstance(content, dict) else None
