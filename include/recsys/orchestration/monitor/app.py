"""The monitor as a FastAPI application, behind Airflow's login."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from recsys.orchestration.mirror import tracker_id
from recsys.orchestration.monitor.overview import (
    find_page,
    find_run,
    gather,
    pages_of_run,
    run_tracker,
    summary_of,
)
from recsys.orchestration.monitor.rendering import Renderer
from recsys.settings import Settings

# The pages have no script. Reports bring their pictures with them, inline.
CONTENT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'"
)
REPORT_POLICY: Final = f"{CONTENT_POLICY}; sandbox allow-same-origin"
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

# Whoever may see what the cluster does may see this page. A permission for DAGs would not do:
# Airflow reads which DAG is meant from the request, so whoever may see one could name that.
may_watch = requires_access_view(AccessView.CLUSTER_ACTIVITY)


def create_app(settings: Settings, paused_jobs: Callable[[], set[str]] | None = None) -> FastAPI:
    """The application for the state of `settings`, to be mounted one level below the API server.

    `paused_jobs` gives the paused DAGs; by default Airflow's database is asked.
    """
    app = FastAPI(
        title="Recsys monitor",
        dependencies=[Depends(may_watch)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    renderer, tracker = Renderer(settings), run_tracker(settings)
    paused = paused_jobs or paused_dags

    _add_headers(app)
    _add_error_pages(app, renderer)

    @app.get("/")
    def overview(request: Request) -> HTMLResponse:
        now = datetime.now(UTC)
        found = gather(settings, now, tracker, paused)
        return HTMLResponse(renderer.overview(_root(request), found, now))

    @app.get("/runs/{job}/{run_id:path}")
    def run(request: Request, job: str, run_id: str) -> HTMLResponse:
        found = find_run(tracker, tracker_id(job, run_id))
        if found is None:
            raise HTTPException(
                404, f"Chưa ghi nhận lần chạy {run_id} của {job}. (Not on record yet.)"
            )
        page = renderer.run(
            _root(request),
            found,
            pages_of_run(settings, summary_of(found)),
            airflow_path=None if _is_embedded(request) else _airflow_path(request, job, run_id),
        )
        return HTMLResponse(page)

    @app.get("/reports/{kind}/{name}")
    def report(kind: str, name: str) -> HTMLResponse:
        page = find_page(settings, kind, name)
        if page is None:
            raise HTTPException(404, f"Không có báo cáo {kind}/{name}. (No such report.)")
        try:
            content = page.path.read_bytes()
        except FileNotFoundError:
            raise HTTPException(404, f"Báo cáo {name} vừa bị xóa. (Just removed.)") from None
        return HTMLResponse(content, headers={"Content-Security-Policy": REPORT_POLICY})

    return app


def _add_headers(app: FastAPI) -> None:
    @app.middleware("http")
    async def add_headers(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await answer(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def _add_error_pages(app: FastAPI, renderer: Renderer) -> None:
    @app.exception_handler(StarletteHTTPException)
    async def explain(request: Request, error: StarletteHTTPException) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        if error.status_code == 401:
            return RedirectResponse(_login_url(request), 303)
        page = renderer.problem(_root(request), error.status_code, str(error.detail))
        return HTMLResponse(page, error.status_code)


def paused_dags() -> set[str]:
    """The DAGs that nobody has unpaused, from Airflow's database."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        return set(session.scalars(select(DagModel.dag_id).where(DagModel.is_paused)))


def _root(request: Request) -> str:
    """The path at which the monitor is mounted, behind whatever path Airflow itself has."""
    return str(request.scope.get("root_path", ""))


def _airflow_path(request: Request, job: str, run_id: str) -> str:
    airflow = _root(request).rpartition("/")[0]
    return f"{airflow}/dags/{quote(job, safe='')}/runs/{quote(run_id, safe='')}"


def _login_url(request: Request) -> str:
    airflow = _root(request).rpartition("/")[0]
    # As it was asked for: a run id may hold characters that mean something else in a URL.
    path = request.scope["raw_path"].decode("latin-1")
    return f"{airflow}/api/v2/auth/login?next={quote(path, safe='')}"


def _is_embedded(request: Request) -> bool:
    """Whether Airflow's UI shows the page in its frame, whose sandbox lets no link out."""
    return request.headers.get("sec-fetch-dest") == "iframe"
