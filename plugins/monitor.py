"""Puts the monitor into Airflow: a page of its own, and a tab on every run."""

from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from recsys.orchestration.monitor import PREFIX, BuiltOnFirstRequest

# Airflow may itself live below a path, behind a proxy.
HREF = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX


class MonitorPlugin(AirflowPlugin):
    """The monitor page. Every Airflow process loads this, and only the API server builds it."""

    name = "recsys_monitor"
    fastapi_apps = [  # noqa: RUF012  (Airflow's own declaration)
        {"app": BuiltOnFirstRequest(), "url_prefix": PREFIX, "name": "Recsys monitor"}
    ]
    external_views = [  # noqa: RUF012
        {
            "name": "Recsys",
            "href": f"{HREF}/",
            "destination": "nav",
            "nav_top_level": True,
            "url_route": "recsys",
        },
        {
            "name": "Recsys",
            "href": f"{HREF}/runs/{{DAG_ID}}/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "recsys-run",
        },
    ]
