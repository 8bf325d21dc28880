"""What customers did, sent by the shop."""

import sqlite3
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter

from recsys.errors import InputError
from serving.interactions import Event
from serving.problems import ProblemError, documented
from serving.schemas import Interaction, InteractionsRequest, InteractionsResponse
from serving.service import Running, noted

router = APIRouter(tags=["interactions"])

_CLOCK_DIFFERENCE = timedelta(minutes=5)
_FIRST_DAY = datetime(1970, 1, 2, tzinfo=UTC)


@router.post(
    "/interactions",
    response_model=InteractionsResponse,
    responses=documented(400, 413, 422, 429, 503),
    summary="Purchases and reviews",
)
async def interactions(
    body: InteractionsRequest | Interaction, service: Running
) -> InteractionsResponse:
    """Takes one interaction, or many as `events`. 200 means that they are on the disk: the next
    data refresh counts each event id once, however often it was sent. They count in the user's
    recommendations at once.

    After any other answer nothing is promised: send the same events again.
    """
    events = body.events if isinstance(body, InteractionsRequest) else [body]
    with noted(service, "interactions"):
        now = datetime.now(UTC)
        checked = [_event(number, event, now) for number, event in enumerate(events)]
        try:
            await service.intake.store(checked)
        except (OSError, sqlite3.Error, InputError) as error:
            raise ProblemError(
                503, "The interactions could not be stored; send them again.", {"Retry-After": "5"}
            ) from error
    return InteractionsResponse(accepted=len(events))


def _event(number: int, event: Interaction, now: datetime) -> Event:
    when = now if event.timestamp is None else event.timestamp
    if not _FIRST_DAY < when <= now + _CLOCK_DIFFERENCE:
        raise ProblemError(422, f"events.{number}.timestamp: expected a time in the past.")
    return {
        "event_id": event.event_id,
        "user_id": str(event.user_id),
        "product_id": str(event.product_id),
        "rating": event.rating,
        # A clock that is a little ahead must not make the refresh drop the event.
        "timestamp": min(when.astimezone(UTC), now),
        "comment": event.comment,
    }
