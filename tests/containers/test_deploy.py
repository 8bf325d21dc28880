"""Another version comes into service while customers ask, and goes back if it is not well."""

import requests

from tests.containers.stack import VERSION, Containers, Load

GOOD, BROKEN = "good", "broken"


def test_a_good_version_comes_into_service_and_nobody_notices(serving: Containers):
    _mark(serving, GOOD)
    before = serving.variables
    with Load(serving) as load:
        done = serving.script("deploy.py", GOOD)
    print(f"{done.stdout}{load.answers}")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert load.answers.total() > 1000
    assert load.failed == 0, load.answers
    assert serving.variables == before | {"RECSYS_VERSION": GOOD}
    assert _versions(serving) == {GOOD}
    assert _is_private(serving)


def test_a_version_that_is_not_well_goes_back_by_itself_and_nobody_notices(serving: Containers):
    _mark(serving, BROKEN, "RUN echo 'raise SystemExit(3)' >/app/serving/app.py")
    before = serving.variables
    with Load(serving) as load:
        done = serving.script("deploy.py", BROKEN)
    print(f"{done.stdout}{load.answers}")
    assert done.returncode == 1, f"{done.stdout}{done.stderr}"
    assert load.failed == 0, load.answers
    assert serving.variables == before
    assert _versions(serving) == {before["RECSYS_VERSION"]}
    assert "service-1 ends again and again" in done.stdout or "unhealthy" in done.stdout
    serving.wait_until_well(120, "service-1", "service-2", "api-server", "scheduler", "worker")


def test_a_version_that_is_not_here_is_refused_before_anything_stops(serving: Containers):
    started = {one["Name"]: one["State"]["StartedAt"] for one in serving.containers()}
    done = serving.script("deploy.py", "nowhere")
    assert done.returncode == 1
    assert "recsys-airflow:nowhere is not here; build or pull it first" in done.stderr
    assert {one["Name"]: one["State"]["StartedAt"] for one in serving.containers()} == started


def test_all_secrets_are_replaced_and_nobody_notices(serving: Containers):
    before = serving.variables
    with Load(serving) as load:
        done = serving.script("deploy.py", "--rotate")
    print(f"{done.stdout}{load.answers}")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert load.failed == 0, load.answers
    changed = {name for name, value in serving.variables.items() if before[name] != value}
    assert {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "RECSYS_ADMIN_TOKEN"} < changed
    # The old ones open nothing any more, the jobs work with the new ones.
    login = {"username": "admin", "password": before["RECSYS_AIRFLOW_PASSWORD"]}
    url = f"http://127.0.0.1:{serving.ports['AIRFLOW_PORT']}/auth/token"
    assert requests.post(url, json=login, timeout=10).status_code == 401
    login["password"] = serving.variables["RECSYS_AIRFLOW_PASSWORD"]
    assert requests.post(url, json=login, timeout=10).ok
    serving.recsys("model-deployment")


def _mark(containers: Containers, version: str, *lines: str) -> None:
    """Images of another version: the same, with another label, and what `lines` do to them."""
    for kind in ("airflow", "service"):
        base = f"FROM recsys-{kind}:{VERSION}\nLABEL version={version}\n"
        change = "".join(f"USER root\n{line}\nUSER recsys\n" for line in lines)
        text = base + (change if kind == "service" else "")
        name = f"recsys-{kind}:{version}"
        containers.engine.docker("build", "--tag", name, "-", input=text.encode())


def _versions(containers: Containers) -> set[str]:
    running = [one for one in containers.containers() if one["State"]["Running"]]
    images = (one["Config"]["Image"] for one in running)
    return {image.rpartition(":")[2] for image in images if image.startswith("recsys-")}


def _is_private(containers: Containers) -> bool:
    names = ("cluster.env", "cluster.dump")
    return all(
        (containers.checkout / "docker" / name).stat().st_mode & 0o077 == 0 for name in names
    )
