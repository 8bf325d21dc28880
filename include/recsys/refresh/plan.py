"""What a run is going to do: what it found in its view, and which strategy follows from that."""

import functools
import hashlib
import logging
import re
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

import recsys
from recsys import schema
from recsys.arrays import UInt64Array
from recsys.comments import CommentConfig
from recsys.config import ConfigModel
from recsys.data.cleaning import REASON
from recsys.data.config import DataConfig, Engine
from recsys.data.engine import View, fingerprint
from recsys.data.signals import SignalCounts
from recsys.data.sources import Source
from recsys.data.versions import PublishedVersion, VersionError, list_versions, open_version
from recsys.data.writing import ROW_KEYS_FILE
from recsys.settings import Settings

ASKED_FOR = "asked for"
"""Reason of a plan whose strategy was forced; it also passes the checks against what was before."""

logger = logging.getLogger(__name__)

_KEYS_AT_ONCE = 1 << 22
_PACKAGE = Path(recsys.__file__).parent
_IMPORT = re.compile(r"^\s*from (recsys[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)


class Strategy(StrEnum):
    """How a run makes its version."""

    FULL = "full"
    INCREMENTAL = "incremental"
    NOTHING_NEW = "nothing_new"


class RowCounts(ConfigModel):
    """Rows of the view's reviews: `later` are valid ones that the view does not reach yet,
    `repeated` those whose event id had been seen. Rows of customers who are `forgotten`, events of
    all kinds among them, are in no other count."""

    read: int
    valid: int
    later: int
    repeated: int
    quarantined: int
    forgotten: int = 0


class Changes(ConfigModel):
    """The view's valid rows, compared with those of the previous version: `new` and `vanished`
    ones, and how many it has if the strategy is incremental."""

    new: int
    vanished: int
    merged_with: int


class ProductCounts(ConfigModel):
    """Products of the catalogue: distinct `valid` ones; those with `unclear_prices` have none."""

    valid: int
    quarantined: int
    unclear_prices: int


class Plan(ConfigModel):
    """What a run is going to do; the manifest of its version begins with it.

    `sources` are path, SHA-256 and rows of each of the source's files, `passed_over` the empty ones
    among them; `staged` is what of the staging area was read, see `recsys.data.arrivals.Staged`;
    `columns` are our names of those that all files of reviews, and of products, have. `inputs` is
    the fingerprint of everything but the rows that decides what a version contains, `catalogue`
    that of the products. The `invalid_fraction` is that of the source's files: staged rows cannot
    stop a run."""

    version_id: str
    previous_version: str | None
    as_of: str
    planned_at: str
    strategy: Strategy
    reason: str
    dry_run: bool
    engine: Engine
    rows: RowCounts
    changes: Changes
    quarantined_by_reason: dict[str, int]
    products: ProductCounts
    signals: SignalCounts
    invalid_fraction: float
    source: dict[str, Any]
    sources: list[dict[str, Any]]
    passed_over: list[str]
    staged: dict[str, Any]
    columns: dict[str, list[str]]
    inputs: str
    catalogue: str
    code_version: str

    @property
    def end(self) -> datetime:
        return datetime.fromisoformat(self.as_of)

    @property
    def makes_version(self) -> bool:
        return not self.dry_run and self.strategy is not Strategy.NOTHING_NEW

    @property
    def note(self) -> str:
        """The plan in a sentence, for the run's note in Airflow's UI."""
        prefix = "Dry run, nothing changed. " if self.dry_run else ""
        names = ", ".join(Path(path).name for path in self.passed_over[:3])
        empty = f" {len(self.passed_over)} empty files passed over: {names}." if names else ""
        signals = f" {self.signals.accepted:,} signals." if self.signals.fingerprint else ""
        return (
            f"{prefix}Strategy {self.strategy.value}: {self.reason}. "
            f"{self.changes.new:,} new interactions; {self.rows.valid:,} of {self.rows.read:,} "
            f"rows are valid, {self.rows.quarantined:,} in quarantine.{signals}{empty}"
        )


def make_plan(
    settings: Settings,
    config: DataConfig,
    comments: CommentConfig,
    source: Source,
    view: View,
    *,
    as_of: datetime,
    now: datetime,
    force_full: bool,
    dry_run: bool,
) -> Plan:
    """Compare the view with the version before it and choose the strategy."""
    inputs = inputs_fingerprint(config, comments, source)
    catalogue = fingerprint(view.products.accepted)
    previous = previous_version(settings, source.name, as_of)
    new, vanished = _difference(view.row_keys, previous)
    strategy, reason = Strategy.NOTHING_NEW, "no row is earlier than the interval's end"
    if len(view.row_keys):
        prints = {"catalogue": catalogue, "signals": view.signals.counts.fingerprint}
        strategy, reason = _choose(config, previous, inputs, prints, new, vanished, force_full)
    merges = previous is not None and strategy is Strategy.INCREMENTAL
    reviews, products = view.reviews, view.products
    reasons = reviews.rejected[REASON].value_counts()
    return Plan(
        version_id=_version_id(as_of, now),
        previous_version=previous.version_id if previous else None,
        as_of=as_of.astimezone(UTC).isoformat(),
        planned_at=now.isoformat(),
        strategy=strategy,
        reason=reason,
        dry_run=dry_run,
        engine=config.engine,
        rows=RowCounts(
            read=reviews.rows_read,
            valid=len(reviews.accepted),
            later=reviews.later,
            repeated=reviews.repeated,
            quarantined=len(reviews.rejected),
            forgotten=reviews.forgotten,
        ),
        changes=Changes(
            new=new,
            vanished=vanished,
            merged_with=previous.manifest["rows"]["accepted"] if previous and merges else 0,
        ),
        quarantined_by_reason={str(text): int(count) for text, count in reasons.items()},
        products=ProductCounts(
            valid=len(products.accepted),
            quarantined=len(products.rejected),
            unclear_prices=products.unclear_prices,
        ),
        signals=view.signals.counts,
        invalid_fraction=view.invalid_fraction,
        source=source.description,
        sources=view.files,
        passed_over=[str(path) for path in source.passed_over],
        staged=view.staged,
        columns=view.columns,
        inputs=inputs,
        catalogue=catalogue,
        code_version=code_version(),
    )


def previous_version(settings: Settings, source: str, as_of: datetime) -> PublishedVersion | None:
    """The kept version of `source` with the latest view up to `as_of`."""
    for version_id in reversed(list_versions(settings)):
        try:
            version = open_version(settings, version_id)
            version.verify(ROW_KEYS_FILE, schema.STATS_FILE)  # what the next one is compared with
        except VersionError as error:
            logger.warning("version passed over: %s", error)
            continue
        if version.manifest["source"]["name"] == source and version.as_of <= as_of:
            return version
    return None


def inputs_fingerprint(config: DataConfig, comments: CommentConfig, source: Source) -> str:
    """Changes with the source's description, the code, and the settings that shape a version."""
    parts = (
        repr(source.description),
        code_version(),
        config.earliest.isoformat(),
        comments.model_dump_json(),
        repr(schema.POSITIVE_RATING),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@functools.cache
def code_version(package: Path = _PACKAGE) -> str:
    """Changes with the code that decides what a version contains: all that a refresh imports."""
    content = b"".join(file.read_bytes() for file in shaping_files(package))
    return hashlib.sha256(content).hexdigest()[:12]


def shaping_files(package: Path = _PACKAGE) -> list[Path]:
    """The files of `recsys` that a refresh runs through, in order: what its job imports, what that
    imports, and so on, inside functions too."""
    found: set[Path] = set()
    waiting = [package / "refresh" / "job.py"]
    while waiting:
        file = waiting.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        for module, names in _IMPORT.findall(file.read_text(encoding="utf-8")):
            at = package.joinpath(*module.split(".")[1:])
            inside = [at / name for name in re.findall(r"\w+", names)]
            waiting += [path.with_suffix(".py") for path in (at, *inside) if path != package]
            waiting += [path / "__init__.py" for path in (at.parent, at, *inside)]
    return sorted(found)


def _choose(
    config: DataConfig,
    previous: PublishedVersion | None,
    inputs: str,
    fingerprints: dict[str, str],
    new: int,
    vanished: int,
    force_full: bool,
) -> tuple[Strategy, str]:
    if force_full:
        return Strategy.FULL, ASKED_FOR
    if previous is None:
        return Strategy.FULL, "there is no previous version"
    if previous.manifest["inputs"] != inputs:
        return Strategy.FULL, "the code, the settings or the source's description changed"
    if vanished:
        return Strategy.FULL, f"{vanished} rows of the previous version are gone"
    if new > config.incremental_limit:
        return Strategy.FULL, f"{new} new interactions, more than {config.incremental_limit}"
    if new:
        return Strategy.INCREMENTAL, f"{new} new interactions"
    if previous.manifest["catalogue"] != fingerprints["catalogue"]:
        return Strategy.INCREMENTAL, "no new interaction, but the catalogue changed"
    if previous.manifest.get("signals", {}).get("fingerprint", "") != fingerprints["signals"]:
        return Strategy.INCREMENTAL, "no new interaction, but the signals changed"
    return Strategy.NOTHING_NEW, "no new interaction"


def _difference(keys: UInt64Array, previous: PublishedVersion | None) -> tuple[int, int]:
    """Numbers of new and of vanished keys."""
    if previous is None:
        return len(keys), 0
    known: UInt64Array = np.load(previous.path / ROW_KEYS_FILE, mmap_mode="r", allow_pickle=False)
    common = 0
    for first in range(0, len(keys), _KEYS_AT_ONCE):
        # Both are ascending, each key once.
        part = keys[first : first + _KEYS_AT_ONCE]
        at = np.searchsorted(known, part)
        found = at < len(known)
        common += int((known[at[found]] == part[found]).sum())
    return len(keys) - common, len(known) - common


def _version_id(as_of: datetime, now: datetime) -> str:
    """Names sort by the end of the view, then by age."""
    view = f"{as_of.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    return f"{view}-{int(now.timestamp() * 1000):011x}{uuid4().hex[:4]}"
