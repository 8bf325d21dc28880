"""The profile `monitoring`, as docs/watching.md has it. Grafana is not in: no package has it."""

from datetime import UTC, datetime, timedelta

import requests

from tests.containers.engine import wait_for
from tests.containers.stack import RECIPIENT, Containers

TRIED = "tried_by_hand"
SEEN_SECONDS = 120
TOLD_SECONDS = 90


def test_prometheus_sees_both_replicas_jobs_and_airflow(serving: Containers):
    for query, series in (
        ('up{job="service"} == 1', 2),
        ('up{job="exporter"} == 1', 1),
        ('recsys_pipeline_success_timestamp_seconds{pipeline="model_training"} > 0', 1),
        ('time() - recsys_airflow_heartbeat_timestamp_seconds{part="scheduler"} < 60', 1),
    ):
        wait_for(lambda: len(ask(serving, query)) == series, SEEN_SECONDS, query)  # noqa: B023


def test_every_rule_can_be_evaluated(serving: Containers):
    groups = get(serving, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 20
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []


def test_what_alertmanager_is_told_arrives_by_mail(serving: Containers):
    """Prometheus knows it, it knows the mail server, and a message is one mail."""
    (active,) = get(serving, "alertmanagers")["activeAlertmanagers"]
    assert active["url"].startswith("http://alertmanager:9093/")
    ends = datetime.now(UTC) + timedelta(minutes=2)
    alert = {
        "labels": {"alertname": "ProductAlert", "alert": TRIED, "severity": "warning"},
        "annotations": {"summary": "somebody tries whether a mail arrives"},
        "endsAt": ends.isoformat(),
    }
    url = f"http://{serving.address('alertmanager')}:9093/api/v2/alerts"
    requests.post(url, json=[alert], timeout=10).raise_for_status()

    def told() -> list[dict[str, object]]:
        return [mail for mail in serving.mails() if mail["Subject"] == TRIED]

    (mail,) = wait_for(told, TOLD_SECONDS, "a mail")
    assert mail["To"] == [{"Address": RECIPIENT}]


def ask(containers: Containers, query: str) -> list[dict[str, object]]:
    return list(get(containers, "query", query=query)["result"])


def get(containers: Containers, what: str, **parameters: str) -> dict[str, list[dict[str, object]]]:
    url = f"http://127.0.0.1:{containers.ports['PROMETHEUS_PORT']}/api/v1/{what}"
    answer = requests.get(url, params=parameters, timeout=10)
    return dict(answer.json()["data"])
