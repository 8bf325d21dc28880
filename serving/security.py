"""Who may administer the service."""

import hmac
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from serving.problems import ProblemError

_bearer = HTTPBearer(
    auto_error=False, description="The token in RECSYS_ADMIN_TOKEN of the service."
)


async def require_admin(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> None:
    """The dependency of every admin route: lets the bearer of the admin token pass."""
    token = request.app.state.service.environment.admin_token
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
