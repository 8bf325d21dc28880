"""What a request for a list asks for, and the list that the service has for it."""

import dataclasses
import random
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np

from recsys.arrays import Int32Array
from recsys.experiments.definitions import CHECK_PLACEMENT
from recsys.ids import normalise_id
from recsys.merchandising import reasons
from recsys.merchandising.catalogue import filter_products
from recsys.merchandising.exploring import explorer
from recsys.merchandising.placements import UNTIL_DUE, ExcludeSeen
from recsys.merchandising.ranking import NOTHING, Ranked, Wanted, hidden
from recsys.merchandising.reasons import Reason
from recsys.merchandising.recommending import (
    ContentIndex,
    LiveEvent,
    Recommended,
    Snapshot,
    due_again,
    history_of,
    keep,
    made_in_advance,
    only_hidden,
    popular,
    popular_beside,
    recommend,
    search,
    similar,
    together,
)
from recsys.models.base import Histories
from serving.interactions import guest
from serving.problems import FieldProblem, ProblemError
from serving.schemas import (
    BatchRequest,
    ListRequest,
    RecommendRequest,
    SearchRequest,
    SimilarRequest,
    TogetherRequest,
)
from serving.service import Note, Service

_OF_SOMEBODY = (RecommendRequest, SimilarRequest, TogetherRequest, SearchRequest)

Who = tuple[str, ...]
"""Keys of `serving.interactions.LiveEvents`: a user, and perhaps a guest."""


def begin(note: Note, body: ListRequest, *, assigned: bool = True) -> Snapshot:
    """The snapshot that answers: that of the side on which the customer is, if the answer is for
    one (`assigned`). What `body` does not say is as its placement has it; of a customer who is
    forgotten neither `note` nor `body` names anybody then. Raises a 422 problem for
    a list too long, prices that no product can have, or a placement that the shop does not have, a
    503 without a snapshot."""
    if isinstance(body, _OF_SOMEBODY) and note.service.forgotten.hides(body.user_id):
        # As for somebody of whom nothing is known, nor of the visit: on no path is there a name.
        body.user_id = body.session_id = note.user_id = None
    most, served = note.service.config.max_topk, note.service.served
    placement = note.service.placements.get(body.placement) if body.placement else None
    if placement is not None:
        given = body.model_fields_set
        if "topk" not in given:
            body.topk = note.topk = min(placement.length, most)
        if "exclude_seen" not in given and isinstance(body, RecommendRequest | BatchRequest):
            body.exclude_seen = placement.exclude_seen
    if note.topk is not None and note.topk > most:
        note.topk = min(note.topk, 2**62)  # whatever its length, the request log can hold that
        message = f"At most {most} products can be asked for (topk)"
        errors = [FieldProblem(field="body.topk", message=message)]
        raise ProblemError(422, f"{message}.", errors=errors)
    if body.min_price is not None and body.max_price is not None:
        _check_prices(body.min_price, body.max_price)
    closed = served.placements
    if closed is not None and body.placement not in (None, CHECK_PLACEMENT, *closed):
        raise unknown_placement(str(body.placement), closed)
    service = note.service
    unit = served.unit(body) if assigned and service.engine.assigns else None
    return note.of(*service.answering(unit, body.placement or ""))


def _check_prices(low: float, high: float) -> None:
    """Raises a 422 problem: an empty list would look as if the shop had nothing."""
    if low > high:
        message = f"min_price {low:.15g} is above max_price {high:.15g}"
        raise ProblemError(
            422, f"{message}.", errors=[FieldProblem(field="body.min_price", message=message)]
        )


def unknown_placement(name: str, known: Collection[str]) -> ProblemError:
    """The answer to who names a placement that is none of the `known` ones."""
    message = f"There is no placement {name}: expected one of {', '.join(sorted(known))}"
    errors = [FieldProblem(field="body.placement", message=message)]
    return ProblemError(422, f"{message}.", errors=errors)


def wanted_by(
    snapshot: Snapshot,
    body: ListRequest,
    *,
    exclude_seen: ExcludeSeen = False,
    exclude: Sequence[int | str] = (),
) -> Wanted:
    """What the request asks for, in column numbers of the snapshot."""
    allowed = filter_products(
        snapshot.catalogue, body.brands, body.categories, body.min_price, body.max_price
    )
    steering, found = snapshot.steerings.of(body.placement), snapshot.explorable
    explore = None
    if found is not None and steering is not None and steering.explore and not body.is_narrow:
        explore = partial(explorer, found, steering.explore, random.getrandbits(64))
    excluded = columns_of(snapshot, exclude)
    return Wanted(body.topk, exclude_seen, allowed, excluded, steering, explore)


def known_id(product_id: int | str, index: Mapping[str, int]) -> str:
    """The id of a product in the one spelling, or as it is where a model knows it so."""
    text = str(product_id)
    return text if text in index else normalise_id(text)


def columns_of(snapshot: Snapshot, product_ids: Sequence[int | str]) -> Int32Array:
    """Column numbers of the products that the model knows."""
    if not product_ids:
        return NOTHING
    index = snapshot.catalogue.index
    known = [index[name] for product in product_ids if (name := known_id(product, index)) in index]
    return np.array(known, dtype=np.int32)


