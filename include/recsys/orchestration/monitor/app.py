"""The monitor as a FastAPI application, behind Airflow's login."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from posixpath import normpath
from typing import Annotated, Final, TypeVar
from urllib.parse import quote, unquote, urlsplit

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.exception_handlers import request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from recsys.alerting import Texts
from recsys.deployment.comparison import CUSTOMERS, mean_shared, read_comparisons
from recsys.errors import InputError, UnknownError
from recsys.orchestration.mirror import tracker_id
from recsys.orchestration.monitor import (
    alerts,
    experiments,
    history,
    inspector,
    learning,
    models,
    outcomes,
    overview,
    reports,
    story,
    today,
)
from recsys.orchestration.monitor.access import (
    HEADERS,
    REPORT_POLICY,
    can_forget,
    from_this_page,
    may_act,
    may_forget,
    may_preview,
    may_watch,
)
from recsys.orchestration.monitor.assets import assets
from recsys.orchestration.monitor.audit import note
from recsys.orchestration.monitor.customers import LONGEST, ask
from recsys.orchestration.monitor.language import LANGUAGES
from recsys.orchestration.monitor.rendering import Renderer
from recsys.orchestration.monitor.rules import ask_for_preview, placements_of
from recsys.orchestration.monitor.scheduler import Scheduler, ask_airflow
from recsys.orchestration.monitor.sections import section
from recsys.orchestration.monitor.visit import LANGUAGE_COOKIE, visit_of
from recsys.registry import Registry
from recsys.settings import Settings
from recsys.tracking import PipelineTracker

PREVIEW_SECONDS: Final = 20.0
_YEAR_SECONDS: Final = 31_536_000
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_segment = partial(quote, safe="")

Found = TypeVar("Found")


def create_app(settings: Settings, ask: Callable[[], Scheduler] = ask_airflow) -> FastAPI:
    """The application for the state of `settings`, to be mounted one level below the API server."""
    app = FastAPI(title="Recsys monitor", dependencies=[Depends(may_watch)], openapi_url=None)
    renderer, tracker = Renderer(settings), overview.run_tracker(settings)

    app.middleware("http")(_add_headers)
    _add_error_pages(app, renderer)
    _add_frame(app)
    _add_models(app, settings, renderer, tracker)
    _add_measured(app, settings, renderer)
    _add_inspector(app, settings, renderer)
    _add_rules(app, settings, renderer)
    _add_customers(app, settings, renderer)
    _add_runs_and_reports(app, settings, renderer, tracker)

    @app.get("/")
    def show_today(request: Request) -> HTMLResponse:
        found = overview.gather(settings, datetime.now(UTC), tracker, ask)
        shown = {"overview": found, "tasks": today.tasks(found), "days": overview.STATS_DAYS}
        newest = today.newest_review(found.health.content)
        page = renderer.page("today.html", visit_of(request), "today", newest=newest, **shown)
        return HTMLResponse(page)

    @app.get("/time")
    def over_time(request: Request, days: int = history.SPANS[0]) -> HTMLResponse:
        visit = visit_of(request)
        if days not in history.SPANS:
            raise HTTPException(404, visit.say("problem.no_page"))
        found = history.gather_history(settings, datetime.now(UTC), days, tracker)
        shown = {"history": found._asdict(), "spans": history.SPANS, "span": days}
        return HTMLResponse(renderer.page("time.html", visit, "time", **shown))

    @app.get("/alerts")
    def show_alerts(request: Request) -> HTMLResponse:
        visit = visit_of(request)
        found = section(lambda: alerts.gather_alerts(settings, datetime.now(UTC)))
        shown = {"alerts": found, "alert_days": alerts.DAYS, "most": alerts.SHOWN}
        language = renderer.language(visit)
        words = Texts(language.code, language.zone).worded
        return HTMLResponse(renderer.page("alerts.html", visit, "alerts", words=words, **shown))

    return app


def _add_frame(app: FastAPI) -> None:
    @app.get("/static/{name}")
    def static(name: str, request: Request) -> Response:
        asset = assets().get(name)
        if asset is None:
            raise HTTPException(404, visit_of(request).say("problem.no_page"))
        kept = {"Cache-Control": f"private, max-age={_YEAR_SECONDS}, immutable"}
        return Response(asset.content, media_type=asset.media_type, headers=kept)

    @app.get("/language/{code}")
    def choose_language(code: str, request: Request, back: str = "") -> RedirectResponse:
        visit = visit_of(request)
        if code not in LANGUAGES:
            raise HTTPException(404, visit.say("problem.no_page"))
        home = f"{visit.root}/"
        # Nobody is sent to another place than one of these pages.
        path = back.startswith(home) and normpath(unquote(urlsplit(back).path))
        here = path and f"{path}/".startswith(home)
        answer = RedirectResponse(back if here else home, 303)
        answer.set_cookie(
            LANGUAGE_COOKIE, code, max_age=_YEAR_SECONDS, path=home, httponly=True, samesite="lax"
        )
        return answer


def _add_models(
    app: FastAPI, settings: Settings, renderer: Renderer, tracker: PipelineTracker
) -> None:
    @app.get("/models")
    def list_models(
        request: Request, sort: str = "created_at", order: str = "down"
    ) -> HTMLResponse:
        visit, down, now = visit_of(request), order != "up", datetime.now(UTC)
        if sort not in models.COLUMNS:
            raise HTTPException(404, visit.say("problem.no_page"))
        stints = section(lambda: models.gather_stints(settings))
        shown = {
            "rows": section(lambda: models.gather_models(settings, sort, down)),
            "stints": stints,
            "bars": models.timeline(stints.content or [], now),
            "timeline_days": models.TIMELINE_DAYS,
            **{"sort": sort, "down": down, "most": models.MOST_COMPARED},
        }
        return HTMLResponse(renderer.page("models.html", visit, "models", **shown))

    @app.get("/before")
    def before_a_deployment(request: Request, model_id: str = "") -> HTMLResponse:
        visit, found = visit_of(request), section(lambda: read_comparisons(settings))
        known = [one for one in found.content or [] if model_id in ("", one["model_id"])]
        if model_id and not known:
            raise HTTPException(404, visit.say("problem.no_page"))
        chosen = known[0] if known else None
        stay = 0.0 if chosen is None else mean_shared(chosen)
        shown = {"comparisons": found, "chosen": chosen, "stay": stay, "customers": CUSTOMERS}
        return HTMLResponse(renderer.page("before.html", visit, "before", **shown))

    @app.get("/models/compare")
    def compare(request: Request, id: Annotated[list[str] | None, Query()] = None) -> HTMLResponse:  # noqa: A002
        rows = _known(request, id or [], lambda: models.compare(settings, id or []))
        segments = [row.entry.training_info.get("segments") or {} for row in rows]
        shown = {
            "rows": rows,
            "figures": models.FIGURES,
            "segments": list(dict.fromkeys(name for one in segments for name in one)),
            "parameters": models.hyperparameters(rows),
        }
        return HTMLResponse(renderer.page("compare.html", visit_of(request), "models", **shown))

    @app.get("/models/{model_id}")
    def show_model(
        request: Request, model_id: str, sort: str = learning.SCORE, order: str = "down"
    ) -> HTMLResponse:
        down = order != "up"
        read = partial(models.gather_model, settings, model_id, tracker, sort, down)
        found = _known(request, [model_id], read)
        shown = {"found": found, "sort": sort, "down": down, "most": learning.SHOWN}
        return HTMLResponse(renderer.page("model.html", visit_of(request), "models", **shown))

    @app.post(
        "/models/{model_id}/release", dependencies=[Depends(may_act), Depends(from_this_page)]
    )
    def release(request: Request, user: GetUserDep, model_id: str) -> RedirectResponse:
        _known(request, [model_id], lambda: Registry(settings).release(model_id))
        note(settings, "release", user.get_name(), model_id=model_id)
        return RedirectResponse(f"{visit_of(request).root}/models/{_segment(model_id)}", 303)


def _add_measured(app: FastAPI, settings: Settings, renderer: Renderer) -> None:
    @app.get("/experiments")
    def list_experiments(request: Request) -> HTMLResponse:
        found = section(lambda: experiments.gather_trials(settings))
        visit = visit_of(request)
        return HTMLResponse(renderer.page("experiments.html", visit, "experiments", trials=found))

    @app.get("/experiments/{name}")
    def experiment(request: Request, name: str) -> HTMLResponse:
        trial = _known(request, [name], lambda: experiments.gather_trial(settings, name))
        shown = {
            "trial": trial,
            "lifts": experiments.lifts(trial),
            "split": experiments.split(trial),
            "intended": experiments.intended(trial),
            "metrics": experiments.METRICS,
            "page": reports.find_page(settings, "experiments", f"{name}.html"),
        }
        return HTMLResponse(
            renderer.page("experiment.html", visit_of(request), "experiments", **shown)
        )

    @app.get("/outcomes")
    def show_outcomes(request: Request, days: int = outcomes.SPANS[0]) -> HTMLResponse:
        visit = visit_of(request)
        if days not in outcomes.SPANS:
            raise HTTPException(404, visit.say("problem.no_page"))
        found = section(lambda: outcomes.gather_outcomes(settings, days))
        silent = found.content.silent if found.content else []
        language = renderer.language(visit)
        shown = {
            "found": found,
            **{"spans": outcomes.SPANS, "span": days, "slices": outcomes.SLICES},
            **{"steps": outcomes.STEPS, "rates": outcomes.RATES},
            "silent_days": ", ".join(map(language.day, silent)),
        }
        return HTMLResponse(renderer.page("outcomes.html", visit, "outcomes", **shown))


def _add_inspector(app: FastAPI, settings: Settings, renderer: Renderer) -> None:
    @app.get("/look")
    def look(request: Request, user: GetUserDep) -> HTMLResponse:
        return _show(request, user.get_name())

    @app.get("/look/customer")
    def ask_again(request: Request) -> RedirectResponse:
        """Whose page it was stands in no address."""
        return RedirectResponse(f"{visit_of(request).root}/look", 303)

    @app.post("/look/customer", dependencies=[Depends(may_preview), Depends(from_this_page)])
    def customer(
        request: Request, user: GetUserDep, user_id: Annotated[str, Form(max_length=128)]
    ) -> HTMLResponse:
        _require_right(request, settings, user.get_name())
        named = inspector.pseudonym_of(settings, user_id)
        note(settings, "look at customer", user.get_name(), customer=named)
        found = section(lambda: inspector.look_at_customer(settings, user_id))
        values = {"customer": found.content, "refused": found.problem}
        return _show(request, user.get_name(), **values)

    @app.get("/look/product")
    def product(
        request: Request, user: GetUserDep, product_id: str = "", noted: str = ""
    ) -> HTMLResponse:
        if not product_id:
            return _show(request, user.get_name())
        return _show_product(request, user.get_name(), product_id, noted=noted)

    @app.post("/look/product", dependencies=[Depends(may_act), Depends(from_this_page)])
    def steer(
        request: Request,
        user: GetUserDep,
        product_id: Annotated[str, Form(max_length=128)],
        action: Annotated[str, Form()] = "",
        position: Annotated[str, Form(max_length=5)] = "",
        until: Annotated[str, Form()] = "",
        reason: Annotated[str, Form(max_length=300)] = "",
    ) -> Response:
        asked = {"action": action, "position": position, "until": until, "reason": reason}
        name, now = user.get_name(), datetime.now(UTC)
        done = section(lambda: inspector.steer(settings, product_id, asked, name, now))
        if done.content is None:
            page = _show_product(request, name, product_id, refused=done.problem)
            page.status_code = 422
            return page
        rule = done.content.name
        note(settings, action, name, product=product_id, rule=rule, until=until)
        target = f"{visit_of(request).root}/look/product?product_id={_segment(product_id)}"
        return RedirectResponse(f"{target}&noted={_segment(rule)}", 303)

    def _show_product(
        request: Request, name: str, product_id: str, noted: str = "", refused: str | None = None
    ) -> HTMLResponse:
        now = datetime.now(UTC)
        found = section(lambda: inspector.look_at_product(settings, product_id, now))
        values = {"shown_product": found.content, "refused": refused or found.problem}
        # The name comes back in an address, in which anybody can write anything.
        rules = found.content.rules if found.content else []
        known = noted if any(noted == rule.name for rule, _ in rules) else ""
        return _show(request, name, noted=known, **values)

    def _show(request: Request, name: str, **values: object) -> HTMLResponse:
        nothing = dict.fromkeys(("customer", "shown_product", "refused", "noted"))
        known = {
            "sees_customers": inspector.may_see_customers(settings, name),
            "look_days": inspector.DAYS,
        }
        page = renderer.page("look.html", visit_of(request), "look", **(nothing | known | values))
        return HTMLResponse(page)


def _require_right(request: Request, settings: Settings, name: str) -> None:
    if not inspector.may_see_customers(settings, name):
        raise HTTPException(403, visit_of(request).say("problem.personal"))


def _known(request: Request, names: list[str], read: Callable[[], Found]) -> Found:
    """What `read` returns for these names; what it does not know is not found."""
    try:
        return read()
    except UnknownError:
        # Anybody can write anything into an address: only what looks like a name is repeated.
        if all(map(_NAME.fullmatch, names)):
            said = visit_of(request).say("problem.unknown", names=", ".join(names))
        else:
            said = visit_of(request).say("problem.no_page")
        raise HTTPException(404, said) from None
    except InputError as error:
        raise HTTPException(422, str(error)) from None


def _add_rules(app: FastAPI, settings: Settings, renderer: Renderer) -> None:
    @app.get("/rules")
    def rules(request: Request) -> HTMLResponse:
        asked = {"user_id": "", "product_id": "", "placement": ""}
        return _show(request, asked, None, None)

    @app.get("/rules/preview", dependencies=[Depends(may_preview)])
    def preview_for_strangers(
        request: Request, product_id: str = "", placement: str = ""
    ) -> Response:
        """As `preview`, without a customer, who stands in no address."""
        if "user_id" in request.query_params:
            return RedirectResponse(f"{visit_of(request).root}/rules", 303)
        asked = {"user_id": "", "product_id": product_id, "placement": placement}
        return _show(request, asked, *ask_for_preview(settings, asked, PREVIEW_SECONDS))

    @app.post("/rules/preview", dependencies=[Depends(may_preview), Depends(from_this_page)])
    def preview(
        request: Request,
        user: GetUserDep,
        user_id: Annotated[str, Form(max_length=128)] = "",
        product_id: Annotated[str, Form(max_length=128)] = "",
        placement: Annotated[str, Form(max_length=128)] = "",
    ) -> HTMLResponse:
        if user_id:
            _require_right(request, settings, user.get_name())
            named = inspector.pseudonym_of(settings, user_id)
            note(settings, "preview", user.get_name(), customer=named)
        asked = {"user_id": user_id, "product_id": product_id, "placement": placement}
        return _show(request, asked, *ask_for_preview(settings, asked, PREVIEW_SECONDS))

    def _show(
        request: Request, asked: dict[str, str], shown: object, refused: str | None
    ) -> HTMLResponse:
        found, places = overview.rules_section(settings, datetime.now(UTC)), placements_of(settings)
        values = {"rules": found, "placements": places, "asked": asked, "shown": shown}
        page = renderer.page("rules.html", visit_of(request), "rules", refused=refused, **values)
        return HTMLResponse(page)


def _add_customers(app: FastAPI, settings: Settings, renderer: Renderer) -> None:
    @app.get("/customers")
    def customers(request: Request, may_ask: Annotated[bool, Depends(can_forget)]) -> HTMLResponse:
        return _show(request, "", [], None, may_ask=may_ask)

    @app.post("/customers", dependencies=[Depends(may_forget), Depends(from_this_page)])
    def forget(
        request: Request,
        user: GetUserDep,
        ids: Annotated[str, Form(max_length=LONGEST)] = "",
        sure: Annotated[str, Form(max_length=10)] = "",
    ) -> HTMLResponse:
        not_sure = list[int](), visit_of(request).say("customers.not_sure")
        opened, refused = ask(settings, ids, user.get_name()) if sure else not_sure
        return _show(request, "" if opened else ids, opened, refused)

    def _show(
        request: Request,
        given: str,
        opened: list[int],
        refused: str | None,
        *,
        may_ask: bool = True,
    ) -> HTMLResponse:
        found = overview.requests_section(settings, datetime.now(UTC))
        answer = {"given": given, "opened": opened, "refused": refused, "longest": LONGEST}
        answer["may_ask"] = may_ask
        page = renderer.page(
            "customers.html", visit_of(request), "customers", requests=found, **answer
        )
        return HTMLResponse(page, 422 if refused else 200)


def _add_runs_and_reports(
    app: FastAPI, settings: Settings, renderer: Renderer, tracker: PipelineTracker
) -> None:
    @app.get("/runs/{job}/{run_id:path}")
    def run(request: Request, job: str, run_id: str) -> HTMLResponse:
        visit = visit_of(request)
        found = tracker.get_run(tracker_id(job, run_id)) if tracker.db_path.exists() else None
        if found is None:
            raise HTTPException(404, visit.say("problem.no_run", run=run_id, job=job))
        path = f"{visit.airflow}/dags/{_segment(job)}/runs/{_segment(run_id)}"
        summary = overview.summary_of(found)
        told = story.tell(settings, found, summary, renderer.language(visit))
        shown = {"run": found, "story": told, "airflow_path": path}
        pages = reports.pages_of_run(settings, summary)
        return HTMLResponse(renderer.page("run.html", visit, None, pages=pages, **shown))

    @app.get("/reports")
    def list_reports(request: Request) -> HTMLResponse:
        shown = {**reports.gather_reports(settings)._asdict(), "weekly": reports.WEEKLY}
        return HTMLResponse(renderer.page("reports.html", visit_of(request), "reports", **shown))

    @app.get("/reports/{kind}/{name}")
    def report(request: Request, kind: str, name: str) -> HTMLResponse:
        visit = visit_of(request)
        page = reports.find_page(settings, kind, name)
        if page is None:
            raise HTTPException(404, visit.say("problem.no_report", kind=kind, name=name))
        try:
            content = page.path.read_bytes()
        except FileNotFoundError:
            raise HTTPException(404, visit.say("problem.report_gone", name=name)) from None
        return HTMLResponse(content, headers={"Content-Security-Policy": REPORT_POLICY})


async def _add_headers(
    request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await answer(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _add_error_pages(app: FastAPI, renderer: Renderer) -> None:
    @app.exception_handler(RequestValidationError)
    async def explain_request(request: Request, error: RequestValidationError) -> Response:
        if not _is_page(request):
            return await request_validation_exception_handler(request, error)
        said = {"status": 422, "sentence": visit_of(request).say("problem.unclear")}
        return HTMLResponse(renderer.page("problem.html", visit_of(request), None, **said), 422)

    @app.exception_handler(StarletteHTTPException)
    async def explain(request: Request, error: StarletteHTTPException) -> Response:
        if not _is_page(request):
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        visit = visit_of(request)
        if error.status_code == 401:
            login = f"{visit.airflow}/api/v2/auth/login?next={_segment(visit.path)}"
            return RedirectResponse(login, 303)
        # What a framework says by itself, such as "Not Found", the title says better.
        ours = str(error.detail) not in (HTTPStatus(error.status_code).phrase, "Forbidden")
        said = {"status": error.status_code, "sentence": str(error.detail) if ours else None}
        return HTMLResponse(renderer.page("problem.html", visit, None, **said), error.status_code)


def _is_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")
