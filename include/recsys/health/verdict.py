"""How a check says what it found: a mapping that travels as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from recsys.alerting import Severity


class Finding(NamedTuple):
    """Something that is not as it should be, in one sentence without a full stop."""

    problem: str
    severity: Severity = Severity.CRITICAL


def verdict(problems: Sequence[Finding], **details: Any) -> dict[str, Any]:
    """The result of a check: ``healthy``, the `details`, and if there are problems ``severity`` (of
    the worst one), ``error`` (all of them as one text) and ``problems`` (each with its severity).
    """
    if not problems:
        return {"healthy": True, **details}
    ordered = sorted(problems, key=lambda problem: -problem.severity.rank)
    return {
        "healthy": False,
        **details,
        "severity": ordered[0].severity.value,
        "error": "; ".join(one.problem for one in ordered),
        "problems": [{"severity": one.severity.value, "problem": one.problem} for one in ordered],
    }
