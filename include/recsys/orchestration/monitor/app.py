"""The monitor as a FastAPI application, behind Airflow's login."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_variable,
    requires_access_view,
)
from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from recsys.orchestration.mirror import tracker_id
from recsys.orchestration.monitor import overview
from recsys.orchestration.monitor.customers import LONGEST, ask
from recsys.orchestration.monitor.rendering import Renderer
from recsys.orchestration.monitor.rules import ask_for_preview, placements_of
from recsys.settings import Settings

# The pages have no script. Reports bring their pictures with them, inline.
CONTENT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'"
)
REPORT_POLICY: Final = f"{CONTENT_POLICY}; sandbox allow-same-origin"
# Two pages have a form.
FORM_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_POLICY.replace("form-action 'none'", "form-action 'self'")
}
PREVIEW_SECONDS: Final = 20.0
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

# Whoever may see what the cluster does may see this page. A permission for DAGs would not do:
# Airflow reads which DAG is meant from the request, so whoever may see one could name that.
may_watch = requires_access_view(AccessView.CLUSTER_ACTIVITY)
# A preview shows what a customer gets, which is not for viewers: whoever may read Airflow's
# variables (operators and above) sees more than that.
may_preview = requires_access_variable("GET")
# To forget a customer is not undone: for those who may delete Airflow's variables.
may_forget = requires_access_variable("DELETE")
_segment = partial(quote, safe="")


def paused_dags() -> set[str]:
    """The DAGs that nobody has unpaused, from Airflow's database."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        return set(session.scalars(select(DagModel.dag_id).where(DagModel.is_paused)))


def create_app(settings: Settings, paused: Callable[[], set[str]] = paused_dags) -> FastAPI:
    """The application for the state of `settings`, to be mounted one level below the API server."""
    app = FastAPI(title="Recsys monitor", dependencies=[Depends(may_watch)], openapi_url=None)
    renderer, tracker = Renderer(settings), overview.run_tracker(settings)

    app.middleware("http")(_add_headers)
    _add_error_pages(app, renderer)
    _add_customers(app, settings, renderer)

    @app.get("/")
    def show_all(request: Request) -> HTMLResponse:
        now = datetime.now(UTC)
        found = overview.gather(settings, now, tracker, paused)
        return HTMLResponse(renderer.overview(_root(request), found, now))

    @app.get("/rules")
    def rules(request: Request) -> HTMLResponse:
        found, places = overview.rules_section(settings, datetime.now(UTC)), placements_of(settings)
        page = renderer.rules(_root(request), found, places)
        return HTMLResponse(page, headers=FORM_HEADERS)

    @app.get("/rules/preview", dependencies=[Depends(may_preview)])
    def preview(
        request: Request, user_id: str = "", product_id: str = "", placement: str = ""
    ) -> HTMLResponse:
        asked = {"user_id": user_id, "product_id": product_id, "placement": placement}
        found, places = overview.rules_section(settings, datetime.now(UTC)), placements_of(settings)
        shown, refused = ask_for_preview(settings, asked, PREVIEW_SECONDS)
        page = renderer.rules(_root(request), found, places, asked, shown, refused)
        return HTMLResponse(page, headers=FORM_HEADERS)

    @app.get("/runs/{job}/{run_id:path}")
    def run(request: Request, job: str, run_id: str) -> HTMLResponse:
        found = tracker.get_run(tracker_id(job, run_id)) if tracker.db_path.exists() else None
        if found is None:
            sentence = f"Chưa ghi nhận lần chạy {run_id} của {job}. (Not on record yet.)"
            raise HTTPException(404, sentence)
        # Airflow's UI shows the page in its frame, whose sandbox lets no link out.
        embedded = request.headers.get("sec-fetch-dest") == "iframe"
        path = f"{_airflow(request)}/dags/{_segment(job)}/runs/{_segment(run_id)}"
        pages = overview.pages_of_run(settings, overview.summary_of(found))
        return HTMLResponse(renderer.run(_root(request), found, pages, None if embedded else path))

    @app.get("/reports/{kind}/{name}")
    def report(kind: str, name: str) -> HTMLResponse:
        page = overview.find_page(settings, kind, name)
        if page is None:
            raise HTTPException(404, f"Không có báo cáo {kind}/{name}. (No such report.)")
        try:
            content = page.path.read_bytes()
        except FileNotFoundError:
            raise HTTPException(404, f"Báo cáo {name} vừa bị xóa. (Just removed.)") from None
        return HTMLResponse(content, headers={"Content-Security-Policy": REPORT_POLICY})

    return app


async def from_this_page(request: Request) -> None:
    """A browser that is logged in must not forget anybody because another site's page says so."""
    site, origin = (request.headers.get(name) for name in ("sec-fetch-site", "origin"))
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if site != "same-origin" and (site is not None or foreign):
        sentence = "Biểu mẫu được gửi từ một trang khác. (Sent from another site's page.)"
        raise HTTPException(403, sentence)


async def _add_headers(
    request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await answer(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _add_customers(app: FastAPI, settings: Settings, renderer: Renderer) -> None:
    @app.get("/customers", dependencies=[Depends(may_forget)])
    def customers(request: Request) -> HTMLResponse:
        found = overview.requests_section(settings, datetime.now(UTC))
        return HTMLResponse(renderer.customers(_root(request), found), headers=FORM_HEADERS)

    @app.post("/customers", dependencies=[Depends(may_forget), Depends(from_this_page)])
    def forget(
        request: Request,
        user: GetUserDep,
        ids: Annotated[str, Form(max_length=LONGEST)] = "",
        sure: Annotated[str, Form(max_length=10)] = "",
    ) -> HTMLResponse:
        not_sure = list[int](), "the box below the ids was not ticked"
        opened, refused = ask(settings, ids, user.get_name()) if sure else not_sure
        found = overview.requests_section(settings, datetime.now(UTC))
        given = "" if opened else ids
        page = renderer.customers(_root(request), found, given, opened, refused)
        return HTMLResponse(page, 422 if refused else 200, headers=FORM_HEADERS)


def _add_error_pages(app: FastAPI, renderer: Renderer) -> None:
    @app.exception_handler(StarletteHTTPException)
    async def explain(request: Request, error: StarletteHTTPException) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        if error.status_code == 401:
            # As it was asked for: a run id may hold characters that mean something else in a URL.
            asked = request.scope["raw_path"].decode("latin-1")
            login = f"{_airflow(request)}/api/v2/auth/login?next={_segment(asked)}"
            return RedirectResponse(login, 303)
        said = {"status": error.status_code, "sentence": str(error.detail)}
        page = renderer.render("problem.html", _root(request), **said)
        return HTMLResponse(page, error.status_code)


def _root(request: Request) -> str:
    """The path at which the monitor is mounted, behind whatever path Airflow itself has."""
    return str(request.scope.get("root_path", ""))


def _airflow(request: Request) -> str:
    return _root(request).rpartition("/")[0]
