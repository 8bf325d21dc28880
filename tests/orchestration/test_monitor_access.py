"""Who may see the monitor, in the real API server with the real plugin."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from recsys.orchestration.environment import (
    airflow_home,
    ensure_env,
    stack_environment,
    write_passwords,
)
from recsys.orchestration.mirror import tracker_id
from recsys.privacy import Kind, Register
from recsys.publishing import write_json
from recsys.settings import Settings
from recsys.tracking import PipelineTracker, RunRecord, RunStatus
from tests.live_stack import make_home

pytestmark = [pytest.mark.boots, pytest.mark.timeout(300)]

START_SECONDS = 120
HTML = {"Accept": "text/html"}
JOB, RUN = "drift_detection", "manual__2026-01-05T02:00:00.5+00:00"
SECRET = "for nobody"
VIEWER = "eve"
REPORT = "drift_report_20260105.html"

STRUCTURE = """
import json
from pathlib import Path
from airflow.api_fastapi.core_api.security import get_user
from fastapi.routing import APIRoute
from recsys.orchestration.monitor.app import create_app
from recsys.settings import Settings
from starlette.routing import Route

def called(dependant):
    yield dependant.call
    for dependency in dependant.dependencies:
        yield from called(dependency)

def unguarded(app):
    return [
        route.path
        for route in app.routes
        if not isinstance(route, APIRoute) or get_user not in called(route.dependant)
    ]

app = create_app(Settings(Path("nowhere")))
found = {"routes": [route.path for route in app.routes], "unguarded": unguarded(app)}
app.router.routes.append(Route("/open", lambda request: None))
print(json.dumps({**found, "with_an_open_route": unguarded(app)}))
"""

LOADED = """
import json, sys
import airflow.plugins_manager as manager
before = set(sys.modules)
views, _ = manager.get_fastapi_plugins()
names = [app["name"] for app in views]
heavy = ("fastapi", "jinja2", "requests", "numpy", "pandas", "airflow.api_fastapi")
new = set(sys.modules) - before
print(json.dumps({"names": names, "heavy": [name for name in heavy if name in new]}))
"""


BEHIND_A_PROXY = """
import json, os
os.environ["AIRFLOW__API__BASE_URL"] = "https://shop.example/airflow"
import airflow.plugins_manager as manager
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI
from fastapi.testclient import TestClient
from recsys.orchestration.monitor.app import create_app, may_watch
from recsys.settings import load_settings

