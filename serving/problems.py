"""Errors as RFC 9457 problem documents."""

import logging
import time
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from recsys.request_log import LOGGED_ENDPOINTS, Answered

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
SHOWN_ERRORS = 10
_SHOWN_CHARACTERS = 200

TITLES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    422: "Unprocessable Content",
}
# What the framework says, as sentences.
_SENTENCES = {
    "There was an error parsing the body": "The body is not JSON in UTF-8.",
    "Not Found": "There is nothing at this path; /docs names those there are, /health the state.",
    "Method Not Allowed": "This path does not answer to this method.",
}


class FieldProblem(BaseModel):
    """What is wrong with one part of the request."""

    field: str = Field(examples=["body.topk"])
    message: str = Field(examples=["Input should be less than or equal to 100"])


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(default="about:blank", description="URI of the kind of problem.")
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(description="A sentence for a person.")
    errors: list[FieldProblem] | None = None


class ProblemError(HTTPException):
    """Raised by a route to answer with a problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: dict[str, str] | None = None,
        errors: list[FieldProblem] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.errors = errors


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with problems of these `statuses`."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": TITLES[status], "content": content} for status in statuses}


def problem_response(
    status: int,
    detail: str,
    headers: dict[str, str] | None = None,
    errors: list[FieldProblem] | None = None,
) -> JSONResponse:
    """The answer that carries a problem document."""
    problem = Problem(title=TITLES[status], status=status, detail=detail, errors=errors)
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status, headers=headers, media_type=MEDIA_TYPE)


def response_to(error: HTTPException) -> JSONResponse:
    """The answer to a request that ended with `error`."""
    detail = _SENTENCES.get(error.detail, error.detail)
    if isinstance(error.__cause__, RecursionError):
        detail = "The body is JSON that is nested too deeply."
    errors = getattr(error, "errors", None)
    return problem_response(error.status_code, detail, dict(error.headers or {}), errors)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem document."""
    app.add_exception_handler(RequestValidationError, _on_bad_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_fault)


def schemas() -> dict[str, Any]:
    """What `documented` refers to, for the OpenAPI document."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs"), "Problem": schema}


async def _on_bad_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # What was sent is not echoed: it may be large, secret or not representable as text.
    errors = [
        FieldProblem(
            field=".".join(map(str, problem["loc"]))[:_SHOWN_CHARACTERS],
            message=str(problem["msg"])[:_SHOWN_CHARACTERS],
        )
        for problem in error.errors()[:SHOWN_ERRORS]
    ]
    first = f"{errors[0].field}: {errors[0].message}" if errors else "not understood"
    if first.startswith("body: ") and "json" not in request.headers.get("content-type", ""):
        first = "The header Content-Type has to be application/json"
    detail = f"The request is not valid. {first}."
    endpoint = request.url.path.lstrip("/")
    if endpoint in LOGGED_ENDPOINTS:
        refused = Answered(time.time(), endpoint, None, None, None, None, None, detail, None, 422)
        request.app.state.service.requests.add(refused)
    return problem_response(422, detail, errors=errors)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        error.headers = {"Allow": ", ".join(sorted(_methods_of(request)))}
    return response_to(error)


async def _on_fault(request: Request, error: Exception) -> JSONResponse:
    logger.error("A request failed | path=%s", request.url.path, exc_info=error)
    return problem_response(500, "The service failed on this request; its log says more.")


def is_export(path: str) -> bool:
    """Whether it asks for what is kept of a customer, which works for long and notes who asked:
    nothing to be done for somebody who wants headers alone."""
    return path.startswith("/users/") and path.endswith("/export")


def _methods_of(request: Request) -> set[str]:
    """All methods that the path of `request` answers to: each is a route of its own."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    by_head = "GET" in methods and not is_export(request.url.path)
    return methods | ({"HEAD"} if by_head else set())
