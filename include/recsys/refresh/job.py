"""The data_refresh job, step by step: each step reads and writes files of one work folder.

`run_refresh` does all of them; the DAG runs them as tasks. A step can be repeated: it replaces
what it wrote before, and publishing what is published already changes nothing.
"""

import hashlib
import json
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
from pyarrow import feather

from recsys import schema
from recsys.comments import score_view
from recsys.config import load_config
from recsys.data.config import DataConfig, Engine
from recsys.data.dataset import Dataset, count_part, join_parts, split_interactions
from recsys.data.events import add_keys, latest_rows
from recsys.data.inbox import archive_staged, collect_staged
from recsys.data.plan import ASKED_FOR, Plan, Strategy, View, make_plan, new_rows, read_view
from recsys.data.quarantine import write_quarantine
from recsys.data.retention import prune
from recsys.data.sources import Source, resolve_source
from recsys.data.staging import hand_in_files, hand_in_segments
from recsys.data.versions import SCHEMA_VERSION, open_version, publish, shows_later
from recsys.data.writing import VersionFiles, code_version
from recsys.errors import InputError
from recsys.publishing import sync_folder, sync_tree, write_json
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.spark import refresh as spark_refresh
from recsys.spark.session import engine_session

PLAN_FILE = "plan.json"
ROWS_FILE = "rows.feather"
CATALOGUE_FILE = "catalogue.feather"
KEYS_FILE = "keys.npy"
VIEW_FILE = "view.feather"
QUALITY_FILE = "quality.npy"
SCORES_FILE = "scores.json"
VERSION_FOLDER = "version"

REVIEW_COLUMNS = [schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP, schema.COMMENT]

Summary = dict[str, Any]


class RefreshError(InputError):
    """The view must not be published: too much of it is bad, or gone."""


