"""A failed deployment is one failure: one alert, whoever reports it first."""

from recsys.alerting.runs import RunEvent, failure_key, tell_of_run
from recsys.deployment.job import JOB, raise_alarm


def test_what_airflow_reports_of_the_same_run_is_held_back(settings):
    raise_alarm(settings, "als_1", "the service is down", failure_key(JOB, "manual__1"))
    event = RunEvent(
        "task_failed",
        job="model_deployment",
        run_id="manual__1",
        run_type="manual",
        task="deploy",
        error="als_1 was not deployed",
    )
    tell_of_run(event, settings)
    log = (settings.logs / "service" / "alerts.log").read_text()
    assert log.count("model_deployment_failed triggered") == 1
    assert "the service is down" in log


def test_the_next_failed_run_is_told_again(settings):
    raise_alarm(settings, "als_1", "the service is down", failure_key(JOB, "manual__1"))
    raise_alarm(settings, "als_1", "the service is down", failure_key(JOB, "manual__2"))
    # Cleared in Airflow, the same run is tried anew.
    raise_alarm(settings, "als_1", "the service is down", failure_key(JOB, "manual__2", 1))
    log = (settings.logs / "service" / "alerts.log").read_text()
    assert log.count("model_deployment_failed triggered") == 3
