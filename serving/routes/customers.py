"""Customers' rights: for the bearer of the admin token."""

import os
import subprocess
import sys
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from recsys.errors import InputError
from recsys.privacy import ASKED_BY, MOST_OF_A_NAME, ask_to_forget, checked_ids
from serving.guard import EXPORT_SECONDS
from serving.problems import ProblemError, documented
from serving.reports import (
    Forgetting,
)
from serving.routes.administration import require_admin
from serving.service import Running, Service

# The dependency stands on the router, so that no route can be added without it.
router = APIRouter(tags=["customers"], dependencies=[Depends(require_admin)])

_PATH = "/users/{user_id}"
Customer = Annotated[
    str, Path(min_length=1, max_length=128, description="The id, as the shop writes it.")
]
AskedBy = Annotated[
    str,
    Query(
        max_length=MOST_OF_A_NAME,
        pattern=ASKED_BY,
        description="Who asked, for the register.",
        examples=["support"],
    ),
]
_BY = "the service's administrator"
_SPARE = 5.0  # seconds to say that it took too long


@router.delete(
    _PATH,
    status_code=202,
    responses=documented(401, 403, 422, 429, 503),
    summary="Forget a customer",
)
async def forget(user_id: Customer, service: Running, by: AskedBy = _BY) -> Forgetting:
    """From now on this is an unknown user, in every worker and replica within a second, whose
    events are not kept; the job `forget_customers` removes what is kept. Asked again, it is the
    same request as long as that is not done."""
    return await service.compute_many(_forget, service, user_id, by)


@router.get(
    f"{_PATH}/export",
    response_class=Response,
    responses=documented(401, 403, 422, 429, 503)
    | {200: {"content": {"application/json": {}}, "description": "All that is kept, as JSON."}},
    summary="What is kept of a customer",
)
async def export(user_id: Customer, service: Running, by: AskedBy = _BY) -> Response:
    """What `recsys customer export` writes, within two minutes. Take `doubtful` out before you send
    it on."""
    content = await service.compute_many(_export, service, user_id, by)
    return Response(content, media_type="application/json")


def _forget(service: Service, user_id: str, by: str) -> Forgetting:
    _check(service, user_id, by)
    try:
        [request] = ask_to_forget(service.settings, [user_id], by, service.ids)
    except (InputError, OSError) as error:
        raise ProblemError(503, f"The request could not be noted; ask again: {error}") from error
    service.forgotten.look()
    return Forgetting(number=request.number, asked_at=request.asked_at, due_at=request.due_at)


def _export(service: Service, user_id: str, by: str) -> bytes:
    """In a process of its own, which carries what reads all kinds of files, and may die alone."""
    _check(service, user_id, by)
    command = [sys.executable, "-m", "recsys", "customer", "export", f"--by={by}", "--", user_id]
    environment = os.environ | {"RECSYS_HOME": str(service.settings.home)}
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and what is given follows "--"
            command,
            env=environment,
            capture_output=True,
            check=True,
            timeout=EXPORT_SECONDS - _SPARE,
        )
    except subprocess.TimeoutExpired as error:
        detail = "The export takes more than two minutes: `recsys customer export` has the time."
        raise ProblemError(503, detail) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ProblemError(503, f"The export failed: {said}") from error
    return done.stdout


def _check(service: Service, user_id: str, by: str) -> None:
    """Raises a 422 problem for what is no id of one customer."""
    try:
        checked_ids([user_id], by, service.ids)
    except InputError as error:
        raise ProblemError(422, f"This is no customer: {error}.") from error
