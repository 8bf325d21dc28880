"""What can be said of the containers without an engine: schema, secrets, ports, pins, mounts.

They are built and started in tests/containers."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from compose_spec import PyCompose

from recsys.exporter.server import PORT, STATSD_PORT
from recsys.orchestration.environment import VARIABLES
from recsys.settings import REPOSITORY
from tests.ports import find_free_port

DOCKER = REPOSITORY / "docker"
COMPOSE = REPOSITORY / "docker-compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|KEY|WEBHOOK")
OPTIONAL = ("ALERT_EMAIL_PASSWORD", "HEARTBEAT_URL", "SLACK_WEBHOOK_URL")
MONITORING = ("exporter", "prometheus", "alertmanager", "grafana")
OURS = ("initialise", "api-server", "scheduler", "dag-processor", "triggerer", "worker")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return dict(compose["services"])


def values(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for value in content.values():
            yield from values(value)
    elif isinstance(content, list):
        for value in content:
            yield from values(value)
    elif isinstance(content, str):
        yield content


def documented() -> dict[str, str]:
    lines = (DOCKER / "cluster.env.example").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return dict(pairs)


def interpolated(content: Any) -> Any:
    """`content` with its defaults, and a text for each variable without one."""
    text = json.dumps(content)
    return json.loads(VARIABLE.sub(lambda m: m[3] if m[2] == "-" and m[3] else "text", text))


def parse(content: Any) -> PyCompose:
    """Parsed as the compose specification says; raises `ValueError` that names what is wrong."""
    parsed = PyCompose.from_json(json.dumps(interpolated(content)))
    parsed.validate()
    return parsed


def test_the_file_follows_the_compose_specification(compose, services):
    assert set(parse(compose).service_names()) == set(services)


@pytest.mark.parametrize(
    ("key", "value"),
    [("portz", ["80:80"]), ("stop_grace_period", "soon"), ("networks", ["elsewhere"])],
)
def test_the_parser_notices_what_is_wrong(compose, key, value):
    broken = json.loads(json.dumps(compose))
    broken["services"]["worker"][key] = value
    with pytest.raises(ValueError, match=r"portz|duration|elsewhere"):
        parse(broken)


def test_everything_that_the_production_shape_needs_is_there(services):
    others = {"postgres", "valkey", "service-1", "service-2", "proxy", "mail"}
    assert set(services) == {*OURS, *MONITORING, *others}
    assert services["worker"]["deploy"]["replicas"] == 2
    profiles = {name: one["profiles"] for name, one in services.items() if "profiles" in one}
    assert profiles == {"mail": ["dev"], **{key: ["monitoring"] for key in MONITORING}}


def test_images_are_pinned_to_a_version(services):
    for name, service in services.items():
        if service["image"].startswith("${RECSYS_IMAGE"):
            assert service["image"].endswith(":${RECSYS_VERSION:-local}")
            continue
        tag = service["image"].rsplit(":", 1)[-1]
        assert re.match(r"v?\d+\.\d+", tag), (name, tag)
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+$", dockerfile, re.M)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.M)) == {"${PYTHON_IMAGE}", "base"}
    assert len(re.findall(r"^USER recsys$", dockerfile, re.M)) == 2
    assert "HEALTHCHECK" in dockerfile


def test_each_container_has_the_image_for_what_it_does(services):
    for name in (*OURS, "service-1", "service-2"):
        kind = "service" if name.startswith("service") else "airflow"
        assert services[name]["image"].startswith(f"${{RECSYS_IMAGE:-recsys}}-{kind}:")
    assert services["initialise"]["build"]["target"] == "airflow"
    assert services["service-1"]["build"]["target"] == "service"


def test_only_pages_for_people_and_the_api_are_published_and_on_loopback_alone(services):
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"api-server", "proxy", "mail", "prometheus", "grafana"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not any(service.get("network_mode") == "host" for service in services.values())


def test_what_watches_asks_what_there_is(services):
    folder = REPOSITORY / "monitoring"
    asked = yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {one["job_name"]: one["static_configs"][0]["targets"] for one in asked["scrape_configs"]}
    assert jobs == {
        "service": [f"{name}:8000" for name in services if name.startswith("service-")],
        "exporter": [f"exporter:{PORT}"],
    }
    environment = services["scheduler"]["environment"]
    assert environment["AIRFLOW__METRICS__STATSD_HOST"] == "exporter"
    assert environment["AIRFLOW__METRICS__STATSD_PORT"] == str(STATSD_PORT)
    # It reads the same bucket as the others; nobody outside reaches it.
    exporter = services["exporter"]
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= exporter["environment"].keys()
    assert exporter["networks"] == services["scheduler"]["networks"]
    assert "ports" not in exporter
    source = yaml.safe_load((folder / "grafana" / "datasource.yml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["url"] == "http://prometheus:9090"


def test_database_and_broker_have_no_way_out(compose, services):
    assert compose["networks"]["inside"] == {"internal": True}
    for name in ("postgres", "valkey"):
        assert services[name]["networks"] == ["inside"]


def test_no_secret_has_a_default_and_none_is_written_down(services):
    for text in values(services):
        for name, operator, default in VARIABLE.findall(text):
            if SECRET.search(name):
                assert (operator, default) == ("-", "") if name in OPTIONAL else operator == "?", (
                    name
                )
    for service in services.values():
        for name, value in (service.get("environment") or {}).items():
            if SECRET.search(name) and not name.endswith("_FILE") and value is not None:
                assert VARIABLE.fullmatch(value), f"{name} is written into docker-compose.yaml"
    assert not [n for n, value in documented().items() if SECRET.search(n) and value]


def test_every_variable_is_documented_and_every_documented_one_is_used():
    used = {name for name, _, _ in VARIABLE.findall(COMPOSE.read_text(encoding="utf-8"))}
    assert used == set(documented())
    # Passed on as they are, if they are set.
    example = (DOCKER / "cluster.env.example").read_text(encoding="utf-8")
    for name in re.findall(r"^  ([A-Z_]+):$", COMPOSE.read_text(encoding="utf-8"), re.M):
        assert f"# {name}=\n" in example


def test_the_script_fills_in_every_required_secret_and_keeps_what_is_there(tmp_path):
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder, ignore=shutil.ignore_patterns("cluster.env"))

    def write() -> dict[str, str]:
        subprocess.run([sys.executable, str(folder / "write_env.py")], check=True)
        lines = (folder / "cluster.env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if line and line[0] != "#")

    first = write()
    assert (folder / "cluster.env").stat().st_mode & 0o777 == 0o600
    text = COMPOSE.read_text(encoding="utf-8")
    required = {name for name, operator, _ in VARIABLE.findall(text) if operator == "?"}
    assert not [name for name in required if len(first[name]) < 40]
    assert len({first[name] for name in required}) == len(required)
    assert len(first["AIRFLOW_JWT_SECRET"]) >= 64
    assert not [name for name in ("SMTP_SERVER", "SLACK_WEBHOOK_URL") if first[name]]
    (folder / "cluster.env").write_text(
        "POSTGRES_PASSWORD=mine\nAWS_ACCESS_KEY_ID=key\n", encoding="utf-8"
    )
    second = write()
    assert second["POSTGRES_PASSWORD"] == "mine"
    assert second["AWS_ACCESS_KEY_ID"] == "key"
    assert second["VALKEY_PASSWORD"] != first["VALKEY_PASSWORD"]


def test_secrets_and_state_never_enter_the_image_or_the_repository():
    ignored = (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    for name in ("cluster.env", "cluster.env.new", "cluster.dump"):
        assert f"/docker/{name}" in ignored
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.M)
    assert {name for names in copied for name in names.split()} == allowed
    assert all((REPOSITORY / name).exists() for name in allowed)


def test_every_container_is_hardened_limited_and_watched(services):
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].split(":")[0]) > 0, name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        if name != "initialise":
            assert service["healthcheck"]["test"], name
            assert service["restart"] == "unless-stopped", name


def test_configuration_is_mounted_read_only_and_state_is_a_named_volume(compose, services):
    for name, service in services.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert mount.endswith(":ro"), (name, mount)
                assert (REPOSITORY / source).exists(), source
            else:
                assert source in compose["volumes"], (name, mount)
    for name in (*OURS, "service-1", "service-2"):
        assert "state:/state" in services[name]["volumes"]


def test_what_others_depend_on_exists_and_has_a_healthcheck(services):
    for name, service in services.items():
        for other, condition in (service.get("depends_on") or {}).items():
            assert other in services, name
            if condition["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"]


def test_all_components_of_airflow_share_their_settings(services):
    for name in OURS[1:]:
        environment = services[name]["environment"]
        assert environment["RECSYS_ROLE"] == name
        assert environment["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
        database = environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        assert database.startswith("postgresql+psycopg2://")
        for shared in ("FERNET_KEY", "SECRET_KEY", "JWT_SECRET"):
            assert any(key.endswith(shared) for key in environment), (name, shared)
    replicas = services["worker"]["environment"]["RECSYS_SERVICE_REPLICAS"].split(",")
    assert replicas == ["http://service-1:8000", "http://service-2:8000"]


def test_task_logs_are_named_like_those_of_the_stack_on_one_machine(services):
    name = "AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE"
    templates = {services[one]["environment"].get(name) for one in OURS}
    assert templates == {VARIABLES[name]}


def test_a_running_task_is_not_handed_out_a_second_time(services):
    schedule = json.loads((REPOSITORY / "config" / "scheduler_config.json").read_text())
    longest = max(job["timeout_minutes"] for job in schedule["jobs"].values()) * 60
    name = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"
    assert int(services["worker"]["environment"][name]) > longest


def pins(name: str) -> dict[str, str]:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)(?: \\)?$", text, re.M))


def test_the_service_has_the_packages_of_the_others_without_airflow_and_torch():
    service, base = pins("requirements-service.txt"), pins("requirements.txt")
    assert not {name for name in service if base.get(name) != service[name]}
    assert not [name for name in service if "airflow" in name or "torch" in name]
    assert {"fastapi", "numpy", "pyarrow"} <= set(service)


def test_the_cluster_packages_are_pinned_and_agree_with_the_others():
    cluster, base = pins("requirements-cluster.txt"), pins("requirements.txt")
    assert cluster["celery"] == "5.6.3"
    assert {"psycopg2-binary", "redis", "apache-airflow-providers-celery"} <= set(cluster)
    different = {name for name in set(cluster) & set(base) if cluster[name] != base[name]}
    assert not different


def test_the_proxy_has_as_many_processes_as_its_container_may_have(services):
    text = (DOCKER / "proxy" / "nginx.conf").read_text(encoding="utf-8")
    (number,) = re.findall(r"^worker_processes (\d+);$", text, re.M)
    assert int(number) < services["proxy"]["deploy"]["resources"]["limits"]["pids"]


class _Replica(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = {
            "status": "healthy",
            "port": self.server.server_address[1],
            "forwarded": self.headers["X-Forwarded-For"],
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None: ...


@contextlib.contextmanager
def replica(port: int, handler: type[_Replica] = _Replica) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Forgetful(_Replica):
    """Ends each connection as its fourth request comes, without an answer."""

    protocol_version = "HTTP/1.1"
    answered = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.close_connection = self.answered == 3
        if not self.close_connection:
            self.answered += 1
            self.do_GET()


@contextlib.contextmanager
def proxy_before(folder: Path, first: int, second: int) -> Iterator[str]:
    """The address of a running proxy, with replicas at these ports of this machine."""
    port = find_free_port()
    text = (DOCKER / "proxy" / "nginx.conf").read_text(encoding="utf-8")
    for number, replica_port in ((1, first), (2, second)):
        # Names that are asked for again are for nginx 1.27.3 and Docker's networks.
        name = f"service-{number}:8000 resolve"
        assert name in text
        text = text.replace(name, f"127.0.0.1:{replica_port}")
    newer = "keepalive_min_timeout 10s;"  # than nginx 1.27.4, too
    assert newer in text
    text = (
        text.replace(newer, "")
        .replace("listen 8000", f"listen 127.0.0.1:{port}")
        .replace("/tmp/", f"{folder}/")
    )
    (folder / "nginx.conf").write_text(f"daemon off; {text}", encoding="utf-8")
    proxy = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")])
    try:
        _wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait(timeout=20)


needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


@needs_nginx
@pytest.mark.boots
def test_the_proxy_spreads_requests_survives_a_replica_and_keeps_administration_out(tmp_path):
    ports = [find_free_port() for _ in range(2)]
    with (
        replica(ports[1]),
        contextlib.ExitStack() as first,
        proxy_before(tmp_path, *ports) as url,
    ):
        first.enter_context(replica(ports[0]))
        answers = {requests.get(f"{url}/health", timeout=5).json()["port"] for _ in range(20)}
        assert answers == set(ports)
        named = requests.get(f"{url}/health", headers={"X-Forwarded-For": "1.2.3.4"}, timeout=5)
        assert named.json()["forwarded"] == "1.2.3.4, 127.0.0.1"
        for path in ("/reload_model", "/canary", "/canary?minutes=1"):
            assert requests.post(f"{url}{path}", timeout=5).status_code == 403
        for path in (
            "/interactions",
            "//interactions",
            "/interactions?x=1",
            "/x/../interactions",
        ):
            session = requests.Session()
            asked = requests.Request("POST", url, json={}).prepare()
            asked.url = f"{url}{path}"
            assert session.send(asked, timeout=5).status_code == 401, path
            asked.headers["Authorization"] = "Bearer of some token"
            assert session.send(asked, timeout=5).status_code == 200, path
        first.close()
        for _ in range(20):
            answer = requests.post(f"{url}/recommend", json={"user_id": "1"}, timeout=5)
            assert answer.json()["port"] == ports[1]


@needs_nginx
@pytest.mark.boots
def test_a_connection_that_ends_as_it_is_used_costs_no_answer_while_a_replica_is_away(tmp_path):
    away, there = find_free_port(), find_free_port()
    with replica(there, _Forgetful), proxy_before(tmp_path, away, there) as url:
        # Five or more by one process of the two; three failures would take the replica out.
        for _ in range(9):
            answer = requests.post(f"{url}/recommend", json={"user_id": "1"}, timeout=5)
            assert answer.status_code == 200
            assert answer.json()["port"] == there


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    pytest.fail(f"nothing listens on {port}")


def test_the_healthcheck_says_no_when_nobody_answers():
    environment = {"RECSYS_ROLE": "service", "RECSYS_SERVICE_PORT": str(find_free_port())}
    script = str(DOCKER / "healthcheck.py")
    for role in ("service", "nobody"):
        done = subprocess.run(
            [sys.executable, script],
            env=environment | {"RECSYS_ROLE": role},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 1
    with replica(int(environment["RECSYS_SERVICE_PORT"])):
        done = subprocess.run([sys.executable, script], env=environment, check=False)
        assert done.returncode == 0


def test_the_page_has_the_commands_that_tests_containers_runs():
    text = (REPOSITORY / "docs" / "production.md").read_text(encoding="utf-8")
    for command in (
        "exec -T worker tar -x -C /state/data/raw",
        "exec worker python -m recsys up",
        "exec worker python -m recsys backup /state/backup.tar",
        "cp worker:/state/backup.tar .",
        "exec -T postgres pg_dump -U airflow -Fc airflow > airflow.dump",
        "sh -c 'cat >/state/backup.tar' < backup.tar",
        "run --rm --no-deps -T worker python -m recsys restore /state/backup.tar",
        "exec -T postgres pg_restore -U airflow -d airflow < airflow.dump",
        "docker/deploy.py --rotate",
        "make deploy VERSION=",
    ):
        assert command in text, command
