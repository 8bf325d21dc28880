"""Lists of products for a product or for words."""

from fastapi import APIRouter, Request

from serving.answering import check_topk, listed, noted, serving_snapshot, wanted_by
from serving.problems import ProblemError, documented
from serving.recommending import search, similar
from serving.schemas import (
    Recommendation,
    SearchRequest,
    SearchResponse,
    SimilarRequest,
    SimilarResponse,
)
from serving.service import Service

router = APIRouter(tags=["products"])


@router.post(
    "/similar_items",
    response_model=SimilarResponse,
    responses=documented(400, 404, 413, 422, 429, 503),
    summary="Products like a product",
)
async def similar_items(body: SimilarRequest, request: Request) -> SimilarResponse:
    """Similar by what people bought together; a product nobody bought yet by its text.

    Other sizes and variants of the product itself are left out.
    """
    service: Service = request.app.state.service
    with noted(service, "similar_items", topk=body.topk) as note:
        check_topk(service, body.topk)
        snapshot = note.of(serving_snapshot(service))
        item = snapshot.catalogue.index.get(str(body.product_id))
        if item is None:
            raise ProblemError(404, "The model knows no product of this id.")
        wanted = wanted_by(snapshot, body, body.topk, False, body.exclude)
        made = note.made = await service.compute(snapshot.inline, similar, snapshot, item, wanted)
        products = [Recommendation(**row) for row in listed(snapshot, made.ranked)]
    return SimilarResponse(
        product_id=snapshot.catalogue.item_ids[item],
        product_name=snapshot.catalogue.names[item],
        recommendations=products,
        count=len(products),
        fallback=made.fallback_method is not None,
        fallback_method=made.fallback_method,
        model_id=snapshot.model_id,
        latency_ms=note.latency_ms,
    )


@router.post(
    "/search",
    response_model=SearchResponse,
    responses=documented(400, 413, 422, 429, 503),
    summary="Products by words",
)
async def search_products(body: SearchRequest, request: Request) -> SearchResponse:
    """The products whose text is nearest to the query. Needs the bert_embeddings job to have run;
    until then the answer is a 503."""
    service: Service = request.app.state.service
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
        products = [Recommendation(**row) for row in listed(snapshot, ranked)]
    return SearchResponse(
        query=body.query,
        recommendations=products,
        count=len(products),
        model_id=snapshot.model_id,
        latency_ms=note.latency_ms,
    )
