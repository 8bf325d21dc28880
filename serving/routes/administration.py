"""What only the bearer of the admin token may do."""

import sqlite3
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from serving.coordination import ReloadError
from serving.problems import ProblemError, documented
from serving.schemas import (
    CanaryReport,
    CanaryRequest,
    ModelTraffic,
    ReloadRequest,
    ReloadResponse,
)
from serving.security import require_admin
from serving.service import Service
from serving.stats import read_traffic_by_model

# The dependency stands on the router, so that no route can be added without it.
router = APIRouter(tags=["administration"], dependencies=[Depends(require_admin)])


@router.post(
    "/reload_model",
    response_model=ReloadResponse,
    responses=documented(400, 401, 403, 409, 413, 422, 429, 503),
    summary="Serve another model",
)
async def reload_model(request: Request, body: ReloadRequest | None = None) -> ReloadResponse:
    """Loads, checks and tries the model in every worker, then swaps it in everywhere.

    Answers when all workers serve it. If it cannot be loaded by all, none serves it, everything
    stays as it was, and the answer is a 409 that says why.
    """
    try:
        reloaded = await request.app.state.service.coordinator.reload(
            body.model_id if body else None
        )
    except ReloadError as error:
        raise ProblemError(409, f"The model was not taken into service: {error}") from error
    return ReloadResponse(**asdict(reloaded))


@router.post(
    "/canary",
    response_model=ReloadResponse,
    responses=documented(400, 401, 403, 409, 413, 422, 429, 503),
    summary="Try a model on a share of the users",
)
async def start_canary(request: Request, body: CanaryRequest) -> ReloadResponse:
    """The model answers `/recommend` for a fixed share of the users, in every worker, beside the
    model in service; `/reload_model` or a DELETE ends it. Workers that start meanwhile do not
    take part."""
    try:
        started = await request.app.state.service.coordinator.reload(body.model_id, body.share)
    except ReloadError as error:
        raise ProblemError(409, f"The canary was not started: {error}") from error
    return ReloadResponse(**asdict(started))


@router.delete(
    "/canary",
    status_code=204,
    responses=documented(401, 403, 429, 503),
    summary="End the canary",
)
async def end_canary(request: Request) -> Response:
    """Everybody gets the model in service again. Not an error when there is no canary."""
    await request.app.state.service.coordinator.end_canary()
    return Response(status_code=204)


@router.get(
    "/canary",
    response_model=CanaryReport,
    responses=documented(401, 403, 422, 429, 503),
    summary="How the canary does",
)
async def canary_report(
    request: Request, minutes: Annotated[float, Query(gt=0, le=1440)] = 10
) -> CanaryReport:
    """Errors, fallbacks and latency of `/recommend` by model, over the last `minutes`."""
    service: Service = request.app.state.service
    try:
        models = await service.compute(
            False, read_traffic_by_model, service.settings.service_db, minutes
        )
    except sqlite3.Error as error:
        raise ProblemError(503, f"The request log cannot be read: {error}.") from error
    canary = service.engine.canary
    return CanaryReport(
        model_id=service.engine.model_id,
        canary_model_id=canary.snapshot.model_id if canary else None,
        share=canary.share if canary else None,
        minutes=minutes,
        models=[ModelTraffic(**one) for one in models],
    )
