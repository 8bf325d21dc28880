"""The manifests are what the API of Kubernetes takes, and say what docs/kubernetes.md promises."""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
import pytest
import yaml

from recsys.config import load_config
from recsys.exporter.server import PORT, STATSD_PORT
from recsys.settings import REPOSITORY, Settings
from recsys.storage import StorageConfig
from serving.config import ServingConfig, read_environment

FOLDER = REPOSITORY / "deploy" / "kubernetes"
VALUES = yaml.safe_load((FOLDER / "airflow-values.yaml").read_text(encoding="utf-8"))
VERSIONS = ("1.33", "1.37")  # the oldest that is still looked after, and the newest with a schema
PAGE = (REPOSITORY / "docs" / "kubernetes.md").read_text(encoding="utf-8")

Object = Mapping[str, Any]


def objects() -> Iterator[dict[str, Any]]:
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.name != "airflow-values.yaml":
            yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


OBJECTS = list(objects())
NAMES = [f"{one['kind']}-{one['metadata']['name']}" for one in OBJECTS]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [one for one in OBJECTS if one["kind"] in kinds]


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Name and template of everything that runs."""
    running = of_kind("StatefulSet", "Deployment", "Job")
    return [(one["metadata"]["name"], one["spec"]["template"]) for one in running]


def containers() -> list[tuple[str, dict[str, Any]]]:
    return [(name, one) for name, pod in pods() for one in pod["spec"]["containers"]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("one", OBJECTS, ids=NAMES)
def test_every_object_is_one_that_the_api_takes(one, version):
    kubernetes_validate.validate(one, version, strict=True)


def test_what_the_api_would_not_take_is_found():
    (service,) = of_kind("StatefulSet")
    for path, value in (
        (("replicaz",), 2),
        (("serviceName",), 7),
        (("template", "spec", "containers", 0, "livenessProbe", "httpGett"), {}),
    ):
        broken = copy.deepcopy(service)
        place = broken["spec"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_all_is_in_one_namespace_that_enforces_the_strictest_standard():
    (namespace,) = of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [one for one in OBJECTS if one is not namespace]
    assert {one["metadata"]["namespace"] for one in others} == {namespace["metadata"]["name"]}


def hardened(pod: Object, container: Object) -> bool:
    """What the standard "restricted" asks for, and a root that nobody writes to."""
    return (
        pod["runAsNonRoot"]
        and pod["runAsUser"] == pod["fsGroup"] == 10001
        and pod["seccompProfile"]["type"] == "RuntimeDefault"
        and container["readOnlyRootFilesystem"]
        and container["allowPrivilegeEscalation"] is False
        and container["capabilities"] == {"drop": ["ALL"]}
    )


def test_nothing_runs_as_root_or_writes_to_its_image():
    for name, pod in pods():
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        for container in pod["spec"]["containers"]:
            assert hardened(pod["spec"]["securityContext"], container["securityContext"]), name
            mounts = {
                one["mountPath"]: one.get("readOnly", False) for one in container["volumeMounts"]
            }
            assert mounts == {"/state": False, "/state/config": True, "/tmp": False}, name
    contexts = VALUES["securityContexts"]
    assert hardened(contexts["pod"], contexts["containers"])


def test_everything_asks_for_what_it_needs_and_has_a_limit():
    parts = ("apiServer", "scheduler", "dagProcessor", "triggerer", "workers")
    wanted = [one["resources"] for _, one in containers()]
    for resources in [*wanted, *(VALUES[part]["resources"] for part in parts)]:
        for amounts in (resources["requests"], resources["limits"]):
            assert set(amounts) == {"cpu", "memory"}


def test_images_are_pinned_and_those_of_one_version():
    images = {one["image"] for _, one in containers()}
    airflow = VALUES["images"]["airflow"]
    images.add(f"{airflow['repository']}:{airflow['tag']}")
    assert {image.rsplit(":", 1)[1] for image in images} == {"0.1.0"}


def test_a_replica_without_a_model_gets_no_customers_and_is_not_restarted():
    ((_, service),) = [one for one in containers() if one[0] == "recsys-service"]
    assert service["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    for probe in ("startupProbe", "livenessProbe"):
        assert "tcpSocket" in service[probe]


def chosen(selector: Object) -> set[str]:
    """Names of what runs and is chosen by labels."""
    labels = selector.get("matchLabels", selector).items()
    return {name for name, pod in pods() if labels <= pod["metadata"]["labels"].items()}


def test_what_chooses_pods_finds_them_by_label_and_port():
    ports = {
        name: {port["name"] for one in pod["spec"]["containers"] for port in one.get("ports", ())}
        for name, pod in pods()
    }
    for service in of_kind("Service"):
        (name,) = chosen(service["spec"]["selector"])
        assert {one["targetPort"] for one in service["spec"]["ports"]} <= ports[name]
    for one in of_kind("PodDisruptionBudget", "StatefulSet", "Deployment"):
        assert chosen(one["spec"]["selector"]) == {one["metadata"]["name"]}
    for policy in of_kind("NetworkPolicy"):
        assert chosen(policy["spec"]["podSelector"]), policy["metadata"]["name"]
    (scaler,) = of_kind("HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    (scaled,) = of_kind(target["kind"])
    assert scaled["metadata"]["name"] == target["name"]
    assert "replicas" not in scaled["spec"]  # each `kubectl apply` would undo the autoscaler
    assert scaler["spec"]["minReplicas"] >= 2
    (replicas,) = [one for one in of_kind("Service") if one["spec"].get("clusterIP") == "None"]
    assert scaled["spec"]["serviceName"] == replicas["metadata"]["name"]


def test_the_deployment_finds_all_replicas_also_those_without_a_model():
    (replicas,) = [one for one in of_kind("Service") if one["spec"].get("clusterIP") == "None"]
    assert replicas["spec"]["publishNotReadyAddresses"] is True
    variables = {one["name"]: one["value"] for one in VALUES["env"]}
    name, port = replicas["metadata"]["name"], replicas["spec"]["ports"][0]["port"]
    assert variables["RECSYS_SERVICE_REPLICAS"] == f"dns+http://{name}:{port}"


def test_airflow_and_prometheus_reach_the_exporter_which_reads_airflows_disk():
    (exporter,) = of_kind("Deployment")
    (service,) = [one for one in of_kind("Service") if one["metadata"]["name"] == "recsys-exporter"]
    ports = {one["name"]: (one["port"], one.get("protocol")) for one in service["spec"]["ports"]}
    assert ports == {"http": (PORT, None), "statsd": (STATSD_PORT, "UDP")}
    variables = {one["name"]: one["value"] for one in VALUES["env"]}
    assert variables["AIRFLOW__METRICS__STATSD_HOST"] == service["metadata"]["name"]
    assert variables["AIRFLOW__METRICS__STATSD_PORT"] == str(STATSD_PORT)
    pod = exporter["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == VALUES["nodeSelector"]
    assert pod["volumes"][0] == VALUES["volumes"][0]
    (policy,) = [one for one in of_kind("NetworkPolicy") if one["metadata"]["name"] == "airflow"]
    assert "recsys-exporter" in chosen(policy["spec"]["podSelector"])
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"][0]["podSelector"] == policy["spec"]["podSelector"]
    assert "monitoring" in str(rule["from"][1])


def test_without_a_rule_nobody_talks_to_anybody():
    (closed,) = [one for one in of_kind("NetworkPolicy") if one["metadata"]["name"] == "nothing"]
    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_from_outside_only_customers_requests_are_answered():
    from serving.app import create_app

    (ingress,) = of_kind("Ingress")
    (rule,) = ingress["spec"]["rules"]
    assert {one["pathType"] for one in rule["http"]["paths"]} == {"Exact"}
    (backend,) = {str(one["backend"]["service"]) for one in rule["http"]["paths"]}
    assert "recsys-service" in backend
    routes = create_app().openapi()["paths"]
    for path in (one["path"] for one in rule["http"]["paths"]):
        assert set(routes[path]) == {"post"}, path
    assert not re.search("reload_model|canary|rules|users", str(rule))


def secrets() -> set[tuple[str, str]]:
    """Secret and key of every reference."""
    found = set()
    for _, container in containers():
        for one in container["env"]:
            if "valueFrom" in one:
                reference = one["valueFrom"]["secretKeyRef"]
                found.add((reference["name"], reference["key"]))
    found |= {(one["secretName"], one["secretKey"]) for one in VALUES["secret"]}
    data = VALUES["data"]
    for key in ("metadataSecretName", "resultBackendSecretName", "brokerUrlSecretName"):
        found.add((data[key], "connection"))
    chart = {
        "fernetKeySecretName": "fernet-key",
        "apiSecretKeySecretName": "api-secret-key",
        "jwtSecretName": "jwt-secret",
    }
    return found | {(VALUES[name], key) for name, key in chart.items()}


def test_secrets_are_named_and_none_is_here():
    assert not of_kind("Secret")
    told = set()
    for name, keys in re.findall(r"^\| `(recsys-[a-z-]+)` \| (.+?) \|", PAGE, re.M):
        told |= {(name, key) for key in re.findall(r"`([a-z-]+)`", keys)}
    assert told == secrets()
    text = "\n".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.yaml"))
    hidden = re.compile(r"\{name: \w*(PASSWORD|TOKEN|SECRET|_KEY|CONN)\w*, value:")
    assert not [line for line in text.splitlines() if hidden.search(line) and "FILE" not in line]


def test_airflow_has_the_variables_that_it_has_in_compose():
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yaml").read_text(encoding="utf-8"))
    there = set(compose["services"]["worker"]["environment"]) - {"RECSYS_ROLE"}
    here = {one["name"] for one in VALUES["env"]} | {one["envName"] for one in VALUES["secret"]}
    by_the_chart = {
        "AIRFLOW__CORE__EXECUTOR",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__API__SECRET_KEY",
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__CELERY__RESULT_BACKEND",
        "AIRFLOW__CELERY__BROKER_URL",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",  # the chart's probes ask it
    }
    assert there - here == by_the_chart
    settings = {one["name"]: one.get("value") for one in VALUES["env"]}
    same = ("VISIBILITY_TIMEOUT", "LOG_FILENAME_TEMPLATE", "HEARTBEAT_TIMEOUT", "QUEUED_TIMEOUT")
    for name, value in compose["services"]["worker"]["environment"].items():
        if name in settings and name.endswith(same):
            assert settings[name] == value


def test_the_service_can_read_what_it_is_given(tmp_path):
    ((_, service),) = [one for one in containers() if one[0] == "recsys-service"]
    given = {one["name"]: one.get("value", "token") for one in service["env"]}
    environment = read_environment(given)
    assert (environment.host, environment.port) == ("0.0.0.0", 8000)
    # Until the shop says whom, nobody but the pod itself is believed about who asks.
    assert environment.trusted_proxies == ("127.0.0.1/32",)
    (configuration,) = of_kind("ConfigMap")
    (tmp_path / "config").mkdir()
    for name, text in configuration["data"].items():
        (tmp_path / "config" / name).write_text(text, encoding="utf-8")
    settings = Settings(tmp_path)
    assert load_config(settings, StorageConfig).url.startswith("s3://")
    assert load_config(settings, ServingConfig).workers == 2
