"""Another version comes into service while customers ask, and goes back if it is not well."""

import base64
from concurrent.futures import ThreadPoolExecutor

import requests

from recsys.orchestration.client import ENDED
from tests.containers.engine import wait_for
from tests.containers.stack import ALL, VERSION, WELL_SECONDS, Containers, row

GOOD, BROKEN, MIGRATED = "good", "broken", "migrated"
MEANWHILE = "health_check"
REPLACED = {
    "RECSYS_VERSION",
    "RECSYS_AIRFLOW_PASSWORD",
    "POSTGRES_PASSWORD",
    "VALKEY_PASSWORD",
    "RECSYS_ADMIN_TOKEN",
    "AIRFLOW_JWT_SECRET",
    "AIRFLOW_SECRET_KEY",
}
MIGRATE = """
from sqlalchemy import create_engine, text
with create_engine(os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).begin() as database:
    database.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    database.execute(text("CREATE TABLE newer (id int)"))
"""


def test_a_version_with_new_secrets_comes_into_service_and_nobody_notices(serving: Containers):
    _mark(serving, GOOD)
    before = serving.variables
    with row(serving, "another version, with new secrets") as load, ThreadPoolExecutor() as aside:
        asked = aside.submit(_ask_while_nobody_works, serving)
        done = serving.script("deploy.py", GOOD, "--rotate")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    print(done.stdout)
    assert load.answers.total() > 500
    assert load.failed == 0, load.answers
    assert load.lost == []
    assert _versions(serving) == {GOOD}
    assert _is_private(serving)
    after = serving.variables
    assert after["RECSYS_VERSION"] == GOOD
    assert {name for name, value in after.items() if before[name] != value} == REPLACED
    # The old ones open nothing any more, the jobs work with the new ones.
    login = {"username": "admin", "password": before["RECSYS_AIRFLOW_PASSWORD"]}
    url = f"http://127.0.0.1:{serving.ports['AIRFLOW_PORT']}/auth/token"
    assert requests.post(url, json=login, timeout=10).status_code == 401
    login["password"] = after["RECSYS_AIRFLOW_PASSWORD"]
    assert requests.post(url, json=login, timeout=10).ok
    serving.recsys("model-deployment")
    # What was asked for meanwhile is done at the first try.
    client, run = serving.client, asked.result()
    wait_for(lambda: client.run(MEANWHILE, run)["state"] in ENDED, 300, "the run asked for ends")
    tries = {one["try_number"] for one in client.task_instances(MEANWHILE, run)}
    assert (client.run(MEANWHILE, run)["state"], tries) == ("success", {1})


def _ask_while_nobody_works(containers: Containers) -> str:
    """The run of `MEANWHILE` that is asked for when the workers have ended their tasks."""

    def stopped() -> bool:
        return not any(one["State"]["Running"] for one in containers.containers("worker"))

    client = containers.client
    wait_for(stopped, 120, "the workers end their tasks")
    return client.trigger(MEANWHILE)


def test_a_service_that_is_not_well_goes_back_by_itself_and_nobody_notices(serving: Containers):
    _mark(serving, BROKEN, service="RUN echo 'raise SystemExit(3)' >/app/serving/__main__.py")
    worker = {one["Id"] for one in serving.containers("api-server", "scheduler")}
    done = _goes_back(serving, BROKEN, "another version whose service does not start")
    assert "service-1 ends again and again" in done or "service-1 is unhealthy" in done
    assert {one["Id"] for one in serving.containers("api-server", "scheduler")} == worker


def test_an_airflow_that_is_not_well_goes_back_with_its_database(serving: Containers):
    """It migrates, and then does not start."""
    script = base64.b64encode(MIGRATE.encode()).decode()
    migrate = f"RUN echo {script} | base64 -d >>/app/docker/initialise.py"
    refuse = "RUN printf '#!/bin/sh\\nexit 3\\n' >/venv/bin/airflow"
    _mark(serving, MIGRATED, airflow=f"{migrate}\n{refuse}")
    schema = _sql(serving, "SELECT version_num FROM alembic_version")
    runs = _sql(serving, "SELECT count(*) FROM dag_run")
    done = _goes_back(
        serving, MIGRATED, "another version that migrates the database, and does not start"
    )
    assert "api-server ends again and again" in done
    assert "database: go back" in done
    assert _sql(serving, "SELECT version_num FROM alembic_version") == schema
    assert int(_sql(serving, "SELECT count(*) FROM dag_run")) >= int(runs)
    assert _sql(serving, "SELECT to_regclass('newer')").strip() == ""


def test_a_version_that_is_not_here_is_refused_before_anything_stops(serving: Containers):
    started = {one["Name"]: one["State"]["StartedAt"] for one in serving.containers()}
    done = serving.script("deploy.py", "nowhere")
    assert done.returncode == 1
    assert "recsys-airflow:nowhere is not here; build or pull it first" in done.stderr
    assert {one["Name"]: one["State"]["StartedAt"] for one in serving.containers()} == started


def _goes_back(containers: Containers, version: str, what: str) -> str:
    """What the script prints when it brings a version that is not well."""
    before = containers.variables
    with row(containers, what) as load:
        done = containers.script("deploy.py", version)
        assert done.returncode == 1, f"{done.stdout}{done.stderr}"
        containers.wait_until_well(WELL_SECONDS, *ALL)
    print(done.stdout)
    assert load.failed == 0, load.answers
    assert load.lost == []
    assert containers.variables == before
    assert _versions(containers) == {before["RECSYS_VERSION"]}
    return done.stdout


def _mark(containers: Containers, version: str, **changes: str) -> None:
    """Images of another version: the same, with another label, and `changes` by kind."""
    for kind in ("airflow", "service"):
        change = f"USER root\n{changes[kind]}\nUSER recsys\n" if kind in changes else ""
        text = f"FROM recsys-{kind}:{VERSION}\nLABEL version={version}\n{change}"
        name = f"recsys-{kind}:{version}"
        containers.engine.docker("build", "--tag", name, "-", input=text.encode())


def _sql(containers: Containers, statement: str) -> str:
    psql = ("psql", "-U", "airflow", "-d", "airflow", "-tAc", statement)
    return containers.compose("exec", "-T", "postgres", *psql)


def _versions(containers: Containers) -> set[str]:
    running = [one for one in containers.containers() if one["State"]["Running"]]
    images = (one["Config"]["Image"] for one in running)
    return {image.rpartition(":")[2] for image in images if image.startswith("recsys-")}


def _is_private(containers: Containers) -> bool:
    names = ("cluster.env", "cluster.dump")
    return all(
        (containers.checkout / "docker" / name).stat().st_mode & 0o077 == 0 for name in names
    )
