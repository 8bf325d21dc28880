"""What only the bearer of the admin token may do."""

import hmac
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from recsys.request_log import read_traffic_by_model
from serving.coordination import Reloaded, ReloadError
from serving.problems import ProblemError, documented
from serving.reports import (
    CanaryReport,
    CanaryRequest,
    ModelTraffic,
    ReloadRequest,
)
from serving.service import Running

bearer = HTTPBearer(auto_error=False, description="The token in RECSYS_ADMIN_TOKEN of the service.")
_LOADS = documented(400, 401, 403, 409, 413, 422, 429, 503)


def name_of_bearer(
    credentials: HTTPAuthorizationCredentials | None, names: Mapping[str, str], what: str
) -> str:
    """Which of the `names`, by token, offers its token. All are compared: how long it takes tells
    nothing of a token's place. Raises a 401 problem that asks for `what`."""
    offered = (credentials.credentials if credentials else "").encode()
    matching = [n for token, n in names.items() if hmac.compare_digest(offered, token.encode())]
    if not matching:
        detail = f"This needs {what} as a bearer token."
        raise ProblemError(401, detail, {"WWW-Authenticate": "Bearer"})
    return matching[0]


async def require_admin(
    service: Running, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    """The dependency of every admin route: lets the bearer of the admin token pass."""
    token = service.environment.admin_token
    if token is None:
        detail = "Administration is switched off: the service was started without an admin token."
        raise ProblemError(403, detail)
    name_of_bearer(credentials, {token: ""}, "the admin token")


# The dependency stands on the router, so that no route can be added without it.
router = APIRouter(tags=["administration"], dependencies=[Depends(require_admin)])


@router.post("/reload_model", responses=_LOADS, summary="Serve another model")
async def reload_model(service: Running, body: ReloadRequest | None = None) -> Reloaded:
    """Loads, checks and tries the model in every worker, then swaps it in everywhere.

    Answers when all workers serve it. If it cannot be loaded by all, none serves it, everything
    stays as it was, and the answer is a 409 that says why."""
    try:
        return await service.coordinator.reload(body.model_id if body else None)
    except ReloadError as error:
        raise ProblemError(409, f"The model was not taken into service: {error}") from error


@router.post("/canary", responses=_LOADS, summary="Try a model on a share of the users")
async def start_canary(service: Running, body: CanaryRequest) -> Reloaded:
    """The model answers a fixed share of the users who are in no experiment, in every worker and
    through restarts, beside the model in service; `/reload_model` or a DELETE ends it. It is an
    experiment with guardrails only, which the `outcomes` job watches."""
    try:
        return await service.coordinator.try_model(body.model_id, body.share)
    except ReloadError as error:
        raise ProblemError(409, f"The canary was not started: {error}") from error


@router.delete(
    "/canary", status_code=204, responses=documented(401, 403, 429, 503), summary="End the canary"
)
async def end_canary(service: Running) -> None:
    """Everybody gets the model in service again. Not an error when there is no canary."""
    try:
        await service.coordinator.end_canary()
    except ReloadError as error:
        raise ProblemError(503, f"The canary was not ended: {error}") from error


@router.get("/canary", responses=documented(401, 403, 422, 429, 503), summary="How the canary does")
async def canary_report(
    service: Running, minutes: Annotated[float, Query(gt=0, le=1440)] = 10
) -> CanaryReport:
    """Errors, fallbacks and latency of `/recommend` by model, over the last `minutes`."""
    models = await service.read_log(read_traffic_by_model, minutes)
    model_id, share = service.engine.in_trial.trials.canary or (None, None)
    return CanaryReport(
        model_id=service.engine.model_id,
        canary_model_id=model_id,
        share=share,
        minutes=minutes,
        models=[ModelTraffic(**one) for one in models],
    )
