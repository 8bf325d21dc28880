"""The data quality report: what came in, what was refused, and what a version looks like.

``write_report(settings, version_id)`` writes ``reports/data_quality/<version_id>.json``, ``.html``
and ``.en.html`` from the version's own files; it can be repeated for any version that is kept."""

from pathlib import Path
from typing import Any

from recsys.alerting import Alert, AlertManager, Severity
from recsys.config import load_config
from recsys.data.config import DataConfig
from recsys.data.versions import VersionError, open_version
from recsys.publishing import write_json
from recsys.quality.measures import limits, measure, refused
from recsys.quality.page import render_quality_pages
from recsys.quality.verdicts import judge, overall
from recsys.reporting import write_pages
from recsys.schedule import load_zone
from recsys.settings import Settings

SET_ASIDE_ALERT = "dropped_file_set_aside"

__all__ = ["report_after_publishing", "write_report"]


def write_report(settings: Settings, version_id: str) -> Path:
    """Write ``reports/data_quality/<version_id>.json`` and the pages; the path of the plain one.

    Raises `VersionError` if the version is not kept (any more)."""
    version = open_version(settings, version_id)
    before = version.manifest.get("previous_version")
    try:
        previous = None if before is None else open_version(settings, before)
    except VersionError:  # pruned since
        previous = None
    figures = measure(version, previous)
    figures["limits"] = limits(figures, load_config(settings, DataConfig))
    figures["refused"] = refused(settings, version_id)
    figures["states"] = judge(figures)
    figures["state"] = overall(figures["states"])
    page = settings.reports / "data_quality" / f"{version_id}.html"
    contents = render_quality_pages(figures, page, load_zone(settings))
    write_json(page.with_suffix(".json"), figures)
    write_pages(page, contents)
    return page


def report_after_publishing(settings: Settings, summary: dict[str, Any]) -> dict[str, Any]:
    """Tell of the dropped files that a run set aside, and report on the version that it made, if it
    made one; the path of the report."""
    for facts in summary.get("files_set_aside", ()):
        if "place" not in facts:  # a dry run, or there is no version yet: they are where they were
            continue
        alert = Alert(
            SET_ASIDE_ALERT,
            "a dropped file cannot be used",
            Severity.WARNING,
            facts=facts,
            key=f"{SET_ASIDE_ALERT}/{facts['place']}",
            until_resolved=True,
            event=True,
        )
        AlertManager(settings).deliver(alert)
    if not summary.get("new_version"):
        return {"skipped": "no new version"}
    page = write_report(settings, summary["version_id"])
    return {"quality_report": str(page.relative_to(settings.home))}
