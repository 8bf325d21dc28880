"""How a check says what it found: a mapping that travels as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from recsys.alerting import Severity


class Finding(NamedTuple):
    """Something that is not as it should be, in one sentence without a full stop."""

    severity: Severity
    problem: str


def critical(problem: str) -> Finding:
    return Finding(Severity.CRITICAL, problem)


def verdict(problems: Sequence[Finding], **details: Any) -> dict[str, Any]:
    """The result of a check.

    ``healthy``, the `details`, and if there are problems ``severity`` (that of the worst one),
    ``error`` (all of them as one text) and ``problems`` (each with its severity).
    """
    if not problems:
        return {"healthy": True, **details}
    ordered = sorted(problems, key=lambda problem: -problem.severity.rank)
    return {
        "healthy": False,
        **details,
        "severity": ordered[0].severity.value,
        "error": "; ".join(problem for _, problem in ordered),
        "problems": [
            {"severity": severity.value, "problem": problem} for severity, problem in ordered
        ],
    }