views, _ = manager._get_ui_plugins()
monitor = create_app(load_settings(), set)
monitor.dependency_overrides[may_watch] = lambda: None
airflow = FastAPI(root_path="/airflow")
airflow.mount("/recsys", monitor)
page = TestClient(airflow).get("/airflow/recsys/").text
monitor.dependency_overrides.clear()
html = {"Accept": "text/html"}
answer = TestClient(airflow).get("/airflow/recsys/", headers=html, follow_redirects=False)
print(json.dumps({
    "hrefs": [view["href"] for view in views],
    "links": [part.split('"')[0] for part in page.split('href="')[1:]],
    "login": answer.headers["Location"],
}))
"""


@dataclass(frozen=True)
class ApiServer:
    """A running API server, its state root and its environment."""

    url: str
    settings: Settings
    env: dict[str, str]

    def token(self, viewer: bool = False) -> str:
        user, password = self.env["RECSYS_AIRFLOW_USER"], self.env["RECSYS_AIRFLOW_PASSWORD"]
        user, password = (VIEWER, VIEWER) if viewer else (user, password)
        answer = requests.post(
            f"{self.url}/auth/token", json={"username": user, "password": password}, timeout=30
        )
        return str(answer.json()["access_token"])

    def get(self, path: str, **options) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=30, allow_redirects=False, **options)

    def run_python(self, code: str) -> dict:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path) -> Iterator[ApiServer]:
    settings = make_home(tmp_path_factory.mktemp("monitor") / "home").settings
    ensure_env(settings)
    airflow_home(settings).mkdir()
    write_passwords(settings)
    fill(settings)
    env = stack_environment(settings) | {"RECSYS_HOME": str(settings.home)}
    env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] += f",{VIEWER}:viewer"
    passwords = Path(env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    write_json(passwords, json.loads(passwords.read_text()) | {VIEWER: VIEWER})
    airflow = [sys.executable, "-m", "airflow"]
    shutil.copy(airflow_database, airflow_home(settings))
    with (settings.home / "api-server.log").open("wb") as log:
        process = subprocess.Popen(
            [*airflow, "api-server", "--apps", "core"], env=env, stdout=log, stderr=log
        )
    try:
        running = ApiServer(env["RECSYS_AIRFLOW_URL"], settings, env)
        wait_until_it_answers(running, process)
        yield running
    finally:
        process.terminate()
        process.wait(30)


def wait_until_it_answers(server: ApiServer, process: subprocess.Popen[bytes]) -> None:
    deadline = datetime.now(UTC).timestamp() + START_SECONDS
    while datetime.now(UTC).timestamp() < deadline and process.poll() is None:
        try:
            if server.get("/api/v2/monitor/health").ok:
                return
        except requests.ConnectionError:
            pass
    pytest.fail((server.settings.home / "api-server.log").read_text()[-2000:])


def fill(settings: Settings) -> None:
    """One run with a report, and a file outside of the reports."""
    now = datetime.now(UTC)
    summary = {"detect": {"page": f"reports/drift/{REPORT}", "overall_severity": "low"}}
    PipelineTracker(settings.pipeline_db).record_run(
        RunRecord(
            tracker_id(JOB, RUN),
            JOB,
            RunStatus.SUCCESS,
            now,
            now,
            None,
            {"airflow_run_id": RUN, "summary": summary},
        )
    )
    folder = settings.reports / "drift"
    folder.mkdir(parents=True)
    (folder / REPORT).write_text("<h1>Tuần yên ổn</h1>", encoding="utf-8")
    (settings.reports / "secret.html").write_text(SECRET)


def test_every_route_depends_on_airflows_user(server):
    found = server.run_python(STRUCTURE)
    assert len(found["routes"]) == 26
    assert found["unguarded"] == []
    assert found["with_an_open_route"] == ["/open"]


def test_loading_the_plugin_imports_nothing_heavy(server):
    found = server.run_python(LOADED)
    assert "Recsys monitor" in found["names"]
    assert found["heavy"] == []


PATHS = (
    "/recsys/",
    f"/recsys/runs/{JOB}/{quote(RUN, safe='')}",
    f"/recsys/reports/drift/{REPORT}",
    "/recsys/reports/drift/absent.html",
    "/recsys/rules",
    "/recsys/rules/preview?placement=home",
    "/recsys/customers",
    "/recsys/reports",
    "/recsys/alerts",
    "/recsys/time",
    "/recsys/models",
    "/recsys/models/compare",
    "/recsys/models/als_1",
    "/recsys/before",
    "/recsys/outcomes",
    "/recsys/experiments",
    "/recsys/experiments/blend",
    "/recsys/look",
    "/recsys/look/customer",
    "/recsys/look/product?product_id=p1",
    "/recsys/static/monitor.css",
    "/recsys/language/en",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer forged"}], ids=["no", "forged"])
def test_nothing_is_told_without_a_login(server, path, headers):
    answer = server.get(path, headers=headers)
    assert answer.status_code in (401, 403)
    assert answer.json().keys() == {"detail"}
    assert "drift" not in answer.text


@pytest.mark.parametrize("path", PATHS[:3])
def test_a_browser_is_sent_to_the_login_and_back(server, path):
    answer = server.get(path, headers=HTML)
    assert answer.status_code == 303
    to_login = server.get(answer.headers["Location"])
    assert to_login.status_code == 307
    assert "/auth/login" in to_login.headers["Location"]
    assert to_login.headers["Location"].endswith(f"next={quote(path, safe='')}")


def test_who_is_logged_in_sees_the_pages(server):
    login = {**HTML, "Authorization": f"Bearer {server.token()}"}
    page = server.get("/recsys/", headers=login)
    assert page.status_code == 200
    assert f"/recsys/runs/{JOB}/{quote(RUN, safe='')}" in page.text
    run = server.get(PATHS[1], headers=login)
    assert run.status_code == 200
    assert f"/dags/{JOB}/runs/{quote(RUN, safe='')}" in run.text
    report = server.get(PATHS[2], headers=login)
    assert "Tuần yên ổn" in report.text
    for answer in (page, run, report):
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'unsafe" not in policy
        assert "https:" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
    assert "style-src 'self'" in page.headers["Content-Security-Policy"]
    assert "sandbox" in report.headers["Content-Security-Policy"]
    assert "script-src" not in report.headers["Content-Security-Policy"]
    for name in ("monitor.css", "monitor.js", "theme.js", "uPlot.js"):
        asset = server.get(f"/recsys/static/{name}", headers=login)
        assert asset.ok, name
        assert "immutable" in asset.headers["Cache-Control"]
    for name in ("uPlot.LICENSE", "..%2Fapp.py", "absent.js"):
        assert server.get(f"/recsys/static/{name}", headers=login).status_code == 404


def test_a_preview_is_for_operators_and_the_rules_for_everybody(server):
    for viewer in (True, False):
        login = {**HTML, "Authorization": f"Bearer {server.token(viewer)}"}
        rules = server.get("/recsys/rules", headers=login)
        assert rules.status_code == 200
        assert "form-action 'self'" in rules.headers["Content-Security-Policy"]
        preview = requests.post(
            f"{server.url}/recsys/rules/preview",
            data={"user_id": "1", "placement": "home"}, headers=login, timeout=30,
        )  # fmt: skip
        assert preview.status_code == (403 if viewer else 200)
        # No service runs here.
        assert ("Không xem trước được" in preview.text) is not viewer


def test_a_customer_is_forgotten_by_who_may_and_on_purpose(server):
    def post(viewer: bool = False, origin: str = "", site: str = "", **form: str):
        headers = {**HTML, "Authorization": f"Bearer {server.token(viewer)}"}
        headers |= {"Origin": origin} if origin else {}
        headers |= {"Sec-Fetch-Site": site} if site else {}
        return requests.post(
            f"{server.url}/recsys/customers", data=form, headers=headers, timeout=30
        )

    viewer = {**HTML, "Authorization": f"Bearer {server.token(viewer=True)}"}
    seen = server.get("/recsys/customers", headers=viewer)
    assert seen.status_code == 200
    assert "<form" not in seen.text
    given = {"ids": "KH01\n 443.0 \n\nKH01", "sure": "yes"}
    assert post(viewer=True, **given).status_code == 403
    assert post(origin="https://elsewhere.example", **given).status_code == 403
    for site in ("cross-site", "same-site"):
        assert post(site=site, origin=server.url, **given).status_code == 403
    unsure = post(ids="KH01")
    assert unsure.status_code == 422
    assert ">KH01</textarea>" in unsure.text
    for ids in ("guest", "", "KH01\nundefined", "\n".join(map(str, range(1000, 1600)))):
        assert post(ids=ids, sure="yes").status_code == 422, ids
    register = Register(server.settings)
    assert register.requests() == []
    asked = post(origin=server.url, site="same-origin", **given)
    assert asked.status_code == 200, asked.text
    assert "form-action 'self'" in asked.headers["Content-Security-Policy"]
    assert "1, 2" in asked.text
    assert "KH01" not in asked.text
    requested = register.requests()
    assert [one.kind for one in requested] == [Kind.FORGET] * 2
    assert {one.asked_by for one in requested} == {server.env["RECSYS_AIRFLOW_USER"]}
    assert [one.number for one in register.requests("443")] == [2]
    audit = (server.settings.logs / "customer_audit.log").read_text("utf-8")
    assert audit.count("asked to forget") == 2
    assert f"by={server.env['RECSYS_AIRFLOW_USER']}" in audit
    assert "KH01" not in audit
    post(**given)
    assert len(register.requests()) == 2
    operator = {**HTML, "Authorization": f"Bearer {server.token()}"}
    for headers, sees in ((operator, True), (viewer, False)):
        page = server.get("/recsys/customers", headers=headers).text
        assert (requested[0].pseudonym[:9] in page) is sees


@pytest.mark.parametrize(
    "path",
    [
        "/recsys/reports/drift/..%2Fsecret.html",
        "/recsys/reports/drift/%2e%2e%2fsecret.html",
        "/recsys/reports/../secret.html",
        "/recsys/reports/%2e%2e/.env",
        "/recsys/reports/health/latest.json",
        "/recsys/reports/drift/drift_report_*.html",
        "/recsys/reports/drift/%00",
        "/recsys/runs/no_such_job/x",
        f"/recsys/runs/{JOB}/' OR 1=1 --",
        "/recsys/runs/../../.env",
    ],
)
def test_no_path_leads_out_of_the_listed_reports(server, path):
    login = {**HTML, "Authorization": f"Bearer {server.token()}"}
    request = requests.Request("GET", server.url, headers=login).prepare()
    request.url = server.url + path  # as it stands: requests would tidy the dots away
    with requests.Session() as session:
        answer = session.send(request, timeout=30, allow_redirects=False)
    # Airflow's own page answers for what is not below /recsys.
    assert answer.status_code in (400, 404) or '<div id="root">' in answer.text
    assert SECRET not in answer.text
    assert "PASSWORD" not in answer.text


def test_the_navigation_and_every_run_lead_to_the_monitor(server):
    login = {"Authorization": f"Bearer {server.token()}"}
    plugins = server.get("/api/v2/plugins", headers=login).json()["plugins"]
    views = next(one for one in plugins if one["name"] == "recsys_monitor")["external_views"]
    assert {view["destination"]: view["href"] for view in views} == {
        "nav": "/recsys/",
        "dag_run": "/recsys/runs/{DAG_ID}/{RUN_ID}",
    }


def test_every_link_keeps_the_path_that_airflow_lives_below(server):
    found = server.run_python(BEHIND_A_PROXY)
    assert found["hrefs"][0] == "/airflow/recsys/"
    assert found["links"]
    outer = [link for link in found["links"] if not link.startswith(("#", "data:"))]
    assert all(link.startswith("/airflow/recsys/") for link in outer)
    assert found["login"] == "/airflow/api/v2/auth/login?next=%2Fairflow%2Frecsys%2F"


def test_a_viewer_releases_no_model(server):
    for viewer, status in ((True, 403), (False, 404)):  # no model of that name
        login = {**HTML, "Authorization": f"Bearer {server.token(viewer)}"}
        answer = requests.post(
            f"{server.url}/recsys/models/als_1/release", headers=login, timeout=30
        )
        assert answer.status_code == status
    foreign = {**login, "Sec-Fetch-Site": "cross-site"}
    answer = requests.post(f"{server.url}/recsys/models/als_1/release", headers=foreign, timeout=30)
    assert answer.status_code == 403


def test_customers_are_for_whom_the_shop_names_and_products_for_everybody(server):
    privacy = server.settings.home / "config" / "privacy.yaml"
    privacy.parent.mkdir(exist_ok=True)
    url = f"{server.url}/recsys/look"

    def look(viewer: bool = False) -> int:
        login = {**HTML, "Authorization": f"Bearer {server.token(viewer)}"}
        answer = requests.post(f"{url}/customer", data={"user_id": "2"}, headers=login, timeout=30)
        return answer.status_code

    assert (look(viewer=True), look()) == (403, 200)
    # Not even by an operator, and not by a viewer who is named.
    privacy.write_text(f"see_customers: [{VIEWER}]\n")
    assert (look(viewer=True), look()) == (403, 403)
    operator = {**HTML, "Authorization": f"Bearer {server.token()}"}
    preview = f"{server.url}/recsys/rules/preview"

    def ask(**other: str) -> int:
        data = {"placement": "home", "user_id": "2"}
        return requests.post(preview, data=data, headers=operator | other, timeout=30).status_code

    assert ask() == 403
    page = server.get("/recsys/rules/preview?placement=home", headers=operator)
    assert page.status_code == 200
    # In an address a customer would stand in everybody's logs.
    asked_so = {"headers": operator, "allow_redirects": False, "timeout": 30}
    assert requests.get(f"{preview}?user_id=2", **asked_so).status_code == 303
    privacy.unlink()
    assert (ask(), ask(**{"Sec-Fetch-Site": "cross-site"})) == (200, 403)
    viewer = {**HTML, "Authorization": f"Bearer {server.token(viewer=True)}"}
    asked = {"product_id": "p1", "action": "hide", "until": "2999-01-01", "reason": "x"}
    for headers, status in ((viewer, 403), ({**operator, "Sec-Fetch-Site": "cross-site"}, 403)):
        answer = requests.post(f"{url}/product", data=asked, headers=headers, timeout=30)
        assert answer.status_code == status
    assert server.get("/recsys/look/product?product_id=p1", headers=viewer).status_code == 200
    assert not (server.settings.home / "config" / "rules.yaml").exists()
