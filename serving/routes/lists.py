"""Lists of products: for a user, for many users, for a product, for words."""

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.arrays import Int32Array
from recsys.experiments.definitions import CHECK_PLACEMENT
from recsys.ids import normalise_id
from recsys.merchandising import reasons
from recsys.merchandising.catalogue import Catalogue, filter_products
from recsys.merchandising.exploring import explorer
from recsys.merchandising.placements import UNTIL_DUE, ExcludeSeen
from recsys.merchandising.ranking import NOTHING, Ranked, Wanted, hidden
from recsys.merchandising.reasons import Reason
from recsys.merchandising.recommending import (
    CONTENT,
    ContentIndex,
    LiveEvent,
    Recommended,
    Snapshot,
    due_again,
    history_of,
    made_in_advance,
    only_hidden,
    popular,
    popular_beside,
    recommend,
    search,
    similar,
    sources_of,
    together,
)
from recsys.models.base import Histories
from serving.interactions import guest
from serving.problems import FieldProblem, ProblemError, documented
from serving.schemas import (
    BatchRequest,
    BatchResponse,
    ListRequest,
    RecommendRequest,
    RecommendResponse,
    SearchRequest,
    SearchResponse,
    SimilarRequest,
    SimilarResponse,
    TogetherRequest,
    TogetherResponse,
)
from serving.service import Note, Running, Service

Who = tuple[str, ...]
"""Keys of `serving.interactions.LiveEvents`: a user, and perhaps a guest."""

_JSON = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


class _Listed(msgspec.Struct, gc=False):
    """`serving.schemas.Recommendation`, made and written in half the time of a dictionary."""

    product_id: str
    score: float
    rank: int
    product_name: str
    brand: str
    price: float | None


class _Reason(msgspec.Struct, gc=False):
    """`serving.schemas.Reason`."""

    kind: str
    product_id: str | None
    product_name: str | None
    rule: str | None
    text: dict[str, str]


class _Explained(_Listed, gc=False):
    reason: _Reason


_ANSWERS = documented(400, 413, 422, 429, 503)


