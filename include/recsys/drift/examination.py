"""All checks of a week, from prepared data, and what they mean: the pure core of the drift job.

A dozen tests every week would be wrong about one of them every few weeks. Benjamini-Hochberg keeps
the false share of a week's evidence down; the change has to be large enough to matter, and there in
two weeks in a row, in the same direction. A collapse of the volume, a burst and a campaign do not
wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from recsys.arrays import Float32Array, Int64Array
from recsys.drift.checks import INSUFFICIENT, Check, Span, span_of
from recsys.drift.config import DriftConfig, HolidayCalendar, Severity
from recsys.drift.customers import check_comments, check_customers
from recsys.drift.kinds import WeeklyKinds, check_kinds
from recsys.drift.model import Prediction, check_model
from recsys.drift.popularity import check_embedding, check_popularity
from recsys.drift.ratings import check_rating
from recsys.drift.statistics import false_discoveries
from recsys.drift.volume import check_campaign, check_volume
from recsys.drift.weeks import Events, Week

_ORDER: dict[Severity, int] = {"low": 0, "medium": 1, "high": 2}


@dataclass(frozen=True)
class Material:
    """What the checks look at, see `recsys.drift.weeks.events_of`; None for what there is not."""

    events: Events
    keys: Int64Array | None = None  # `sentence_keys` of the events
    vectors: Float32Array | None = None
    """``(products, d)`` in the order of ``events.product_ids``, NaN rows for unknown products."""
    prediction: Prediction | None = None  # of a model that is older than the week
    kinds: WeeklyKinds | None = None
    reference_stop: int | None = None
    """First week number that is no longer reference; None for a moving reference."""
    ends: datetime | None = None  # the moment that the data go up to; None: later than every week


@dataclass(frozen=True)
class Verdict:
    """What a check of this week means in the light of the week before; `evidence` and
    `evidence_before`: large, and beyond chance, in this and the previous week."""

    check: Check
    evidence: bool
    evidence_before: bool
    raised: bool

    @property
    def severity(self) -> Severity:
        return self.check.severity if self.raised else "low"


class Examination(NamedTuple):
    """A week as the checks saw it, and what they found in the light of the week before."""

    span: Span
    verdicts: list[Verdict]


def examine(
    material: Material, week: Week, config: DriftConfig, calendar: HolidayCalendar
) -> Examination:
    """Check `week` and the week before it, and judge both together."""
    before = check_week(material, week.before(1), config, calendar)[1]
    span, this = check_week(material, week, config, calendar)
    return Examination(span, judge(this, before, config.false_discovery_rate))


def check_week(
    material: Material, week: Week, config: DriftConfig, calendar: HolidayCalendar
) -> tuple[Span, Sequence[Check]]:
    """Every check of one week by itself."""
    span = span_of(material.events, material.keys, week, config, material.reference_stop)
    return span, [
        check_rating(span, config),
        check_popularity(span, config),
        check_volume(span, config, calendar, ends=material.ends),
        check_campaign(span, config),
        *check_customers(span),
        *check_comments(span),
        check_embedding(span, material.vectors),
        check_model(material.prediction, week, config),
        *check_kinds(material.kinds, span),
    ]


def judge(this: Sequence[Check], before: Sequence[Check], rate: float) -> list[Verdict]:
    """One verdict for each check of `this` week; `rate` is the false-discovery rate."""
    now, earlier = with_evidence(this, rate), with_evidence(before, rate)
    repeated = {(check.name, check.direction) for check in before if check.name in earlier}
    verdicts = []
    for check in this:
        lasting = check.immediate or (check.name, check.direction) in repeated
        evidence = check.name in now
        verdicts.append(Verdict(check, evidence, check.name in earlier, evidence and lasting))
    return verdicts


def with_evidence(checks: Sequence[Check], rate: float) -> set[str]:
    """Names of the checks whose change is both large and a discovery at `rate`."""
    tested = {check.name: check.p_value for check in checks if check.p_value is not None}
    found = false_discoveries(tested, rate)
    return {check.name for check in checks if check.large and check.name in found}


def overall(verdicts: Sequence[Verdict]) -> Severity:
    """The highest severity that was raised, ``low`` when none was."""
    return max((verdict.severity for verdict in verdicts), key=_ORDER.__getitem__, default="low")


def is_unjudged(verdicts: Sequence[Verdict]) -> bool:
    """Whether no check had enough data: then the week is not quiet, it is unknown."""
    return all(verdict.check.status == INSUFFICIENT for verdict in verdicts)


def recommendations(verdicts: Sequence[Verdict]) -> list[str]:
    """Sentences for people: what was raised first, then what would be if it lasts."""
    if is_unjudged(verdicts):
        return [
            "There were not enough reviews to judge the week by anything: look whether they still "
            "arrive (data_refresh, the shop's export)."
        ]
    found = sorted((v for v in verdicts if v.evidence), key=lambda v: -_ORDER[v.severity])
    sentences = [v.check.advice for v in found if v.raised]
    once = [v.check.advice for v in found if not v.raised]
    sentences += [f"Seen for the first time, watch it: {advice}" for advice in once]
    missing = [v.check.name for v in verdicts if v.check.status == INSUFFICIENT]
    if missing:
        sentences.append(f"Not enough data to judge: {', '.join(missing)}.")
    if not found:
        sentences.append("Nothing that was judged has changed: no action is needed.")
    return sentences
