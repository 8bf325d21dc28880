"""What the jobs make, as Airflow's assets: what came of what, with ids and counts, in its UI.

A task that has an asset among its outlets tells of it with `announce`; a job that has it in its
``after`` runs then."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from airflow.sdk import Asset, AssetWatcher, get_current_context
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from recsys import schedule
from recsys.errors import InputError
from recsys.settings import Settings, load_settings

LOOK_SECONDS = 30.0
MOST_NAMES = 50  # of the files that an event lists

logger = logging.getLogger(__name__)

Facts = dict[str, Any]


class DropTrigger(BaseEventTrigger):
    """Looks for files that the shop has dropped, and tells of each once two looks have found it
    unchanged. It runs in the triggerer while a job that follows `RAW_DROP` is switched on. A new
    triggerer tells again of what still waits."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__qualname__}", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        before, told = dict[str, int](), dict[str, int]()
        while True:
            found = await asyncio.to_thread(_look)
            if found is not None:
                told = {name: at for name, at in told.items() if found.get(name) == at}
                complete = {name for name, at in found.items() if before.get(name) == at}
                if fresh := sorted(complete - told.keys()):
                    told |= {name: found[name] for name in fresh}
                    yield TriggerEvent({"count": len(fresh), "files": fresh[:MOST_NAMES]})
                before = found
            await asyncio.sleep(LOOK_SECONDS)


def _look() -> dict[str, int] | None:
    """What waits; None if it cannot be seen now, which must not end the watch."""
    from recsys.data.staging import waiting_files

    try:
        return waiting_files(load_settings())
    except (InputError, OSError) as error:
        logger.warning("Dropped files cannot be looked for: %s", error)
        return None


_WATCHERS = {schedule.RAW_DROP: [AssetWatcher(name="dropped_files", trigger=DropTrigger())]}

BY_NAME: Final = {
    name: Asset(name, group="recsys", watchers=_WATCHERS.get(name, [])) for name in schedule.MADE_BY
}
RAW_DROP, DATA_VERSION, EMBEDDINGS, SELECTED_MODEL, SERVED_MODEL, OUTCOMES = BY_NAME.values()


def announce(asset: Asset, facts: Facts | None) -> None:
    """Tell that the running task has made `asset`, once it succeeds: ``id`` and other `facts` stand
    in the event. Without facts it has made nothing new, and Airflow, which else tells of all
    outlets of a task, keeps silent."""
    context = get_current_context()
    if facts is None:
        context["task"].outlets.remove(asset)
    else:
        context["outlet_events"][asset].extra = facts


def drop_facts(settings: Settings, summary: Mapping[str, Any]) -> Facts | None:
    """Of what `ingest` read of dropped files. Where a watcher tells of them, nothing is to add."""
    files = summary.get("files_read") or ()
    watched = schedule.RAW_DROP in schedule.load_schedule(settings).job("data_refresh").after
    if not files or summary["dry_run"] or watched:
        return None
    return {"count": len(files), "files": list(files)[:MOST_NAMES]}


def version_facts(summary: Mapping[str, Any]) -> Facts | None:
    """Of a new version that is the published one."""
    if not (summary.get("new_version") and summary["published"]):
        return None
    version_id = summary["version_id"]
    return {
        "id": version_id,
        "previous": summary["previous_version"],
        "as_of": summary["as_of"],
        "strategy": summary["strategy"],
        "rows": summary["rows"]["accepted"],
        "new_rows": summary["changes"]["new"],
        "quarantined": summary["rows"]["quarantined"],
        "products": summary["products"]["valid"],
        "files": list(summary["files_read"])[:MOST_NAMES],
        "path": f"data/versions/{version_id}",
        "link": page_url("data_quality", f"{version_id}.html"),
    }


def embedding_facts(summary: Mapping[str, Any]) -> Facts | None:
    """Of a new set."""
    if not summary["new_set"]:
        return None
    names = ("data_version", "model", "products", "encoded")
    own = {"id": summary["set_id"], "path": f"data/embeddings/{summary['set_id']}"}
    return own | {name: summary[name] for name in names}


def selection_facts(summary: Mapping[str, Any]) -> Facts | None:
    """Of the best model, if it is another one than before."""
    if not summary["changed"] or summary["model_id"] is None:
        return None
    names = ("data_version", "reason")
    counts = {"trained": len(summary["trained"]), "refused": len(summary["refused"])}
    return {"id": summary["model_id"]} | {name: summary[name] for name in names} | counts


def deployment_facts(summary: Mapping[str, Any]) -> Facts | None:
    """Of a model that was brought into service."""
    if summary["status"] != "success":
        return None
    names = ("reason", "verification", "duration_seconds")
    own = {"id": summary["model_id"], "previous": summary["previous_model_id"]}
    return own | {name: summary[name] for name in names}


def outcome_facts(summary: Mapping[str, Any]) -> Facts | None:
    """Of days whose outcomes are others than before."""
    if not summary["made"]:
        return None
    counts = {"days": len(summary["made"]), "attributed": summary["attributed"]}
    return {"id": summary["day"], **counts, "lost": summary["lost"], "path": "data/outcomes"}


def page_url(kind: str, name: str) -> str:
    """A report's page in the monitor."""
    base = os.environ.get("AIRFLOW__API__BASE_URL", "http://127.0.0.1:8080").rstrip("/")
    return f"{base}/recsys/reports/{kind}/{PurePath(name).name}"
