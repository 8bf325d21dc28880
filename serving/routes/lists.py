"""Lists of products: for a user, for many users, for a product, for words."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np
from fastapi import APIRouter, Response

from recsys.merchandising import reasons
from recsys.merchandising.catalogue import Catalogue
from recsys.merchandising.reasons import Reason
from recsys.merchandising.recommending import (
    CONTENT,
    Recommended,
    Snapshot,
    sources_of,
)
from recsys.merchandising.steering import Steering, Steerings
from serving.answering import (
    begin,
    columns_of,
    known_id,
    popular_beside_now,
    popular_now,
    recommend_now,
    search_now,
    similar_now,
    together_now,
    who_of,
    why_recommended_now,
)
from serving.problems import ProblemError, documented
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

Explain = Callable[[Recommended], list[Reason]]
Again = Callable[..., Recommended]
"""Makes the list of a request once more, from a `snapshot`."""

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
    asked_for = body.user_id
    with Note(service, "recommend", body.topk, asked_for) as note:
        snapshot = begin(note, body)
        who = who_of(body.user_id, body.session_id)
        # Beside the event loop for a slow model, and for a user whose interactions have to be read.
        inline = snapshot.inline and not service.live.has_any(who)
        make = popular_now if note.held_out else recommend_now
        note.made = made = await service.compute(inline, make, service, snapshot, body, who)
        again = partial(make, service, body=body, who=who)
        explain = partial(why_recommended_now, service, snapshot, body, who)
        why = await _why(note, body, snapshot, made, explain, again)
        answer = _answer(note, body, snapshot, made, why, user_id=asked_for)
    return _sent(answer, note)


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
        again = partial(make, service, body=body, items=like)
        explain = partial(reasons.why_similar, snapshot, item)
        why = await _why(note, body, snapshot, made, explain, again)
        answer = _answer(note, body, snapshot, made, why, **found)
    return _sent(answer, note)


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
        again = partial(make, service, body=body, items=cart)
        explain = partial(reasons.why_together, snapshot, cart)
        why = await _why(note, body, snapshot, made, explain, again)
        answer = _answer(note, body, snapshot, made, why, product_ids=known, unknown=unknown)
    return _sent(answer, note)


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
        again = partial(_searched, service, body)
        why = await _why(note, body, snapshot, made, _found_by_words, again)
        answer = _answer(note, body, snapshot, made, why, CONTENT, query=body.query)
        del answer["fallback"], answer["fallback_method"]
    return _sent(answer, note)


def _sent(answer: dict[str, Any], note: Note) -> Response:
    answer["latency_ms"] = note.latency_ms
    return Response(_encode(answer), media_type="application/json")


async def _why(
    note: Note, body: ListRequest, snapshot: Snapshot, made: Recommended, *how: Any
) -> list[Reason] | None:
    """`_reasons`, if the request wants to know them: beside the event loop, as that takes some
    milliseconds, and for every rule that lifts a product of the list once more."""
    if not body.explain:
        return None
    return await note.service.compute(False, _reasons, body, snapshot, made, *how)


def _reasons(
    body: ListRequest, snapshot: Snapshot, made: Recommended, explain: Explain, again: Again
) -> list[Reason]:
    """Why each product stands in the list `made`: as `explain` says, and what the shop did, for
    which the list is made `again` from other snapshots."""

    def make(steering: Steering | None) -> list[int]:
        other = dataclasses.replace(snapshot, steerings=Steerings(other=steering))
        return again(snapshot=other).ranked.items

    steering = snapshot.steerings.of(body.placement)
    return reasons.steered(steering, made.ranked, explain(made), make)


def _searched(service: Service, body: SearchRequest, snapshot: Snapshot) -> Recommended:
    assert snapshot.content is not None
    return Recommended(search_now(service, snapshot, snapshot.content, body), None)


def _found_by_words(made: Recommended) -> list[Reason]:
    return [reasons.SEARCH] * len(made.ranked.items)


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


def _all_answers(service: Service, body: BatchRequest) -> list[dict[str, Any]]:
    shared = body.model_dump(exclude={"user_ids"})
    answers = []
    for user_id in body.user_ids:
        # Each list is a row of the request log, as if it had been asked for alone.
        with Note(service, "batch_recommend.user", body.topk, user_id) as note:
            asked = RecommendRequest.model_construct(user_id=user_id, history=[], **shared)
            snapshot = begin(note, asked)
            make = popular_now if note.held_out else recommend_now
            who = who_of(asked.user_id, None)
            note.made = made = make(service, snapshot, asked, who)
            why = None
            if body.explain:
                explain = partial(why_recommended_now, service, snapshot, asked, who)
                again = partial(make, service, body=asked, who=who)
                why = _reasons(asked, snapshot, made, explain, again)
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
    if not ranked.items and not body.is_narrow:  # a search is, whatever it looks for
        note.service.counters.tally("lists_empty")
    ids, names = catalogue.item_ids, catalogue.names
    brands, prices = catalogue.brands, catalogue.prices
    listed: list[_Listed] = [
        _Listed(ids[item], score, rank, names[item], brands[item], prices[item])
        for rank, (item, score) in enumerate(zip(ranked.items, ranked.scores, strict=True), 1)
    ]
    if why is not None:
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
