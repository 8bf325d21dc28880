"""The run tracker as an Airflow hook, for our listener and for other DAGs of the shop."""

import contextlib
from pathlib import Path

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException, AirflowRuntimeError

from recsys.database import BUSY_TIMEOUT_SECONDS
from recsys.settings import load_settings
from recsys.tracking import PipelineTracker, note_database

CONNECTION_ID = "recsys_tracker"


class PipelineTrackerHook(BaseHook):
    """Gives the `PipelineTracker` that connection `tracker_conn_id` names. Its host is the database
    file; without such a connection that is ``logs/pipeline_metrics.db`` of the state root.

    Examples
    --------
    >>> tracker = PipelineTrackerHook().get_conn()
    >>> run_id = tracker.start_run("price_feed")
    """

    conn_name_attr = "tracker_conn_id"
    default_conn_name = CONNECTION_ID
    conn_type = "recsys_tracker"
    hook_name = "Pipeline tracker"

    def __init__(self, tracker_conn_id: str = CONNECTION_ID) -> None:
        super().__init__()
        self.tracker_conn_id = tracker_conn_id

    def get_conn(self, timeout: float = BUSY_TIMEOUT_SECONDS) -> PipelineTracker:
        """A tracker on the connection's database; `timeout` as for `PipelineTracker`."""
        return PipelineTracker(self.database(), timeout=timeout)

    def database(self) -> Path:
        """The file that the connection names, or the default."""
        try:
            host = self.get_connection(self.tracker_conn_id).host
        except (AirflowNotFoundException, AirflowRuntimeError) as error:
            known = isinstance(error, AirflowRuntimeError) and error.error.error.name
            if known and known != "CONNECTION_NOT_FOUND":
                raise
            host = None
        settings = load_settings()
        database = Path(host) if host else settings.pipeline_db
        if self.tracker_conn_id == CONNECTION_ID:
            with contextlib.suppress(OSError):  # on a full disk the next run notes it
                note_database(settings, database)
        return database
