"""Every rule fires when it should, for as long as it says, and not before."""

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from recsys.settings import REPOSITORY
from tests.documented import spans, table
from tests.monitoring.rules import MONITORING, RULES, alert_rules, program, promtool_test, waits

GOOD_MINUTES = 60
MINUTES = 60
JOB = '{pipeline="model_training"}'
LISTS = 'endpoint="/recommend"'


class Case(NamedTuple):
    """Series that are well for an hour and then broken, as promtool writes them: (name, well,
    broken); the labels of the alert that comes of it, and how long the rates take to see it."""

    series: tuple[tuple[str, str, str], ...]
    labels: dict[str, str]
    minutes: int = 0


def level(well: float, broken: float) -> tuple[str, str]:
    return f"{well}+0x{GOOD_MINUTES - 1}", f"{broken}+0x{MINUTES}"


def counts(well: float, broken: float) -> tuple[str, str]:
    """A counter that grows by so much a minute."""
    at = well * GOOD_MINUTES
    return f"0+{well}x{GOOD_MINUTES - 1}", f"{at}+{broken}x{MINUTES}"


def one(name: str, well: float, broken: float, minutes: int = 0, **labels: str) -> Case:
    shown = "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
    return Case(((name + shown, *level(well, broken)),), labels, minutes)


def slow(seconds: float) -> Case:
    return Case(
        (
            (f"recsys_request_seconds_sum{{{LISTS}}}", *counts(6, 600 * seconds)),
            (f"recsys_request_seconds_count{{{LISTS}}}", *counts(600, 600)),
        ),
        {},
        5,
    )


CASES = {
    "ServiceDown": one("up", 1, 0, job="service", instance="a:1"),
    "ExporterDown": one("up", 1, 0, job="exporter", instance="a:1"),
    "ExporterPartUnsound": one("recsys_exporter_sound", 1, 0, part="data"),
    "AirflowSilent": Case(
        (
            (
                'recsys_airflow_heartbeat_timestamp_seconds{part="scheduler"}',
                f"0+60x{GOOD_MINUTES - 1}",
                f"3600+0x{MINUTES}",
            ),
        ),
        {"part": "scheduler"},
        2,
    ),
    "ClockWrong": Case(
        (
            (
                'recsys_clock_timestamp_seconds{job="service"}',
                f"0+60x{GOOD_MINUTES - 1}",
                f"3900+60x{MINUTES}",
            ),
        ),
        {"job": "service"},
    ),
    "DiskFull": Case(
        (
            ("recsys_disk_free_bytes", *level(5e10, 4e9)),
            ("recsys_disk_size_bytes", *level(1e11, 1e11)),
        ),
        {},
    ),
    "ServiceSlow": slow(0.3),
    "ServiceVerySlow": slow(0.9),
    "ServiceErrors": Case(
        (
            (f'recsys_requests_total{{{LISTS},status="2xx"}}', *counts(600, 500)),
            (f'recsys_requests_total{{{LISTS},status="5xx"}}', *counts(1, 100)),
            ('recsys_requests_total{endpoint="/health",status="5xx"}', *counts(900, 900)),
        ),
        {},
        5,
    ),
    "ManyFallbacks": Case(
        (
            ('recsys_lists_total{customer="known",made_by="model"}', *counts(100, 40)),
            ('recsys_lists_total{customer="known",made_by="fallback"}', *counts(1, 60)),
            ('recsys_lists_total{customer="unknown",made_by="fallback"}', *counts(900, 900)),
        ),
        {},
        15,
    ),
    "ListsEmpty": Case(
        (
            ('recsys_lists_total{customer="known",made_by="model"}', *counts(100, 100)),
            ("recsys_lists_empty_total", *counts(0, 50)),
        ),
        {},
        5,
    ),
    "NotWrittenDown": one("recsys_unwritten_seconds", 0, 30, what="request_log"),
    "FileRefused": one("recsys_file_sound", 1, 0, file="rules"),
    "ExperimentModelBroken": one("recsys_experiment_models_broken", 0, 1),
    "RegisterUnreadable": one("recsys_register_readable", 1, 0),
    "RequestsOverdue": one("recsys_requests_overdue", 0, 2),
    "ModelExpired": one("recsys_model_created_timestamp_seconds", 0, -31 * 86_400),
    "JobFailed": Case(
        (
            (f"recsys_pipeline_success_timestamp_seconds{JOB}", *level(1000, 1000)),
            (f"recsys_pipeline_failure_timestamp_seconds{JOB}", *level(500, 3600)),
        ),
        {"pipeline": "model_training"},
    ),
    "JobSilent": Case(
        (
            (f"recsys_pipeline_success_timestamp_seconds{JOB}", *level(1000, 1000)),
            (f"recsys_pipeline_due_timestamp_seconds{JOB}", *level(900, 3000)),
        ),
        {"pipeline": "model_training"},
    ),
    "JobLate": Case(
        (
            (f"recsys_pipeline_running_seconds{JOB}", *level(0, 6000)),
            (f"recsys_pipeline_deadline_seconds{JOB}", *level(5400, 5400)),
        ),
        {"pipeline": "model_training"},
    ),
    "TasksLost": Case((("recsys_airflow_tasks_lost_total", *counts(0, 0.5)),), {}, 3),
    "DagsBroken": one("recsys_airflow_import_errors", 0, 1),
    "DataStale": Case(
        (
            ("recsys_data_newest_timestamp_seconds", *level(0, -8 * 86_400)),
            ("recsys_data_max_age_seconds", *level(7 * 86_400, 7 * 86_400)),
        ),
        {},
    ),
    "DriftFound": one("recsys_drift_severity", 0, 1),
    "TrackingSilent": one("recsys_tracking_silence_ratio", 0.4, 1.2),
    "RateFell": one("recsys_rate_fall_ratio", 0.02, 0.15, rate="click"),
    "ServedListsLost": one("recsys_served_lists_lost_ratio", 0, 0.02),
    "HealthReportOverdue": Case(
        (
            (
                "recsys_health_report_timestamp_seconds",
                f"0+60x{GOOD_MINUTES - 1}",
                f"-4000+60x{MINUTES}",
            ),
            ("recsys_health_report_max_age_seconds", *level(7200, 7200)),
        ),
        {},
    ),
    "ComponentUnhealthy": one("recsys_health", 0, 1, component="data"),
    "AlertChannelFailing": one("recsys_alert_channel_failing", 0, 1, channel="email"),
    "ProductAlert": Case(
        (
            (
                'recsys_alert_told_timestamp_seconds{alert="file_set_aside",severity="warning"}',
                f"-9000+0x{GOOD_MINUTES - 1}",
                f"3600+0x{MINUTES}",
            ),
        ),
        {"alert": "file_set_aside", "severity": "warning"},
    ),
}


