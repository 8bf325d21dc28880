"""What speaks against a model that answers some of the customers: its errors, the requests that it
leaves to a fallback, its latency. Of canaries and experiments alike, from the request log.

Few requests and many looks prove little: a rate counts as too high if it is so by three standard
errors, which a sound model hardly ever is, however often somebody looks."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from recsys.experiments.definitions import Guardrails

Traffic = Mapping[str, Any]
"""Of one model ``requests, error_rate, fallback_rate, avg_latency_ms`` (`recsys.request_log`)."""

_DEVIATIONS = 3.0


class Breach(NamedTuple):
    """A rate of `Traffic` beyond its limit, beside that of the others; of errors, which are judged
    by themselves, beside the limit."""

    rate: Literal["error_rate", "fallback_rate", "avg_latency_ms"]
    ours: float
    theirs: float


def broken_guardrail(
    ours: Traffic | None, theirs: Traffic | None, limits: Guardrails
) -> Breach | None:
    """Which of the `limits` the traffic `ours` breaks, compared with `theirs`; None if none, or if
    there were too few requests to judge by."""
    if ours is None or ours["requests"] < limits.min_requests:
        return None
    errors, requests = ours["error_rate"], ours["requests"]
    if _lowest(errors, requests) > limits.max_error_rate:
        return Breach("error_rate", errors, limits.max_error_rate)
    if theirs is None or theirs["requests"] < limits.min_requests:
        return None
    fallbacks, before = ours["fallback_rate"] or 0.0, theirs["fallback_rate"] or 0.0
    spread = _spread(fallbacks, requests) + _spread(before, theirs["requests"])
    if fallbacks - before - _DEVIATIONS * math.sqrt(spread) > limits.max_fallback_increase:
        return Breach("fallback_rate", fallbacks, before)
    latency, before = ours["avg_latency_ms"], theirs["avg_latency_ms"]
    if latency > limits.max_latency_ratio * before:
        return Breach("avg_latency_ms", latency, before)
    return None


def together(traffic: Iterable[Traffic]) -> Traffic | None:
    """The traffic of several models as that of one; None without any."""
    rows = [one for one in traffic if one["requests"]]
    requests = sum(one["requests"] for one in rows)
    if not requests:
        return None
    rates = ("error_rate", "fallback_rate", "avg_latency_ms")
    means = {
        rate: sum((one[rate] or 0.0) * one["requests"] for one in rows) / requests for rate in rates
    }
    return {"requests": requests, **means}


def _spread(rate: float, count: int) -> float:
    """Variance of a rate among `count`."""
    return rate * (1 - rate) / count


def _lowest(rate: float, count: int) -> float:
    """The least rate that `rate` of `count` is not too far from (Wilson)."""
    squared = _DEVIATIONS**2 / count
    middle = rate + squared / 2
    return (middle - math.sqrt(squared * (rate * (1 - rate) + squared / 4))) / (1 + squared)