class ShortWay:
    """Answers POST requests to `routes` of the form ``async def route(body: Model, service:
    Running) -> Response`` beside FastAPI, the application `app`.

    That looks for the route, opens contexts, decodes the body, collects headers, cookies and query,
    and then validates: half the time of a short request. Here the validator reads the bytes.
    Whatever is no valid body of type ``application/json`` gets FastAPI's answer."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes: dict[str, tuple[Callable[[bytes], Any], Callable[..., Any]]] = {}
        for route in routes:
            assert isinstance(route, APIRoute)
            field = route.body_field
            model = field.field_info.annotation if field else None
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                raise TypeError(f"{route}: expected a route whose body is one model, not {model}")
            validate = model.__pydantic_validator__.validate_json
            self._routes[route.path] = validate, route.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = self._routes.get(scope.get("path", ""))
        if known is None or scope.get("method") != "POST" or _JSON not in scope["headers"]:
            await self._app(scope, receive, send)
            return
        validate, route = known
        unread, pieces, more = list[Message](), list[bytes](), True
        while more:
            message = await receive()
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        # Whoever hung up before the end of the body has not asked for anything.
        sent = b"".join(pieces) if message["type"] == "http.request" else b""
        try:
            body = validate(sent)
        except ValidationError:
            unread.append({**message, "body": sent})
        else:
            response: Response = await route(body, scope["app"].state.service)
            await response(scope, receive, send)
            return

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, again, send)


users = APIRouter(tags=["recommendations"])
products = APIRouter(tags=["products"])


@users.post(
    "/recommend",
    response_model=RecommendResponse,
    responses=_ANSWERS,
    summary="Products for one user",
)
async def recommend_products(body: RecommendRequest, service: Running) -> Response:
    """The best products for a user, known or not; users we know nothing of get what is popular.

    Never an error for an unknown user. The list is filled up to `topk` after filtering, as long
    as there are products that pass."""
    with Note(service, "recommend", body.topk, body.user_id) as note:
        snapshot = begin(note, body)
        who = who_of(body.user_id, body.session_id)
        # Beside the event loop for a slow model, and for a user whose interactions have to be read.
        inline = snapshot.inline and not service.live.has_any(who)
        make = popular_now if note.held_out else recommend_now
        note.made = made = await service.compute(inline, make, service, snapshot, body, who)
        why = await _why(body, service, why_recommended_now, service, snapshot, body, who, made)
        answer = _answer(note, body, snapshot, made, why, user_id=body.user_id)
    answer["latency_ms"] = note.latency_ms
    return Response(_encode(answer), media_type="application/json")


@users.post(
    "/batch_recommend",
    response_model=BatchResponse,
    responses=_ANSWERS,
    summary="Products for many users",
)
async def batch_recommend(body: BatchRequest, service: Running) -> Response:
    """The same for many users in one request. Computed beside the event loop, so that single
    requests do not wait for it."""
    started = time.perf_counter()
    with Note(service, "batch_recommend", body.topk) as note:
        snapshot = begin(note, body, assigned=False)
        answers = await service.compute_many(_all_answers, service, body)
    answer = {"results": answers, "count": len(answers), "model_id": snapshot.model_id}
    answer["latency_ms"] = (time.perf_counter() - started) * 1000
    return Response(_encode(answer), media_type="application/json")


@products.post(
    "/similar_items",
    response_model=SimilarResponse,
    responses=documented(404) | _ANSWERS,
    summary="Products like a product",
)
async def similar_items(body: SimilarRequest, service: Running) -> Response:
    """Similar by what people bought together; a product nobody bought yet by its text.

    Other sizes and variants of the product itself are left out."""
    with Note(service, "similar_items", body.topk) as note:
        snapshot = begin(note, body)
        catalogue = snapshot.catalogue
        item = catalogue.index.get(known_id(body.product_id, catalogue.index))
        if item is None:
            raise ProblemError(404, "The shop has no product of this id.")
        inline = snapshot.inline and not service.live.has_any(who_of(body.user_id, body.session_id))
        make = popular_beside_now if note.held_out else similar_now
        like = np.array([item], dtype=np.int32)
        made = note.made = await service.compute(inline, make, service, snapshot, body, like)
        found = {"product_id": catalogue.item_ids[item], "product_name": catalogue.names[item]}
        why = await _why(body, service, reasons.why_similar, snapshot, item, made)
        answer = _answer(note, body, snapshot, made, why, **found)
    answer["latency_ms"] = note.latency_ms
    return Response(_encode(answer), media_type="application/json")


@products.post(
    "/bought_together",
    response_model=TogetherResponse,
    responses=_ANSWERS,
    summary="Products that complete a cart",
)
async def bought_together(body: TogetherRequest, service: Running) -> Response:
    """What people buy with the products of a cart, not instead of them; filled up with what is
    popular.

    Products that the service does not know are ignored, and named in the answer; for a cart of
    nothing else it is what is popular."""
    with Note(service, "bought_together", body.topk) as note:
        snapshot = begin(note, body)
        catalogue = snapshot.catalogue
        sent = dict.fromkeys(known_id(product, catalogue.index) for product in body.product_ids)
        known = [product for product in sent if product in catalogue.index]
        cart = columns_of(snapshot, known)
        inline = snapshot.inline and not service.live.has_any(who_of(body.user_id, body.session_id))
        make = popular_beside_now if note.held_out else together_now
        made = note.made = await service.compute(inline, make, service, snapshot, body, cart)
        unknown = [product for product in sent if product not in catalogue.index]
        why = await _why(body, service, reasons.why_together, snapshot, cart, made)
        answer = _answer(note, body, snapshot, made, why, product_ids=known, unknown=unknown)
    answer["latency_ms"] = note.latency_ms
    return Response(_encode(answer), media_type="application/json")


@products.post(
    "/search", response_model=SearchResponse, responses=_ANSWERS, summary="Products by words"
)
async def search_products(body: SearchRequest, service: Running) -> Response:
    """The products whose text is nearest to the query. Needs the bert_embeddings job to have run;
    until then the answer is a 503."""
    with Note(service, "search", body.topk) as note:
        snapshot = begin(note, body)
        if snapshot.content is None:
            raise ProblemError(
                503, "There are no text embeddings yet: run bert_embeddings.", {"Retry-After": "60"}
            )
        ranked = await service.compute(False, search_now, service, snapshot, snapshot.content, body)
        made = Recommended(ranked, None)
        why = [reasons.SEARCH] * len(ranked.items) if body.explain else None
        answer = _answer(note, body, snapshot, made, why, CONTENT, query=body.query)
        del answer["fallback"], answer["fallback_method"]
    answer["latency_ms"] = note.latency_ms
    return Response(_encode(answer), media_type="application/json")


def begin(note: Note, body: ListRequest, *, assigned: bool = True) -> Snapshot:
    """The snapshot that answers: that of the side on which the customer is, if the answer is for
    one (`assigned`). What `body` does not say is as its placement has it. Raises a 422 problem for
    a list too long, or for a placement that the shop does not have, a 503 without a snapshot."""
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
    closed = served.placements
    if closed is not None and body.placement not in (None, CHECK_PLACEMENT, *closed):
        known = ", ".join(sorted(closed))
        message = f"There is no placement {body.placement}: expected one of {known}"
        errors = [FieldProblem(field="body.placement", message=message)]
        raise ProblemError(422, f"{message}.", errors=errors)
    service = note.service
    unit = served.unit(body) if assigned and service.engine.assigns else None
    return note.of(*service.answering(unit, body.placement or ""))


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
    live = service.live.of_all(who)
    if not live and body.is_plain:
        position = snapshot.position(who[0])
        if position is not None and not _has_due(snapshot, body, who[0]):
            steering = snapshot.steerings.of(body.placement)
            excluded = columns_of(snapshot, body.exclude)
            ranked = made_in_advance(snapshot, position, body.topk, steering, excluded)
            if ranked is not None:
                return Recommended(ranked, None)
    now = int(time.time())
    return recommend(snapshot, *_asked(snapshot, body, who[0], live, now), now)


def why_recommended_now(
    service: Service, snapshot: Snapshot, body: RecommendRequest, who: Who, made: Recommended
) -> list[Reason]:
    """Why the products of the list `made` for the user who comes first in `who` stand in it."""
    now, live = int(time.time()), service.live.of_all(who)
    history, _ = _asked(snapshot, body, who[0], live, now)
    liked = columns_of(snapshot, body.history).tolist()
    return reasons.why_recommended(snapshot, history, made, now, liked)


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


async def _why(
    body: ListRequest, service: Service, explain: Callable[..., list[Reason]], *arguments: Any
) -> list[Reason] | None:
    """What `explain` says of `arguments`, if the request wants to know: beside the event
    loop, as for a slow model it takes some milliseconds."""
    return await service.compute(False, explain, *arguments) if body.explain else None


def _explained(one: _Listed, reason: Reason, catalogue: Catalogue) -> _Explained:
    vietnamese, english = reasons.sentences(reason, catalogue)
    item = reason.item
    told = _Reason(
        reason.kind,
        None if item is None else catalogue.item_ids[item],
        None if item is None else catalogue.names[item],
        reason.rule,
        {"vi": vietnamese, "en": english},
    )
    shown = (one.product_name, one.brand, one.price)
    return _Explained(one.product_id, one.score, one.rank, *shown, told)


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


def _all_answers(service: Service, body: BatchRequest) -> list[dict[str, Any]]:
    shared = body.model_dump(exclude={"user_ids"})
    answers = []
    for user_id in body.user_ids:
        # Each list is a row of the request log, as if it had been asked for alone.
        with Note(service, "batch_recommend.user", body.topk, user_id) as note:
            asked = RecommendRequest.model_construct(user_id=user_id, history=[], **shared)
            snapshot = begin(note, asked)
            make = popular_now if note.held_out else recommend_now
            who = who_of(user_id, None)
            note.made = made = make(service, snapshot, asked, who)
            explain = why_recommended_now if body.explain else None
            why = explain and explain(service, snapshot, asked, who, made)
            answer = _answer(note, asked, snapshot, made, why, user_id=user_id)
        answer["latency_ms"] = note.latency_ms
        answers.append(answer)
    return answers


def _answer(
    note: Note,
    body: ListRequest,
    snapshot: Snapshot,
    made: Recommended,
    why: Sequence[Reason] | None = None,
    ranking: str | None = None,
    **asked: int | str | list[str] | None,
) -> dict[str, Any]:
    """What was asked for and the list, which is recorded, as `serving.schemas` has them (a test
    compares), but for the latency. To make it through those classes would take four times as long.
    `why` each product stands in it is told if it is given; `ranking` is the method that made the
    list where that is no fallback."""
    catalogue, ranked = snapshot.catalogue, made.ranked
    ids, names = catalogue.item_ids, catalogue.names
    brands, prices = catalogue.brands, catalogue.prices
    listed: list[_Listed] = [
        _Listed(ids[item], score, rank, names[item], brands[item], prices[item])
        for rank, (item, score) in enumerate(zip(ranked.items, ranked.scores, strict=True), 1)
    ]
    if why is not None:
        why = reasons.steered(snapshot.steerings.of(body.placement), ranked, list(why))
        listed = [
            _explained(one, reason, catalogue) for one, reason in zip(listed, why, strict=True)
        ]
    list_id = note.service.served.record(
        body,
        endpoint=note.endpoint.partition(".")[0],
        model_id=snapshot.model_id,
        method=made.fallback_method,
        products=tuple([one.product_id for one in listed]),
        sources=sources_of(catalogue, made, ranking),
        propensities=ranked.propensities,
        side=note.side,
    )
    return {
        **asked,
        "recommendation_id": list_id,
        "recommendations": listed,
        "count": len(listed),
        "fallback": made.fallback_method is not None,
        "fallback_method": made.fallback_method,
        "model_id": snapshot.model_id,
    }
