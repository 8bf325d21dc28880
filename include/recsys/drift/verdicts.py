"""From evidence to alarms: chance over many tests, two weeks in a row, severity.

A test for each of a dozen questions every week would be wrong about one of them every few
weeks. Benjamini-Hochberg keeps the false share of each week's evidence down, the change has to
be large enough to matter, and it has to be there in two weeks in a row, in the same direction.
One quiet week clears. A collapse of the volume, a burst and a campaign do not wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.drift.checks import INSUFFICIENT, Check
from recsys.drift.config import Severity
from recsys.drift.statistics import false_discoveries

_ORDER: dict[Severity, int] = {"low": 0, "medium": 1, "high": 2}


@dataclass(frozen=True)
class Verdict:
    """What a check of this week means in the light of the week before.

    `evidence` and `evidence_before`: large, and beyond chance, in this and the previous week.
    """

    check: Check
    evidence: bool
    evidence_before: bool
    raised: bool

    @property
    def severity(self) -> Severity:
        return self.check.severity if self.raised else "low"


def judge(this: Sequence[Check], before: Sequence[Check], rate: float) -> list[Verdict]:
    """One verdict for each check of `this` week; `rate` is the false-discovery rate."""
    now, earlier = with_evidence(this, rate), with_evidence(before, rate)
    directions = {check.name: check.direction for check in before}
    verdicts = []
    for check in this:
        evidence = check.name in now
        repeated = check.name in earlier and directions[check.name] == check.direction
        raised = evidence and (check.immediate or repeated)
        verdicts.append(Verdict(check, evidence, check.name in earlier, raised))
    return verdicts


def with_evidence(checks: Sequence[Check], rate: float) -> set[str]:
    """Names of the checks whose change is both large and a discovery at `rate`."""
    tested = {
        check.name: check.p_value
        for check in checks
        if check.status != INSUFFICIENT and check.p_value is not None
    }
    found = false_discoveries(tested, rate)
    return {check.name for check in checks if check.large and check.name in found}


def overall(verdicts: Sequence[Verdict]) -> Severity:
    """The highest severity that was raised, ``low`` when none was."""
    return max((verdict.severity for verdict in verdicts), key=_ORDER.__getitem__, default="low")


def recommendations(verdicts: Sequence[Verdict]) -> list[str]:
    """Sentences for people: what was raised first, then what would be if it lasts."""
    raised = [verdict for verdict in verdicts if verdict.raised]
    raised.sort(key=lambda verdict: -_ORDER[verdict.severity])
    watched = [verdict for verdict in verdicts if verdict.evidence and not verdict.raised]
    sentences = [verdict.check.advice for verdict in raised]
    sentences += [f"Seen for the first time, watch it: {v.check.advice}" for v in watched]
    missing = [v.check.name for v in verdicts if v.check.status == INSUFFICIENT]
    if missing:
        sentences.append(f"Not enough data to judge: {', '.join(missing)}.")
    if not raised and not watched:
        sentences.append("Nothing that was judged has changed: no action is needed.")
    return sentences
