"""Lists of products for users."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from serving.answering import (
    check_topk,
    listed,
    noted,
    recommend_beside,
    recommend_now,
    serving_snapshot,
)
from serving.problems import ProblemError, documented
from serving.recommending import Recommended
from serving.routes.direct import DirectRoute
from serving.schemas import BatchRequest, BatchResponse, RecommendRequest, RecommendResponse
from serving.service import Service
from serving.snapshot import Snapshot

router = APIRouter(tags=["recommendations"], route_class=DirectRoute)


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
    service: Service = request.app.state.service
    with noted(service, "recommend", user_id=body.user_id, topk=body.topk) as note:
        check_topk(service, body.topk)
        snapshot = note.of(serving_snapshot(service, body.user_id))
        note.made = made = await recommend_beside(service, snapshot, body)
        answer = _answer(snapshot, body.user_id, made)
    answer["latency_ms"] = note.latency_ms
    return _json(answer)


@router.post(
    "/batch_recommend",
    response_model=BatchResponse,
    responses=documented(400, 413, 422, 429, 503),
    summary="Products for many users",
)
async def batch_recommend(body: BatchRequest, request: Request) -> Response:
    """The same for many users in one request. Computed beside the event loop, so that single
    requests do not wait for it."""
    service: Service = request.app.state.service
    started = time.perf_counter()
    with noted(service, "batch_recommend", topk=body.topk) as note:
        check_topk(service, body.topk)
        most = service.config.max_batch_users
        if len(body.user_ids) > most:
            raise ProblemError(
                422, f"user_ids: at most {most} users are allowed, not {len(body.user_ids)}."
            )
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


def _all_answers(service: Service, snapshot: Snapshot, body: BatchRequest) -> list[dict[str, Any]]:
    shared = body.model_dump(exclude={"user_ids"})
    answers = []
    for user_id in body.user_ids:
        # Each list is a row of the request log, as if it had been asked for alone.
        with noted(service, "batch_recommend.user", user_id=user_id, topk=body.topk) as note:
            asked = RecommendRequest.model_construct(user_id=user_id, history=[], **shared)
            note.made = made = recommend_now(service, note.of(snapshot), asked)
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
