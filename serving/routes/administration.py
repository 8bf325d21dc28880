"""What only the bearer of the admin token may do."""

from dataclasses import asdict

from fastapi import APIRouter, Depends, Request

from serving.coordination import ReloadError
from serving.problems import ProblemError, documented
from serving.schemas import ReloadRequest, ReloadResponse
from serving.security import require_admin

# The dependency stands on the router, so that no route can be added without it.
router = APIRouter(tags=["administration"], dependencies=[Depends(require_admin)])


@router.post(
    "/reload_model",
    response_model=ReloadResponse,
    responses=documented(400, 401, 403, 409, 413, 422, 429),
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
