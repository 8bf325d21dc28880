"""What customers did, sent by the shop."""

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError

from recsys import schema
from recsys.data.prices import is_dong
from recsys.errors import InputError
from recsys.events import read_event
from recsys.ids import IdRules, id_fault
from recsys.schema import Kind
from serving.interactions import Event, digest_of
from serving.problems import SHOWN_ERRORS, FieldProblem, ProblemError, documented
from serving.routes.administration import name_of_bearer
from serving.schemas import (
    Interaction,
    InteractionsBody,
    InteractionsRequest,
    InteractionsResponse,
    Rejected,
)
from serving.service import Note, Running, Service

router = APIRouter(tags=["interactions"])

# A batch has a thousand of them: the methods around these cost as much again.
_validate = Interaction.__pydantic_validator__.validate_python
_dump = Interaction.__pydantic_serializer__.to_python
_CLOCK_DIFFERENCE = timedelta(minutes=5)
_bearer = HTTPBearer(
    scheme_name="Write token",
    auto_error=False,
    description="A token in RECSYS_WRITE_TOKEN of the service.",
)


async def require_sender(
    service: Running, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """The dependency of every route that writes: the name of the sender whose token was given."""
    environment = service.environment
    if not environment.write_tokens:
        if environment.is_local:
            return ""
        reason = "the service is reached from other machines and was started without"
        detail = f"Interactions are switched off: {reason} RECSYS_WRITE_TOKEN."
        raise ProblemError(403, detail)
    return name_of_bearer(credentials, environment.write_tokens, "a write token")


@router.post(
    "/interactions",
    response_model_exclude_defaults=True,
    responses=documented(400, 401, 403, 408, 413, 422, 429, 503),
    summary="What customers did",
)
async def interactions(
    body: InteractionsBody, service: Running, sender: Annotated[str, Depends(require_sender)]
) -> InteractionsResponse:
    """Takes one interaction, or many as `events`: ratings, purchases, products put into a cart,
    clicked, viewed or dismissed. 200 means that the accepted ones are on the disk: the next data
    refresh counts each event id of a sender once, however often it was sent. They count in the
    user's recommendations at once; what was dismissed is not shown to that user again.

    What is rejected must not be sent again as it is: the answer names each with the reason, and is
    a 422 when all were. After any other answer nothing is promised: send the same events again.
    Events of customers who are forgotten are not stored; `left_out` counts them."""
    events = body.events if isinstance(body, InteractionsRequest) else [body]
    with Note(service, "interactions"):
        now = datetime.now(UTC)
        checked = [_checked(event, now, service.earliest, service.ids) for event in events]
        said = {index: event for index, event in enumerate(checked) if not isinstance(event, str)}
        good = _of_the_others(service, said)
        for event in good.values():
            event["event_id"] = f"{sender}/{event['event_id']}" if sender else event["event_id"]
        try:
            stored = await service.intake.store([*good.values()]) if good else []
        except (OSError, sqlite3.Error, InputError) as error:
            raise ProblemError(
                503, "The interactions could not be stored; send them again.", {"Retry-After": "5"}
            ) from error
        reasons = dict(zip(good, stored, strict=True))
        rejected = [
            Rejected(index=index, event_id=_id_of(events[index]), reason=reason)
            for index, event in enumerate(checked)
            if (reason := event if isinstance(event, str) else reasons.get(index)) is not None
        ]
        left_out = len(said) - len(good)
        accepted = len(events) - len(rejected) - left_out
        counts = {"accepted": accepted, "rejected": len(rejected), "left_out": left_out}
        for outcome, count in counts.items():
            service.counters.tally(f"events_{outcome}", count)
        if len(rejected) == len(events):
            places = ["event" if events[0] is body else f"events.{one.index}" for one in rejected]
            told = list(zip(places, rejected, strict=True))[:SHOWN_ERRORS]
            errors = [FieldProblem(field=place, message=one.reason) for place, one in told]
            detail = f"No event was accepted. {errors[0].field}: {errors[0].message}."
            raise ProblemError(422, detail, errors=errors)
    return InteractionsResponse(accepted=accepted, rejected=rejected, left_out=left_out)


def _of_the_others(service: Service, events: dict[int, Event]) -> dict[int, Event]:
    """The events but for those of customers who are forgotten. Raises a 503 problem while nobody
    knows who is."""
    forgotten = service.forgotten
    if forgotten.current is None:
        detail = "Nobody knows yet whose interactions are not to be kept; send them again."
        raise ProblemError(503, detail, {"Retry-After": "5"})
    return {at: one for at, one in events.items() if not forgotten.hides(one["user_id"])}


def _checked(sent: Any, now: datetime, earliest: datetime, rules: IdRules) -> Event | str:
    """The event as it is stored, or why the data refresh would not take it."""
    try:
        event = sent if isinstance(sent, Interaction) else _validate(sent)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        return f"{where}: {first['msg']}" if where else f"an event is an object: {first['msg']}"
    said, wrong = read_event(event.__dict__, rules)
    when = event.timestamp or now
    if fault := id_fault(event.event_id.strip() or "null", "event"):
        return f"event_id: {fault}"
    bad = next(iter(wrong.items()), None) if wrong else None
    if found := bad or _fault_of_kind(event) or _fault_of_time(when, now, earliest):
        return "{}: {}".format(*found)
    return {
        "event_id": event.event_id,
        "user_id": said.user,
        "product_id": said.product,
        "kind": said.kind,
        "rating": event.rating,
        # A clock that is a little ahead must not make the refresh drop the event.
        "timestamp": min(when, now),
        "comment": event.comment,
        "quantity": event.quantity,
        "value": event.value,
        "recommendation_id": said.recommendation,
        "placement": said.placement,
        "session_id": said.session,
        "digest": digest_of(_content_of(event)),
    }


def _fault_of_kind(event: Interaction) -> tuple[str, str] | None:
    """What an event has that its kind has not, or lacks, and where."""
    if event.currency is not None and not is_dong(event.currency):
        return "currency", "expected VND, the value in dong"
    if event.kind == Kind.RATING:
        lacks = "expected the stars of a rating, 1 to 5; what else was done is of another kind"
        return None if event.rating is not None else ("rating", lacks)
    if event.rating is not None:
        return "rating", f"a {event.kind} has no stars; expected them as an event of kind rating"
    if event.comment:
        return "comment", f"a {event.kind} has no comment; expected it with stars, as a rating"
    return None


def _fault_of_time(when: datetime, now: datetime, earliest: datetime) -> tuple[str, str] | None:
    if when > now + _CLOCK_DIFFERENCE:
        return "timestamp", "expected a time in the past"
    return ("timestamp", f"expected a time after {earliest.date()}") if when < earliest else None


def _content_of(event: Interaction) -> dict[str, Any]:
    """What was sent. Of a rating as they were before there were other kinds it is what it was: an
    event that is sent again after an upgrade is known."""
    content = {schema.TIMESTAMP: None} | _dump(event, mode="json", exclude_none=True)
    if event.kind == Kind.RATING:
        del content[schema.KIND]
    return content


def _id_of(event: Any) -> str | None:
    sent = event.get("event_id") if isinstance(event, dict) else getattr(event, "event_id", None)
    return sent[:128] if isinstance(sent, str) else None