def recommend_now(
    service: Service, snapshot: Snapshot, body: RecommendRequest, who: Who
) -> Recommended:
    """The list of the user who comes first in `who`: that made at loading, if it does."""
    live, position = service.live.of_all(who), None
    if not live and body.is_plain:
        position = snapshot.position(who[0])
    if position is not None and _has_due(snapshot, body, who[0]):
        position = None
    if position is not None:
        steering = snapshot.steerings.of(body.placement)
        excluded = columns_of(snapshot, body.exclude)
        ranked = made_in_advance(snapshot, position, body.topk, steering, excluded)
        if ranked is not None:
            return Recommended(ranked, snapshot.own)
    now = int(time.time())
    history, wanted = _asked(snapshot, body, who[0], live, now)
    made = recommend(snapshot, history, wanted, now)
    if position is not None:
        keep(snapshot, position, wanted, made)
    return made


def why_recommended_now(
    service: Service, snapshot: Snapshot, body: RecommendRequest, who: Who, made: Recommended
) -> list[Reason]:
    """Why the products of the list `made` for the user who comes first in `who` stand in it."""
    now, live = int(time.time()), service.live.of_all(who)
    history, _ = _asked(snapshot, body, who[0], live, now)
    liked = columns_of(snapshot, body.history).tolist()
    return reasons.why_recommended(snapshot, history, made, now, liked)


def parts_recommended_now(
    service: Service, snapshot: Snapshot, body: RecommendRequest, who: Who, made: Recommended
) -> list[dict[str, float]]:
    """What each part of the model adds to the scores of the list `made` for the user who comes
    first in `who`."""
    now, live = int(time.time()), service.live.of_all(who)
    history, _ = _asked(snapshot, body, who[0], live, now)
    return reasons.parts_recommended(snapshot, history, made, now)


def popular_now(
    service: Service, snapshot: Snapshot, body: RecommendRequest, who: Who
) -> Recommended:
    """What is popular, for a user of the holdout."""
    live = service.live.of_all(who)
    return popular(snapshot, *_asked(snapshot, body, who[0], live, int(time.time())))


def similar_now(
    service: Service, snapshot: Snapshot, body: SimilarRequest, items: Int32Array
) -> Recommended:
    """Products like the one in `items`, without what whoever sees the list has dismissed."""
    wanted = wanted_by(snapshot, body, exclude=body.exclude)
    return similar(snapshot, int(items[0]), _without_dismissed(service, snapshot, body, wanted))


def together_now(
    service: Service, snapshot: Snapshot, body: TogetherRequest, items: Int32Array
) -> Recommended:
    """What completes a cart of `items`, without what whoever sees the list has dismissed."""
    wanted = wanted_by(snapshot, body, exclude=body.exclude)
    return together(snapshot, items, _without_dismissed(service, snapshot, body, wanted))


def popular_beside_now(
    service: Service,
    snapshot: Snapshot,
    body: SimilarRequest | TogetherRequest,
    items: Int32Array,
) -> Recommended:
    """What is popular beside the products in columns `items`, for a user of the holdout."""
    wanted = only_hidden(wanted_by(snapshot, body, exclude=body.exclude))
    return popular_beside(snapshot, items, _without_dismissed(service, snapshot, body, wanted))


def search_now(
    service: Service, snapshot: Snapshot, content: ContentIndex, body: SearchRequest
) -> Ranked:
    """The products that fit, without what whoever sees the list has dismissed."""
    wanted = _without_dismissed(service, snapshot, body, wanted_by(snapshot, body))
    return search(snapshot, content, body.query, wanted)


def who_of(user_id: int | str | None, session_id: int | str | None) -> Who:
    """Whose live events count: the user's, and those of the visit before they logged in."""
    user = "" if user_id is None else normalise_id(user_id)
    return (user,) if session_id is None else (user, guest(normalise_id(session_id)))


def _without_dismissed(
    service: Service,
    snapshot: Snapshot,
    body: SimilarRequest | TogetherRequest | SearchRequest,
    wanted: Wanted,
) -> Wanted:
    if body.user_id is None and body.session_id is None:
        return wanted
    who = who_of(body.user_id, body.session_id)
    history = history_of(snapshot, who[0], service.live.of_all(who), [], int(time.time()))
    unwanted = hidden(snapshot.catalogue, history, exclude_seen=False)
    return dataclasses.replace(wanted, excluded=np.concatenate([wanted.excluded, unwanted]))


def _asked(
    snapshot: Snapshot,
    body: RecommendRequest,
    user_id: str,
    live: tuple[LiveEvent, ...],
    now: int,
) -> tuple[Histories, Wanted]:
    """What is known of the user, and what may stand in the list."""
    viewed = [known_id(product, snapshot.catalogue.index) for product in body.history]
    history = history_of(snapshot, user_id, live, viewed, now)
    wanted = wanted_by(snapshot, body, exclude_seen=body.exclude_seen, exclude=body.exclude)
    if body.exclude_seen == UNTIL_DUE:
        due = due_again(snapshot, user_id, live, history, now)
        wanted = dataclasses.replace(wanted, due=due)
    return history, wanted


def _has_due(snapshot: Snapshot, body: RecommendRequest, user_id: str) -> bool:
    """Whether something that the user of an artefact had may return: the list that was made in
    advance is without it."""
    if body.exclude_seen != UNTIL_DUE:
        return False
    now = int(time.time())
    history = history_of(snapshot, user_id, (), [], now)
    return len(due_again(snapshot, user_id, (), history, now)) > 0
