"""The data_refresh job: raw files and what arrived beside them -> a published data version."""

from recsys.refresh.job import (
    RefreshError,
    ingest,
    open_engine,
    publish,
    run_refresh,
    score_comments,
)
from recsys.refresh.workspace import Workspace, open_workspace, workspace_of

__all__ = [
    "RefreshError",
    "Workspace",
    "ingest",
    "open_engine",
    "open_workspace",
    "publish",
    "run_refresh",
    "score_comments",
    "workspace_of",
]
