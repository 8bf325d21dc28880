"""What only the bearer of the admin token may do."""

import hmac
import sqlite3
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from recsys.request_log import read_traffic_by_model
from serving.coordination import ReloadError
from serving.problems import ProblemError, documented
from serving.schemas import (
    CanaryReport,
    CanaryRequest,
    ModelTraffic,
    ReloadRequest,
    ReloadResponse,
)
from serving.service import Running

_bearer = HTTPBearer(
    auto_error=False, description="The token in RECSYS_ADMIN_TOKEN of the service."
)


async def require_admin(
    service: Running,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """The dependency of every admin route: lets the bearer of the admin token pass."""
    token = service.environment.admin_token
    if token is None:
        raise ProblemError(
            403, "Administration is switched off: the service was started without an admin token."
        )
    offered = credentials.credentials if credentials else ""
    if not hmac.compare_digest(offered.encode(), token.encode()):
        raise ProblemError(
            401,
            "This needs the admin token as a bearer token.",
            headers={"WWW-Authenticate": "Bearer"},
        )


# The dependency stands on the router, so that no route can be added without it.
router = APIRouter(tags=["administration"], dependencies=[Depends(require_admin)])


@router.post(
    "/reload_model",
    response_model=ReloadResponse,
    responses=documented(400, 401, 403, 409, 413, 422, 429, 503),
    summary="Serve another model",
)
async def reload_model(service: Running, body: ReloadRequest | None = None) -> ReloadResponse:
    """Loads, checks and tries the model in every worker, then swaps it in everywhere.

    Answers when all workers serve it. If it cannot be loaded by all, none serves it, everything
    stays as it was, and the answer is a 409 that says why.
    """
    try:
        reloaded = await service.coordinator.reload(body.model_id if body else None)
    except ReloadError as error:
        raise ProblemError(409, f"The model was not taken into service: {error}") from error
    return ReloadResponse(**asdict(reloaded))


@router.post(
    "/canary",
    response_model=ReloadResponse,
    responses=documented(400, 401, 403, 409, 413, 422, 429, 503),
    summary="Try a model on a share of the users",
)
async def start_canary(service: Running, body: CanaryRequest) -> ReloadResponse:
    """The model answers `/recommend` for a fixed share of the users, in every worker, beside the
    model in service; `/reload_model` or a DELETE ends it. Workers that start meanwhile do not
    take part."""
    try:
        started = await service.coordinator.reload(body.model_id, body.share)
    except ReloadError as error:
        raise ProblemError(409, f"The canary was not started: {error}") from error
    return ReloadResponse(**asdict(started))


@router.delete(
    "/canary",
    status_code=204,
    responses=documented(401, 403, 429, 503),
    summary="End the canary",
)
async def end_canary(service: Running) -> Response:
    """Everybody gets the model in service again. Not an error when there is no canary."""
    await service.coordinator.end_canary()
    return Response(status_code=204)


@router.get(
    "/canary",
    response_model=CanaryReport,
    responses=documented(401, 403, 422, 429, 503),
    summary="How the canary does",
)
async def canary_report(
    service: Running, minutes: Annotated[float, Query(gt=0, le=1440)] = 10
) -> CanaryReport:
    """Errors, fallbacks and latency of `/recommend` by model, over the last `minutes`."""
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
