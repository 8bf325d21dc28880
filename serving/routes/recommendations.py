"""Lists of products for users."""

import time

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from serving.answering import (
    check_topk,
    listed,
    note,
    recommend_beside,
    serving_snapshot,
)
from serving.problems import ProblemError, documented
from serving.schemas import RecommendRequest, RecommendResponse
from serving.service import Service

router = APIRouter(tags=["recommendations"])


@router.post(
    "/recommend",
    response_model=RecommendResponse,
    responses=documented(400, 413, 422, 429, 503),
    summary="Products for one user",
)
async def recommend(body: RecommendRequest, request: Request) -> Response:
    """The best products for a user, known or not; users we know nothing of get what is popular.

    Never an error for an unknown user. The list is filled up to `topk` after filtering, as long
    as there are products that pass.
    """
    started = time.perf_counter()
    service: Service = request.app.state.service
    model_id = None
    try:
        check_topk(service, body.topk)
        snapshot = serving_snapshot(service)
        model_id = snapshot.model_id
        made = await recommend_beside(service, snapshot, body)
    except Exception as error:
        note(
            service,
            "recommend",
            started,
            user_id=body.user_id,
            topk=body.topk,
            error=error.detail if isinstance(error, ProblemError) else type(error).__name__,
            model_id=model_id,
        )
        raise
    products = listed(snapshot, made.ranked)
    latency = note(
        service,
        "recommend",
        started,
        user_id=body.user_id,
        topk=body.topk,
        made=made,
        model_id=model_id,
    )
    # Made by hand and not by FastAPI's response model: the same document (a test compares them)
    # for a quarter of the time.
    return Response(
        to_json(
            {
                "user_id": body.user_id,
                "recommendations": products,
                "count": len(products),
                "fallback": made.fallback_method is not None,
                "fallback_method": made.fallback_method,
                "model_id": model_id,
                "latency_ms": latency,
            }
        ),
        media_type="application/json",
    )
