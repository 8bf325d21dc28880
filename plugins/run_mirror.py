"""Registers the run mirror with Airflow."""

from airflow.plugins_manager import AirflowPlugin

from recsys.orchestration.listener import RunMirrorListener


class RunMirrorPlugin(AirflowPlugin):
    """Mirrors every run of the jobs into the run tracker."""

    name = "recsys_run_mirror"
    listeners = [RunMirrorListener()]  # noqa: RUF012  (Airflow's own declaration)
