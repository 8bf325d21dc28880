"""The data_refresh job in three steps, each of which reads and writes files of one workspace.

`run_refresh` does all of them; the DAG runs them as tasks. A step can be repeated: it replaces
what it wrote before, and publishing what is published already changes nothing."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import numpy as np

from recsys import schema
from recsys.comments import CommentConfig, score_view
from recsys.config import load_config
from recsys.data.arrivals import archive_arrivals, collect_arrivals
from recsys.data.cleaning import Limits, write_quarantine
from recsys.data.config import DataConfig, Engine
from recsys.data.engine import PandasEngine, RefreshEngine, read_frame
from recsys.data.products import add_since, for_sale
from recsys.data.retention import prune
from recsys.data.sales import recent_sales
from recsys.data.signals import signal_statistics, split_signals
from recsys.data.sources import resolve_source
from recsys.data.staging import STAGING_KEY, hand_in_files, hand_in_segments
from recsys.data.versions import is_of_the_future, list_versions, open_version, shows_later
from recsys.data.versions import publish as publish_version
from recsys.data.writing import VersionFiles
from recsys.errors import InputError
from recsys.privacy import load_forgotten
from recsys.publishing import sync, sync_tree, write_json
from recsys.refresh.plan import ASKED_FOR, Plan, Strategy, make_plan
from recsys.refresh.workspace import Workspace, workspace_of
from recsys.schedule import DataInterval
from recsys.settings import Settings
from recsys.storage.bundle import write_manifest

logger = logging.getLogger(__name__)

REVIEW_COLUMNS = [schema.USER, schema.PRODUCT, schema.RATING, schema.TIMESTAMP, schema.COMMENT]

_OUTLINE = {
    *("strategy", "reason", "dry_run", "as_of", "version_id", "previous_version"),
    *("rows", "changes", "quarantined_by_reason", "products", "signals", "passed_over"),
}

_IF_RIGHT = "if that is right, run with force_full"

Summary = dict[str, Any]


class RefreshError(InputError):
    """The view must not be published: too much of it is bad, or gone."""


def run_refresh(
    settings: Settings, interval: DataInterval, *, force_full: bool = False, dry_run: bool = False
) -> Summary:
    """Bring ``data/processed`` up to date with the raw files, up to the end of `interval`.

    Returns the run's summary. Raises `RefreshError` or `SourceError`, and publishes nothing, when
    the input cannot be trusted."""
    work = workspace_of(settings, uuid4().hex)
    try:
        with open_engine(settings, load_config(settings, DataConfig), work):  # one for all steps
            read = ingest(settings, work, interval, force_full=force_full, dry_run=dry_run)
            score_comments(settings, work)
            return {**read, **publish(settings, work)}
    finally:
        shutil.rmtree(work.folder, ignore_errors=True)


@contextlib.contextmanager
def open_engine(settings: Settings, config: DataConfig, work: Workspace) -> Iterator[RefreshEngine]:
    """The engine that the configuration names, with whatever processes it needs."""
    if config.engine is Engine.SPARK:
        from recsys.spark.refresh import open_spark_engine

        with open_spark_engine(settings, config, work.folder) as engine:
            yield engine
    else:
        yield PandasEngine(settings, config)


def ingest(
    settings: Settings,
    work: Workspace,
    interval: DataInterval,
    *,
    force_full: bool = False,
    dry_run: bool = False,
) -> Summary:
    """Read and check everything up to the interval's end, choose the strategy, keep latest rows.

    Raises `SourceError` if a file is missing, unreadable or lacks a column, and `RefreshError` if
    the interval ends in the future, more than ``max_invalid_fraction`` of the rows is bad (they are
    in the quarantine then), a column that the previous version had is gone, or far fewer rows are
    left than it has."""
    started = time.monotonic()
    if is_of_the_future(interval.end):
        raise RefreshError(
            f"the view would end at {interval.end.isoformat()}, and it is "
            f"{datetime.now(UTC).isoformat(timespec='seconds')} by the clock of this machine: wait "
            "until then, or set the clock right"
        )
    if not dry_run:
        hand_in_segments(settings)
        hand_in_files(settings)
    collect_arrivals(settings)
    config, source = load_config(settings, DataConfig), resolve_source(settings)
    now, zone = datetime.now(UTC), ZoneInfo(source.config.timezone)
    forgotten, ids = load_forgotten(settings), source.config.id_rules
    limits = Limits(zone, config.earliest_time, interval.end, now, ids, forgotten)
    work.empty()
    with open_engine(settings, config, work) as engine:
        view = engine.read(source, limits)
        plan = make_plan(
            *(settings, config, load_config(settings, CommentConfig), source, view),
            as_of=interval.end,
            now=now,
            force_full=force_full,
            dry_run=dry_run,
        )
        if not dry_run and not _is_known_dirt(settings, plan):
            write_quarantine(settings, plan.version_id, view.rejected)
        _refuse_bad_input(plan, config)
        if plan.reason != ASKED_FOR:
            _refuse_bad_catalogue(settings, plan, config, len(for_sale(view.products.accepted)))
            _refuse_lost_columns(settings, plan)
        if left_out := plan.rows.forgotten + plan.signals.forgotten:
            logger.info("Rows of customers who are forgotten were left out | rows=%d", left_out)
        summary = _outline(plan)
        if plan.makes_version:
            accepted = engine.latest(view, work.rows)
            if plan.reason != ASKED_FOR:
                _refuse_shrinking(settings, config, plan, accepted)
                _refuse_shrunk_exports(settings, config, plan)
            view.products.accepted.to_feather(work.catalogue, compression="uncompressed")
            if plan.signals.fingerprint:
                view.signals.rows.to_feather(work.signals, compression="uncompressed")
            np.save(work.row_keys, view.row_keys)
            summary["rows"] = _all_rows(plan, accepted)
    write_json(work.plan, plan.model_dump(mode="json"))
    return {**summary, "seconds": _since(started)}


def score_comments(settings: Settings, work: Workspace) -> Summary:
    """Score the comments of the view; what a scorer has seen before it does not score again."""
    started = time.monotonic()
    plan = _read_plan(work)
    if not plan.makes_version:
        return {"skipped": plan.reason}
    view = read_frame(work.rows, REVIEW_COLUMNS)
    config, may_train = load_config(settings, CommentConfig), plan.strategy is Strategy.FULL
    scores = score_view(settings, config, view, as_of=plan.end, may_train=may_train)
    np.save(work.quality, scores.quality.to_numpy(np.float32))
    write_json(work.scores, scores.summary)
    return {**scores.summary, "scorer": scores.scorer, "seconds": _since(started)}


def publish(settings: Settings, work: Workspace) -> Summary:
    """Build and publish the new version; the summary of the whole run.

    With nothing new, the version that was there already is what ``data/processed`` must show."""
    started = time.monotonic()
    plan = _read_plan(work)
    if plan.dry_run:
        return {"dry_run": True, "published": False}  # the plan is what `ingest` returned
    version_id = plan.version_id if plan.makes_version else plan.previous_version
    if version_id is None:  # a day before the first review
        return {**_outline(plan), "new_version": False, "published": False}
    config = load_config(settings, DataConfig)
    # An earlier try may have got so far, on this machine or another one.
    is_built = (settings.versions / version_id).is_dir() or version_id in list_versions(settings)
    if plan.makes_version and not is_built:
        _build(settings, config, work, plan)
    moved = publish_version(settings, version_id)
    set_aside = archive_arrivals(settings, plan.source["name"], plan.version_id, plan.staged)
    removed = prune(settings, config)
    work.tidy()
    version = open_version(settings, version_id)
    return {
        **_outline(plan),
        "version_id": version_id,
        "files_set_aside": set_aside,
        "new_version": plan.makes_version,
        "published": moved,
        "versions_removed": removed,
        "rows": _all_rows(plan, version.manifest["rows"]["accepted"]),
        "contents": version.stats(),
        "comment_scorer": version.manifest["comment_scorer"],
        "seconds": _since(started),
    }


def _build(settings: Settings, config: DataConfig, work: Workspace, plan: Plan) -> None:
    """Write every file of the new version, and let it stand under its name."""
    shutil.rmtree(work.version, ignore_errors=True)
    work.version.mkdir()
    with VersionFiles(work.version) as files, open_engine(settings, config, work) as engine:
        files.add_row_keys(np.load(work.row_keys, mmap_mode="r"))
        signals, catalogue = None, read_frame(work.catalogue)
        if plan.signals.fingerprint:
            read = read_frame(work.signals)
            signals, purchases = split_signals(work.rows, catalogue[schema.PRODUCT], read)
            purchases.to_feather(work.purchases, compression="uncompressed")
            files.add_signals(signals)
        purchased = None if signals is None else work.purchases
        dataset = engine.build(work.rows, work.quality, catalogue, files, purchased)
        products = add_since(dataset.products, dataset.interactions, signals)
        dataset = replace(dataset, products=products)
        if signals is not None:
            of_signals = signal_statistics(signals, dataset.products[schema.PRODUCT])
            dataset = replace(dataset, stats={**dataset.stats, "signals": of_signals})
        files.add_the_rest(dataset)
        files.add_sales(recent_sales(dataset.item_ids, dataset.interactions, signals))
        entries = files.entries()
    scores = json.loads(work.scores.read_bytes())
    manifest = {
        **plan.model_dump(mode="json"),
        "created_at": datetime.now(UTC).isoformat(),
        "backfill": shows_later(settings, plan.end),
        "comment_scorer": scores["scorer"],
        "comments": scores,
        "rows": _all_rows(plan, dataset.stats["interactions"]),
    }
    write_manifest(work.version, manifest, entries)
    settings.versions.mkdir(parents=True, exist_ok=True)
    sync_tree(work.version)
    work.version.rename(settings.versions / plan.version_id)
    sync(settings.versions)


def _is_known_dirt(settings: Settings, plan: Plan) -> bool:
    """Nothing is new, not even bad rows: those of the previous version are in quarantine."""
    if plan.strategy is not Strategy.NOTHING_NEW or plan.previous_version is None:
        return False
    before = open_version(settings, plan.previous_version).manifest
    tables = [before.get(table, {}).get("quarantined", 0) for table in ("products", "signals")]
    found = [plan.products.quarantined, plan.signals.quarantined]
    return (before["quarantined_by_reason"], tables) == (plan.quarantined_by_reason, found)


def _read_plan(work: Workspace) -> Plan:
    return Plan.model_validate_json(work.plan.read_bytes())


def _refuse_bad_input(plan: Plan, config: DataConfig) -> None:
    found = plan.quarantined_by_reason.items()
    reasons = "; ".join(f"{reason} (rows: {count})" for reason, count in found)
    if plan.rows.valid + plan.rows.later == 0:
        raise RefreshError(
            f"none of the {plan.rows.read} rows read is valid: {reasons or 'there are no rows'}"
        )
    if plan.invalid_fraction > config.max_invalid_fraction:
        raise RefreshError(
            f"{plan.invalid_fraction:.1%} of the source's rows are bad, more than "
            f"max_invalid_fraction {config.max_invalid_fraction:g} allows: {reasons}; see "
            f"data/quarantine/{plan.version_id}.csv"
        )
    for export in plan.signals.exports:
        if export.invalid_fraction > config.max_invalid_fraction:
            raise RefreshError(
                f"{export.invalid_fraction:.1%} of the rows of {export.source} are bad, more than "
                f"max_invalid_fraction {config.max_invalid_fraction:g} allows: see "
                f"data/quarantine/{plan.version_id}.csv; correct the export, or its description in "
                "config/sources"
            )


def _refuse_bad_catalogue(settings: Settings, plan: Plan, config: DataConfig, on_sale: int) -> None:
    valid, bad = plan.products.valid, plan.products.quarantined
    if bad > config.max_invalid_fraction * (valid + bad):
        raise RefreshError(
            f"{bad} of the {valid + bad} products are bad, more than max_invalid_fraction "
            f"{config.max_invalid_fraction:g} allows; see data/quarantine/{plan.version_id}.csv; "
            f"correct the export, or, {_IF_RIGHT}"
        )
    if valid == 0:
        raise RefreshError(f"the catalogue has no products: the export is empty; {_IF_RIGHT}")
    if on_sale == 0:
        raise RefreshError(
            f"none of the {valid} products is for sale: the export says of all that they are sold "
            f"out or not sold any more; correct it, or the source's not_for_sale, or, {_IF_RIGHT}"
        )
    if plan.previous_version is None:
        return
    previous = open_version(settings, plan.previous_version)
    if previous.manifest["source"]["name"] != plan.source["name"]:
        return
    allowed, available = 1 - config.max_shrink_fraction, previous.stats()["products_available"]
    before = previous.manifest.get("products", {}).get("valid", available)
    if valid < allowed * before:
        raise RefreshError(
            f"only {valid} products are left of the {before} of version {plan.previous_version}, "
            f"less than max_shrink_fraction {config.max_shrink_fraction:g} allows: the export was "
            f"cut off or replaced; {_IF_RIGHT}"
        )
    if previous.manifest["source"] == plan.source and on_sale < allowed * available:
        raise RefreshError(
            f"only {on_sale} products are for sale of the {available} of version "
            f"{plan.previous_version}, less than max_shrink_fraction "
            f"{config.max_shrink_fraction:g} allows: the export says of the others that they are "
            f"sold out or not sold any more; correct it, or the source's not_for_sale, or, "
            f"{_IF_RIGHT}"
        )


def _refuse_lost_columns(settings: Settings, plan: Plan) -> None:
    if plan.previous_version is None:
        return
    before = open_version(settings, plan.previous_version).manifest
    if before["source"] != plan.source:
        return
    for table, columns in before.get("columns", {}).items():
        if lost := sorted(set(columns) - set(plan.columns[table])):
            raise RefreshError(
                f"the {table} had {', '.join(lost)} in version {plan.previous_version}, and have "
                "not any more; restore the column, change the source's description, or, "
                f"{_IF_RIGHT}"
            )


def _refuse_shrinking(settings: Settings, config: DataConfig, plan: Plan, accepted: int) -> None:
    if plan.previous_version is None:
        return
    rows = open_version(settings, plan.previous_version).manifest["rows"]
    before, allowed = rows["accepted"], config.max_shrink_fraction
    gone = max(0, plan.rows.forgotten - rows.get("forgotten", 0))  # by customers' own wish
    if accepted + gone < (1 - allowed) * before:
        raise RefreshError(
            f"only {accepted} rows are left of the {before} of version {plan.previous_version}, "
            f"less than max_shrink_fraction {allowed:g} allows; {_IF_RIGHT}"
        )


def _refuse_shrunk_exports(settings: Settings, config: DataConfig, plan: Plan) -> None:
    """An export that was cut off would take purchases out of the histories of customers."""
    if plan.previous_version is None:
        return
    manifest = open_version(settings, plan.previous_version).manifest
    exports = manifest.get("signals", {}).get("exports", [])
    before = {export["source"]: export for export in exports}
    for export in plan.signals.exports:
        had = before.get(export.source, {}).get("valid", 0)
        gone = max(0, export.forgotten - before.get(export.source, {}).get("forgotten", 0))
        if export.valid + gone < (1 - config.max_shrink_fraction) * had:
            raise RefreshError(
                f"only {export.valid} events are left of the {had} that {export.source} had in "
                f"version {plan.previous_version}, less than max_shrink_fraction "
                f"{config.max_shrink_fraction:g} allows; {_IF_RIGHT}"
            )


def _all_rows(plan: Plan, accepted: int) -> Summary:
    superseded = plan.rows.valid + plan.rows.repeated - accepted
    return {**plan.rows.model_dump(), "accepted": accepted, "superseded": superseded}


def _outline(plan: Plan) -> Summary:
    outline = plan.model_dump(mode="json", include=_OUTLINE)
    if not plan.makes_version:
        outline["version_id"] = plan.previous_version
    bad = plan.staged["bad_files"]
    set_aside = [{"file": Path(one["path"]).name, "reason": one["reason"]} for one in bad]
    read = (Path(one["path"]) for one in plan.staged["files"])
    outline["files_read"] = [path.name for path in read if path.is_relative_to(STAGING_KEY)]
    source = plan.source["name"]
    return {**outline, "source": source, "files_set_aside": set_aside, "note": plan.note}


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