def unit_test(name: str, case: Case) -> dict[str, Any]:
    """A test for promtool: nothing while all is well and until ``for`` is over, then one alert."""
    rule = alert_rules()[name]
    severity = rule.get("labels", {}).get("severity", case.labels.get("severity"))
    severity = "warning" if "{{" in severity else severity
    labels = {**rule.get("labels", {}), **case.labels, "severity": severity}
    begins, wait = GOOD_MINUTES * 60, int(waits(rule).total_seconds())
    quiet = [begins - 60, *([begins + wait - 60] if wait > 60 else [])]
    fires = begins + wait + case.minutes * 60 + 60
    firing = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
    expected = [{"labels": _labels(name, labels), "value": 1}]
    return {
        "interval": "1m",
        "name": name,
        "input_series": [
            {"series": series, "values": f"{well} {broken}"} for series, well, broken in case.series
        ],
        "promql_expr_test": [
            {"expr": firing, "eval_time": f"{moment}s", "exp_samples": samples}
            for moment, samples in (*((moment, []) for moment in quiet), (fires, expected))
        ],
    }


def _labels(name: str, labels: dict[str, str]) -> str:
    shown = {"__name__": "ALERTS", "alertname": name, "alertstate": "firing", **labels}
    return "{" + ",".join(f'{key}="{value}"' for key, value in sorted(shown.items())) + "}"


def test_the_files_are_sound() -> None:
    for command in (
        [program("promtool"), "check", "config", str(MONITORING / "prometheus.yml")],
        [program("amtool"), "check-config", str(MONITORING / "alertmanager.yml")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_case_and_a_row_in_the_docs() -> None:
    assert set(CASES) == set(alert_rules())
    rows = {spans(row[0])[0]: row for row in table("docs/watching.md", "rule")}
    assert set(rows) == set(alert_rules())
    for name, rule in alert_rules().items():
        severity = rule.get("labels", {}).get("severity", "")
        assert severity in rows[name][1] or "{{" in severity, name
        assert rows[name][2] == rule.get("for", "at once"), name


@pytest.mark.parametrize("name", CASES)
def test_a_rule_fires_when_its_time_is_over_and_not_before(name: str, tmp_path: Path) -> None:
    promtool_test(tmp_path, [unit_test(name, CASES[name])])


def test_every_text_names_a_page_and_known_labels() -> None:
    for name, rule in alert_rules().items():
        notes = rule["annotations"]
        assert (MONITORING.parent / notes["page"]).is_file(), name
        known = CASES[name].labels.keys()
        assert set(re.findall(r"\$labels\.(\w+)", notes["summary"])) <= known, name


@pytest.mark.parametrize(
    ("rule", "own", "unit"),
    [
        ("ServiceSlow", "high_latency", 1000),
        ("ServiceVerySlow", "critical_latency", 1000),
        ("ServiceErrors", "high_error_rate", 1),
        ("ManyFallbacks", "high_fallback_rate", 1),
    ],
)
def test_prometheus_and_the_hourly_check_have_the_same_thresholds(
    rule: str, own: str, unit: int
) -> None:
    """`unit`: of what alerts_config.yaml has, how much is one of Prometheus'."""
    text = (REPOSITORY / "config" / "alerts_config.yaml").read_text(encoding="utf-8")
    asked = yaml.safe_load(text)["alerts"][own]
    first = re.search(r">\s*([\d.]+)", alert_rules()[rule]["expr"])
    assert first
    assert float(first[1]) * unit == asked["threshold"]
    assert alert_rules()[rule]["labels"]["severity"] == asked["severity"]


def test_figures_that_rules_use_are_shown_by_somebody() -> None:
    known = {name for row in table("docs/watching.md", "figure") for name in spans(row[0])}
    known |= {name for row in table("docs/serving.md", "metric") for name in spans(row[0])}
    known |= {f"{name}_{part}" for name in known for part in ("sum", "count", "bucket")}
    for path in RULES.glob("*.yml"):
        named = set(re.findall(r"\brecsys_\w+", path.read_text(encoding="utf-8")))
        assert named <= known, path
