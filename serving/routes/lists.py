"""Lists of products: for a user, for many users, for a product, for words."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from recsys.arrays import Int32Array
from recsys.ids import normalise_id
from serving.catalogue import filter_products
from serving.problems import ProblemError, documented
from serving.ranking import Ranked, Wanted
from serving.recommending import Recommended, Snapshot, history_of, recommend, search, similar
from serving.schemas import (
    BatchRequest,
    BatchResponse,
    Filters,
    Recommendation,
    RecommendRequest,
    RecommendResponse,
    SearchRequest,
    SearchResponse,
    SimilarRequest,
    SimilarResponse,
)
from serving.service import Running, Service, noted, service_of, serving_snapshot

_JSON = b"application/json"
_NOTHING = np.zeros(0, dtype=np.int32)


class DirectRoute(APIRoute):
    """A route of the form ``async def route(body: Model, service: Running) -> Response``.

    FastAPI decodes a body, collects headers, cookies and query, and then validates: a third of
    the time of a short request. Here the validator reads the bytes. Whatever is not a valid body
    of type ``application/json`` goes the usual way, and gets FastAPI's answer.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        usual = super().get_route_handler()
        answer: Callable[[Any, Service], Awaitable[Response]] = self.endpoint
        field = self.body_field
        model = field.field_info.annotation if field else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"{self.path}: expected a route whose body is one model, not {model}")
        validate = model.__pydantic_validator__.validate_json

        async def direct(request: Request) -> Response:
            if (b"content-type", _JSON) not in request.scope["headers"]:
                return await usual(request)
            try:
                body = validate(await request.body())
            except (ValidationError, ClientDisconnect):
                # The request keeps what was read of its body.
                return await usual(request)
            return await answer(body, service_of(request))

        return direct


users = APIRouter(tags=["recommendations"], route_class=DirectRoute)
products = APIRouter(tags=["products"])


@users.post(
    "/recommend",
    response_model=RecommendResponse,
    responses=documented(400, 413, 422, 429, 503),
    summary="Products for one user",
)
async def recommend_products(body: RecommendRequest, service: Running) -> Response:
    """The best products for a user, known or not; users we know nothing of get what is popular.

    Never an error for an unknown user. The list is filled up to `topk` after filtering, as long
    as there are products that pass.
    """
    with noted(service, "recommend", user_id=body.user_id, topk=body.topk) as note:
        check_topk(service, body.topk)
        snapshot = note.of(serving_snapshot(service, body.user_id))
        note.made = made = await recommend_beside(service, snapshot, body)
        answer = _answer(snapshot, body.user_id, made)
    answer["latency_ms"] = note.latency_ms
    return _json(answer)


@users.post(
    "/batch_recommend",
    response_model=BatchResponse,
    responses=documented(400, 413, 422, 429, 503),
    summary="Products for many users",
)
async def batch_recommend(body: BatchRequest, service: Running) -> Response:
    """The same for many users in one request. Computed beside the event loop, so that single
    requests do not wait for it."""
    started = time.perf_counter()
    with noted(service, "batch_recommend", topk=body.topk) as note:
        check_topk(service, body.topk)
        snapshot = note.of(serving_snapshot(service))
        answers = await service.compute(False, _all_answers, service, snapshot, body)
    return _json(
        {
            "results": answers,
            "count": len(answers),
            "model_id": snapshot.model_id,
            "latency_ms": (time.perf_counter() - started) * 1000,
        }
    )


@products.post(
    "/similar_items",
    response_model=SimilarResponse,
    responses=documented(400, 404, 413, 422, 429, 503),
    summary="Products like a product",
)
async def similar_items(body: SimilarRequest, service: Running) -> SimilarResponse:
    """Similar by what people bought together; a product nobody bought yet by its text.

    Other sizes and variants of the product itself are left out.
    """
    with noted(service, "similar_items", topk=body.topk) as note:
        check_topk(service, body.topk)
        snapshot = note.of(serving_snapshot(service))
        index = snapshot.catalogue.index
        item = index.get(known_id(body.product_id, index))
        if item is None:
            raise ProblemError(404, "The model knows no product of this id.")
        wanted = wanted_by(snapshot, body, body.topk, False, body.exclude)
        made = note.made = await service.compute(snapshot.inline, similar, snapshot, item, wanted)
        found = [Recommendation(**row) for row in listed(snapshot, made.ranked)]
    return SimilarResponse(
        product_id=snapshot.catalogue.item_ids[item],
        product_name=snapshot.catalogue.names[item],
        recommendations=found,
        count=len(found),
        fallback=made.fallback_method is not None,
        fallback_method=made.fallback_method,
        model_id=snapshot.model_id,
        latency_ms=note.latency_ms,
    )


@products.post(
    "/search",
    response_model=SearchResponse,
    responses=documented(400, 413, 422, 429, 503),
    summary="Products by words",
)
async def search_products(body: SearchRequest, service: Running) -> SearchResponse:
    """The products whose text is nearest to the query. Needs the bert_embeddings job to have run;
    until then the answer is a 503."""
    with noted(service, "search", topk=body.topk) as note:
        check_topk(service, body.topk)
        snapshot = note.of(serving_snapshot(service))
        if snapshot.content is None:
            raise ProblemError(
                503, "There are no text embeddings yet: run bert_embeddings.", {"Retry-After": "60"}
            )
        wanted = wanted_by(snapshot, body, body.topk, False, [])
        ranked = await service.compute(
            False, search, snapshot, snapshot.content, body.query, wanted
        )
        found = [Recommendation(**row) for row in listed(snapshot, ranked)]
    return SearchResponse(
        query=body.query,
        recommendations=found,
        count=len(found),
        model_id=snapshot.model_id,
        latency_ms=note.latency_ms,
    )