def run_refresh(
    settings: Settings,
    interval: DataInterval,
    *,
    force_full: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Bring ``data/processed`` up to date with the raw files, up to the end of `interval`.

    Returns the run's summary. Raises `RefreshError` or `SourceError`, and publishes nothing, when
    the input cannot be trusted.
    """
    work = work_folder(settings, uuid4().hex)
    engine = load_config(settings, DataConfig).engine
    try:
        with engine_session(engine, settings, work):
            plan_refresh(settings, work, interval, force_full=force_full, dry_run=dry_run)
            ingest(settings, work)
            score_comments(settings, work)
            assemble(settings, work)
        return publish_version(settings, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def work_folder(settings: Settings, run_id: str) -> Path:
    """The scratch folder of a run; the same for all its tasks."""
    name = re.sub(r"[^0-9A-Za-z]+", "-", run_id).strip("-")[:60]
    return settings.work / f"data_refresh-{name}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def plan_refresh(
    settings: Settings,
    work: Path,
    interval: DataInterval,
    *,
    force_full: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Read and check everything up to the interval's end, and choose the strategy.

    Raises
    ------
    SourceError
        If a file is missing, unreadable or lacks a column.
    RefreshError
        If more than ``max_invalid_fraction`` of the rows is bad (they are in the quarantine then),
        or a column that the previous version had is gone.
    """
    started = time.monotonic()
    if not dry_run:
        hand_in_segments(settings)
        hand_in_files(settings)
    collect_staged(settings)
    config, source = load_config(settings, DataConfig), resolve_source(settings)
    now = datetime.now(UTC)
    shutil.rmtree(work, ignore_errors=True)
    view = _read_view(settings, source, config, work, as_of=interval.end, now=now)
    plan = make_plan(
        settings,
        config,
        source,
        view,
        as_of=interval.end,
        now=now,
        force_full=force_full,
        dry_run=dry_run,
    )
    if not dry_run and not _is_known_dirt(settings, plan):
        write_quarantine(settings, plan.version_id, view.rejected)
    _refuse_bad_input(plan, config)
    _refuse_lost_columns(settings, plan)
    work.mkdir(parents=True, exist_ok=True)
    if _makes_version(plan):
        _hand_over(settings, work, plan, view)
    write_json(work / PLAN_FILE, plan.to_json())
    return {**_outline(plan), "seconds": _since(started)}


def ingest(settings: Settings, work: Path) -> Summary:
    """Merge the new rows into those of the previous version, and keep the latest of each pair.

    Raises `RefreshError` if that leaves far fewer rows than the previous version has.
    """
    started = time.monotonic()
    plan = _read_plan(work)
    if not _makes_version(plan):
        return {"skipped": plan.reason}
    if plan.engine is Engine.SPARK:
        accepted, merged = spark_refresh.write_latest(settings, work, work / VIEW_FILE), 0
    else:
        accepted, merged = _write_latest(settings, work, plan)
    _refuse_shrinking(settings, plan, accepted)
    return {
        "accepted": accepted,
        "superseded": plan.rows_valid + plan.rows_repeated - accepted,
        "merged_with": merged,
        "seconds": _since(started),
    }


def _write_latest(settings: Settings, work: Path, plan: Plan) -> tuple[int, int]:
    """Write the latest rows; their number, and that of the previous version's rows among all."""
    rows = _read_frame(work / ROWS_FILE)
    merged = 0
    if plan.strategy is Strategy.INCREMENTAL and plan.previous_version:
        existing = open_version(settings, plan.previous_version).interactions(
            [*REVIEW_COLUMNS, schema.EVENT]
        )
        add_keys(existing)
        merged = len(existing)
        rows = pd.concat([existing.drop(columns=schema.EVENT), rows], ignore_index=True)
    view = latest_rows(rows)
    view.to_feather(work / VIEW_FILE, compression="uncompressed")
    return len(view), merged


def score_comments(settings: Settings, work: Path) -> Summary:
    """Score the comments of the view; what a scorer has seen before it does not score again."""
    started = time.monotonic()
    plan = _read_plan(work)
    if not _makes_version(plan):
        return {"skipped": plan.reason}
    view = _read_frame(work / VIEW_FILE, REVIEW_COLUMNS)
    scores = score_view(settings, view, as_of=plan.end, may_train=plan.strategy is Strategy.FULL)
    np.save(work / QUALITY_FILE, scores.quality.to_numpy(np.float32))
    write_json(work / SCORES_FILE, scores.summary)
    return {**scores.summary, "scorer": scores.scorer, "seconds": _since(started)}


def assemble(settings: Settings, work: Path) -> Summary:
    """Build every file of the new version inside the work folder."""
    started = time.monotonic()
    plan = _read_plan(work)
    if not _makes_version(plan):
        return {"skipped": plan.reason}
    folder = work / VERSION_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    dataset, files = _build(settings, work, plan, folder)
    comments = json.loads((work / SCORES_FILE).read_text(encoding="utf-8"))
    rows = dataset.stats["interactions"]
    manifest = _manifest(plan, files, comments, rows, shows_later(settings, plan.end))
    write_json(folder / schema.MANIFEST_FILE, manifest)
    return {
        "users": dataset.stats["users"],
        "trainable_users": dataset.stats["matrix"]["users"],
        "products": dataset.stats["products"],
        "rows_by_split": dataset.stats["rows_by_split"],
        "seconds": _since(started),
    }


def _build(
    settings: Settings, work: Path, plan: Plan, folder: Path
) -> tuple[Dataset, dict[str, Any]]:
    """Write the version's files into `folder`; its dataset and the manifest's entries of them."""
    catalogue = _read_frame(work / CATALOGUE_FILE)
    with VersionFiles(folder) as files:
        files.add_row_keys(np.load(work / KEYS_FILE))
        if plan.engine is Engine.SPARK:
            dataset = spark_refresh.assemble(
                settings, work, work / VIEW_FILE, work / QUALITY_FILE, catalogue
            )
            files.add_interactions(dataset.interactions)
            files.add_users(dataset.user_metadata)
        else:
            rows = _read_frame(work / VIEW_FILE)
            rows[schema.COMMENT_QUALITY] = np.load(work / QUALITY_FILE)
            interactions, split = split_interactions(rows)
            files.add_interactions(interactions)
            users, entries = count_part(rows, interactions, split)
            files.add_users(users)
            dataset = join_parts(interactions, users, [entries], catalogue)
        files.add_the_rest(dataset)
        return dataset, files.entries()


def publish_version(settings: Settings, work: Path) -> Summary:
    """Publish the assembled version and return the summary of the whole run.

    With nothing new, the version that was there already is what ``data/processed`` must show.
    """
    plan = _read_plan(work)
    if plan.dry_run:
        return {**_outline(plan), "published": False}
    version_id = plan.version_id if _makes_version(plan) else plan.previous_version
    if version_id is None:  # a day before the first review
        return {**_outline(plan), "new_version": False, "published": False}
    folder = work / VERSION_FOLDER
    if folder.is_dir():
        settings.versions.mkdir(parents=True, exist_ok=True)
        sync_tree(folder)
        folder.rename(settings.versions / version_id)
        sync_folder(settings.versions)
    moved = publish(settings, version_id)
    archive_staged(settings, plan.source["name"], plan.version_id, plan.staged)
    removed = prune(settings, load_config(settings, DataConfig))
    _tidy(work)
    manifest = open_version(settings, version_id).manifest
    return {
        **_outline(plan),
        "version_id": version_id,
        "new_version": _makes_version(plan),
        "published": moved,
        "versions_removed": removed,
        "accepted": manifest["rows"]["accepted"],
        "superseded": manifest["rows"]["superseded"],
        "comment_scorer": manifest["comment_scorer"],
    }


def _is_known_dirt(settings: Settings, plan: Plan) -> bool:
    """Nothing is new, not even bad rows: those of the previous version are in quarantine."""
    if plan.strategy is not Strategy.NOTHING_NEW or plan.previous_version is None:
        return False
    before = open_version(settings, plan.previous_version).manifest
    return bool(before["quarantined_by_reason"] == plan.quarantined_by_reason)


def _tidy(work: Path) -> None:
    """Remove what only the finished steps needed; the plan stays for a repeated last step."""
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != PLAN_FILE:
            entry.unlink()


def _makes_version(plan: Plan) -> bool:
    return not plan.dry_run and plan.strategy is not Strategy.NOTHING_NEW


def _read_view(
    settings: Settings,
    source: Source,
    config: DataConfig,
    work: Path,
    *,
    as_of: datetime,
    now: datetime,
) -> View:
    if config.engine is Engine.SPARK:
        return spark_refresh.read_view(settings, source, config, work, as_of=as_of, now=now)
    return read_view(settings, source, config, as_of=as_of, now=now)


def _hand_over(settings: Settings, work: Path, plan: Plan, view: View) -> None:
    if plan.engine is Engine.PANDAS:  # Spark's are there
        rows = view.reviews.accepted
        if plan.strategy is Strategy.INCREMENTAL and plan.previous_version:
            rows = new_rows(view, open_version(settings, plan.previous_version))
        rows.to_feather(work / ROWS_FILE, compression="uncompressed")
    view.products.accepted.to_feather(work / CATALOGUE_FILE, compression="uncompressed")
    np.save(work / KEYS_FILE, view.row_keys)


def _read_frame(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A frame of the work folder; its values stay in the file, and cannot be changed."""
    frame: pd.DataFrame = feather.read_feather(path, columns, memory_map=True)
    return frame


def _read_plan(work: Path) -> Plan:
    return Plan.from_json(json.loads((work / PLAN_FILE).read_text(encoding="utf-8")))


def _refuse_bad_input(plan: Plan, config: DataConfig) -> None:
    if plan.rows_valid + plan.rows_later == 0:
        raise RefreshError(
            f"none of the {plan.rows_read} rows read is valid: "
            f"{plan.quarantined_by_reason or 'there are no rows'}"
        )
    if plan.invalid_fraction > config.max_invalid_fraction:
        raise RefreshError(
            f"{plan.invalid_fraction:.1%} of the source's rows are bad, more than "
            f"max_invalid_fraction {config.max_invalid_fraction:g} allows: "
            f"{plan.quarantined_by_reason}; see data/quarantine/{plan.version_id}.csv"
        )


def _refuse_lost_columns(settings: Settings, plan: Plan) -> None:
    if plan.previous_version is None or plan.reason == ASKED_FOR:
        return
    before = open_version(settings, plan.previous_version).manifest
    if before["source"] != plan.source:
        return
    for table, columns in before.get("columns", {}).items():
        if lost := sorted(set(columns) - set(plan.columns[table])):
            raise RefreshError(
                f"the {table} had {', '.join(lost)} in version {plan.previous_version}, and have "
                "not any more; restore the column, change the source's description, or, if that "
                "is right, run with force_full"
            )


def _refuse_shrinking(settings: Settings, plan: Plan, accepted: int) -> None:
    if plan.previous_version is None or plan.reason == ASKED_FOR:
        return
    before = open_version(settings, plan.previous_version).manifest["rows"]["accepted"]
    allowed = load_config(settings, DataConfig).max_shrink_fraction
    if accepted < (1 - allowed) * before:
        raise RefreshError(
            f"only {accepted} rows are left of the {before} of version {plan.previous_version}, "
            f"less than max_shrink_fraction {allowed:g} allows; if that is right, run with "
            "force_full"
        )


def _manifest(
    plan: Plan, files: dict[str, Any], comments: Summary, accepted: int, backfill: bool
) -> dict[str, Any]:
    return {
        "version_id": plan.version_id,
        "schema_version": SCHEMA_VERSION,
        "as_of": plan.as_of,
        "created_at": datetime.now(UTC).isoformat(),
        "strategy": plan.strategy.value,
        "reason": plan.reason,
        "engine": plan.engine.value,
        "previous_version": plan.previous_version,
        "source": plan.source,
        "sources": plan.files,
        "staged": plan.staged,
        "columns": plan.columns,
        "backfill": backfill,
        "inputs": plan.inputs,
        "catalogue": plan.catalogue,
        "code_version": code_version(),
        "comment_scorer": comments["scorer"],
        "comments": comments,
        "rows": {
            "read": plan.rows_read,
            "accepted": accepted,
            "superseded": plan.rows_valid + plan.rows_repeated - accepted,
            "quarantined": plan.rows_quarantined,
            "later": plan.rows_later,
        },
        "quarantined_by_reason": plan.quarantined_by_reason,
        "files": files,
    }


def _outline(plan: Plan) -> Summary:
    return {
        "strategy": plan.strategy.value,
        "reason": plan.reason,
        "dry_run": plan.dry_run,
        "source": plan.source["name"],
        "as_of": plan.as_of,
        "version_id": plan.version_id if _makes_version(plan) else plan.previous_version,
        "previous_version": plan.previous_version,
        "new_interactions": plan.new_interactions,
        "vanished_interactions": plan.vanished_interactions,
        "rows_read": plan.rows_read,
        "rows_valid": plan.rows_valid,
        "rows_later": plan.rows_later,
        "quarantined": plan.rows_quarantined,
        "quarantined_by_reason": plan.quarantined_by_reason,
        "products_quarantined": plan.products_quarantined,
        "files_set_aside": [entry["path"] for entry in plan.staged["bad_files"]],
        "note": _note(plan),
    }


def _note(plan: Plan) -> str:
    """The plan in a sentence, for the run's note in Airflow's UI."""
    prefix = "Dry run, nothing changed. " if plan.dry_run else ""
    return (
        f"{prefix}Strategy {plan.strategy.value}: {plan.reason}. "
        f"{plan.new_interactions:,} new interactions; {plan.rows_valid:,} of {plan.rows_read:,} "
        f"rows are valid, {plan.rows_quarantined:,} in quarantine."
    )


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
