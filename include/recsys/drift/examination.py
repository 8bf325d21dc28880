"""All checks of a week, from prepared data: the pure core of the drift job."""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.arrays import Float32Array, Int64Array
from recsys.drift.campaigns import sentence_keys
from recsys.drift.checks import Check, Span, check_popularity, check_rating, span_of
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.drift.customers import check_comments, check_customers
from recsys.drift.demand import check_campaign, check_volume
from recsys.drift.embeddings import check_embedding
from recsys.drift.events import Events, Week
from recsys.drift.model import Prediction, check_model
from recsys.drift.verdicts import Verdict, judge


@dataclass(frozen=True)
class Material:
    """What the checks look at.

    Attributes
    ----------
    events
        Everything the shop's customers did, see `recsys.drift.events.events_of`.
    keys
        `sentence_keys` of the events, None without comments.
    vectors
        ``(products, d)`` embeddings in the order of ``events.product_ids``, NaN rows for
        unknown products; None without embeddings.
    prediction
        What a model that is older than the week predicts; None without one.
    reference_stop
        First week number that is no longer reference; None for a moving reference.
    """

    events: Events
    keys: Int64Array | None = None
    vectors: Float32Array | None = None
    prediction: Prediction | None = None
    reference_stop: int | None = None


@dataclass(frozen=True)
class Examination:
    """A week as the checks saw it, and what they found in the light of the week before."""

    span: Span
    verdicts: list[Verdict]


def material_of(events: Events, weeks_back: int, week: Week, config: DriftConfig) -> Material:
    """The events of `week` and `weeks_back` weeks before it, with their sentence keys.

    Texts of earlier weeks are not even looked at: reading them is most of the work.
    """
    recent = events.between(week.number - weeks_back, week.number + 1)
    if recent.comments is None:
        return Material(recent)
    return Material(recent, sentence_keys(recent.comments, config.campaign.min_characters))


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
    stop = material.reference_stop
    if stop is not None and stop > week.number:
        stop = None
    span = span_of(material.events, material.keys, week, config, reference_stop=stop)
    return span, [
        check_rating(span, config),
        check_popularity(span, config),
        check_volume(span, config, calendar),
        check_campaign(span, config),
        *check_customers(span, config),
        *check_comments(span, config),
        check_embedding(span, material.vectors, config),
        check_model(material.prediction, week, config),
    ]