def check_topk(service: Service, topk: int) -> None:
    if topk > service.config.max_topk:
        raise ProblemError(
            422, f"topk: at most {service.config.max_topk} are allowed, {topk} were asked for."
        )


def wanted_by(
    snapshot: Snapshot, filters: Filters, topk: int, exclude_seen: bool, exclude: list[Any]
) -> Wanted:
    """What the request asks for, in column numbers of the snapshot."""
    catalogue = snapshot.catalogue
    allowed = filter_products(
        catalogue, filters.brands, filters.categories, filters.min_price, filters.max_price
    )
    return Wanted(topk, exclude_seen, allowed, columns_of(snapshot, exclude))


def known_id(product_id: int | str, index: Mapping[str, int]) -> str:
    """The id of a product in the one spelling, or as it is where a model knows it so."""
    text = str(product_id)
    return text if text in index else normalise_id(text)


def columns_of(snapshot: Snapshot, product_ids: list[Any]) -> Int32Array:
    """Column numbers of the products that the model knows."""
    if not product_ids:
        return _NOTHING
    index = snapshot.catalogue.index
    known = [index[name] for product in product_ids if (name := known_id(product, index)) in index]
    return np.array(known, dtype=np.int32)


def recommend_now(
    service: Service, snapshot: Snapshot, body: RecommendRequest, user_id: str
) -> Recommended:
    """The list of the user `user_id` (in the one spelling)."""
    live = service.live.of(user_id)
    if not live:
        made = _made_in_advance(snapshot, user_id, body)
        if made is not None:
            return made
    now = int(time.time())
    viewed = [known_id(product, snapshot.catalogue.index) for product in body.history]
    history = history_of(snapshot, user_id, live, viewed, now)
    wanted = wanted_by(snapshot, body, body.topk, body.exclude_seen, body.exclude)
    return recommend(snapshot, history, wanted, now)


def _made_in_advance(
    snapshot: Snapshot, user_id: str, body: RecommendRequest
) -> Recommended | None:
    """The list that was made when the model was loaded, None if it does not do."""
    if snapshot.lists is None or not body.exclude_seen or body.history or body.has_filters:
        return None
    position = snapshot.position(user_id)
    if position is None:
        return None
    excluded = columns_of(snapshot, body.exclude)
    ranked = snapshot.lists.first(position, body.topk, excluded)
    return None if ranked is None else Recommended(ranked, None)


async def recommend_beside(
    service: Service, snapshot: Snapshot, body: RecommendRequest
) -> Recommended:
    """The same on the event loop for a quick model, in a thread beside it for a slow one and for a
    user whose interactions have to be read first."""
    user_id = normalise_id(body.user_id)
    inline = snapshot.inline and not service.live.has(user_id)
    return await service.compute(inline, recommend_now, service, snapshot, body, user_id)


def listed(snapshot: Snapshot, ranked: Ranked) -> list[dict[str, Any]]:
    """The products of a list as they are shown (`serving.schemas.Recommendation`)."""
    catalogue = snapshot.catalogue
    ids, names = catalogue.item_ids, catalogue.names
    brands, prices = catalogue.brands, catalogue.prices
    return [
        {
            "product_id": ids[item],
            "score": score,
            "rank": rank,
            "product_name": names[item],
            "brand": brands[item],
            "price": prices[item],
        }
        for rank, (item, score) in enumerate(zip(ranked.items, ranked.scores, strict=True), 1)
    ]


def _all_answers(service: Service, snapshot: Snapshot, body: BatchRequest) -> list[dict[str, Any]]:
    shared = body.model_dump(exclude={"user_ids"})
    answers = []
    for user_id in body.user_ids:
        # Each list is a row of the request log, as if it had been asked for alone.
        with noted(service, "batch_recommend.user", user_id=user_id, topk=body.topk) as note:
            asked = RecommendRequest.model_construct(user_id=user_id, history=[], **shared)
            note.of(snapshot)
            note.made = made = recommend_now(service, snapshot, asked, normalise_id(user_id))
            answer = _answer(snapshot, user_id, made)
        answer["latency_ms"] = note.latency_ms
        answers.append(answer)
    return answers


def _answer(snapshot: Snapshot, user_id: int | str, made: Recommended) -> dict[str, Any]:
    """The content of a `RecommendResponse`.

    Not made through that class: the document is the same (a test compares them), the time a
    quarter.
    """
    products = listed(snapshot, made.ranked)
    return {
        "user_id": user_id,
        "recommendations": products,
        "count": len(products),
        "fallback": made.fallback_method is not None,
        "fallback_method": made.fallback_method,
        "model_id": snapshot.model_id,
    }


def _json(content: dict[str, Any]) -> Response:
    return Response(to_json(content), media_type="application/json")
