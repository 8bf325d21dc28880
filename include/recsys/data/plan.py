"""What a refresh finds in its view, and which strategy follows from that."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys import schema
from recsys.data.catalogue import fingerprint, read_catalogue
from recsys.data.cleaning import REASON, CleanRows, clean_rows
from recsys.config import read_document
from recsys.data.config import DataConfig
from recsys.data.events import KEY, run_starts
from recsys.data.inbox import Staged, read_staged
from recsys.data.reading import read_rows
from recsys.data.sources import Source
from recsys.data.versions import PublishedVersion, list_versions, open_version
from recsys.data.writing import ROW_KEYS_FILE, code_version
from recsys.publishing import sha256_of
from recsys.settings import CORES, Settings
from recsys.data.config import Engine


ASKED_FOR = "asked for"
"""Reason of a plan whose strategy was forced; it also passes the checks against what was before."""


class Strategy(StrEnum):
    """How a run makes its version."""

    FULL = "full"
    INCREMENTAL = "incremental"
    NOTHING_NEW = "nothing_new"


@dataclass(frozen=True)
class Plan:
    """What a run is going to do; JSON-able.

    Attributes
    ----------
    invalid_fraction
        Bad rows among those of the source's files; staged rows cannot stop a run.
    new_interactions
        Valid rows of the view that the previous version did not have.
    vanished_interactions
        Rows that the previous version had and the view has not.
    columns
        Our names of the columns that all files of reviews, and of products, have.
    inputs
        Fingerprint of everything but the rows that decides what a version contains.
    """

    strategy: Strategy
    reason: str
    version_id: str
    previous_version: str | None
    as_of: str
    planned_at: str
    new_interactions: int
    vanished_interactions: int
    rows_read: int
    rows_valid: int
    rows_later: int
    rows_repeated: int
    rows_quarantined: int
    quarantined_by_reason: dict[str, int]
    products_quarantined: int
    source: dict[str, Any]
    files: list[dict[str, Any]]
    staged: dict[str, Any]
    columns: dict[str, list[str]]
    inputs: str
    catalogue: str
    invalid_fraction: float
    dry_run: bool
    engine: Engine = Engine.PANDAS

    @property
    def end(self) -> datetime:
        return datetime.fromisoformat(self.as_of)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Plan":
        return cls(**{**content, "strategy": Strategy(content["strategy"]), "engine": Engine(content["engine"])})


@dataclass
class View:
    """Every raw row up to the end of a run's interval, checked, and the catalogue."""

    reviews: CleanRows
    products: CleanRows
    files: list[dict[str, Any]]
    staged: Staged
    columns: dict[str, list[str]]
    invalid_fraction: float

    @property
    def rejected(self) -> pd.DataFrame:
        """Bad rows of reviews and products."""
        return pd.concat([self.reviews.rejected, self.products.rejected], ignore_index=True)

    @functools.cached_property
    def row_keys(self) -> NDArray[np.uint64]:
        """Sorted keys of the valid rows, each once."""
        keys = np.sort(self.reviews.accepted[KEY].to_numpy())
        return keys[run_starts(keys)]


def read_view(
    settings: Settings,
    source: Source,
    config: DataConfig,
    *,
    as_of: datetime,
    now: datetime,
    read_files: Callable[[Sequence[Path]], list[CleanRows]] | None = None,
) -> View:
    """Read and check the source's files and everything staged.

    `read_files` reads the review files in another way than one after the other into memory.

    Raises `SourceError` if one of the source's files cannot be used.
    """
    with ThreadPoolExecutor(CORES) as pool:
        digests = pool.map(sha256_of, (*source.review_files, *source.product_files))
        catalogue = pool.submit(read_catalogue, source)
        parts = (
            read_files(source.review_files)
            if read_files is not None
            else [_read_part(path, source, config, as_of, now) for path in source.review_files]
        )
        staged = read_staged(settings, source, config, as_of=as_of, now=now)
        products = catalogue.result()
        described: list[dict[str, Any]] = [
            {"path": str(path), "sha256": digest}
            for path, digest in zip(
                (*source.review_files, *source.product_files), digests, strict=True
            )
        ]
    for part, description in zip(parts, described, strict=False):
        description["rows"] = part.rows_read
    bad, read = sum(len(part.rejected) for part in parts), sum(part.rows_read for part in parts)
    return View(
        reviews=concatenate([*parts, *staged.parts]),
        products=products,
        columns={
            "reviews": sorted(frozenset.intersection(*(part.columns for part in parts))),
            "products": sorted(products.columns),
        },
        files=described,
        staged=staged,
        invalid_fraction=bad / max(read, 1),
    )


def _read_part(
    path: Path, source: Source, config: DataConfig, as_of: datetime, now: datetime
) -> CleanRows:
    files = source.config.reviews
    return clean_rows(
        read_rows(path, files.needed, files.optional, files.encoding),
        files.timestamp,
        ZoneInfo(source.config.timezone),
        earliest=config.earliest_time,
        as_of=as_of,
        now=now,
    )


def concatenate(parts: list[CleanRows]) -> CleanRows:
    """All rows of several files."""
    if len(parts) == 1:
        return parts[0]
    return CleanRows(
        # Rows that were read elsewhere are here by their keys alone.
        pd.concat([part.accepted for part in parts], ignore_index=True, join="inner"),
        pd.concat([part.rejected for part in parts], ignore_index=True),
        sum(part.later for part in parts),
        sum(part.repeated for part in parts),
    )


def make_plan(
    settings: Settings,
    config: DataConfig,
    source: Source,
    view: View,
    *,
    as_of: datetime,
    now: datetime,
    force_full: bool,
    dry_run: bool,
) -> Plan:
    """Compare the view with the version before it and choose the strategy."""
    inputs = inputs_fingerprint(settings, config, source)
    catalogue = fingerprint(view.products.accepted)
    previous = previous_version(settings, source.name, as_of)
    keys = view.row_keys
    new, vanished = _difference(keys, previous)
    if len(keys):
        strategy, reason = _choose(config, previous, inputs, catalogue, new, vanished, force_full)
    else:
        strategy, reason = Strategy.NOTHING_NEW, "no row is earlier than the interval's end"
    reasons = view.reviews.rejected[REASON].value_counts()
    return Plan(
        strategy=strategy,
        reason=reason,
        version_id=_version_id(as_of, now),
        previous_version=previous.version_id if previous else None,
        as_of=as_of.astimezone(UTC).isoformat(),
        planned_at=now.isoformat(),
        new_interactions=new,
        vanished_interactions=vanished,
        rows_read=view.reviews.rows_read,
        rows_valid=len(view.reviews.accepted),
        rows_later=view.reviews.later,
        rows_quarantined=len(view.reviews.rejected),
        quarantined_by_reason={str(text): int(count) for text, count in reasons.items()},
        products_quarantined=len(view.products.rejected),
        source=source.description,
        rows_repeated=view.reviews.repeated,
        files=view.files,
        staged=view.staged.to_json(),
        columns=view.columns,
        inputs=inputs,
        catalogue=catalogue,
        invalid_fraction=view.invalid_fraction,
        dry_run=dry_run,
        engine=config.engine,
    )


def previous_version(settings: Settings, source: str, as_of: datetime) -> PublishedVersion | None:
    """The kept version of `source` with the latest view up to `as_of`."""
    for version_id in reversed(list_versions(settings)):
        version = open_version(settings, version_id)
        if version.manifest["source"]["name"] == source and version.as_of <= as_of:
            return version
    return None


def new_rows(view: View, previous: PublishedVersion) -> pd.DataFrame:
    """Those rows of `view` that `previous` did not have."""
    keys, rows = view.row_keys, view.reviews.accepted
    new = keys[~_among(keys, _row_keys(previous))]
    return rows[_among(rows[KEY].to_numpy(), new)].reset_index(drop=True)


def inputs_fingerprint(settings: Settings, config: DataConfig, source: Source) -> str:
    """Changes with the source's description, the code, and the settings that shape a version."""
    comments = read_document(settings, "comments.yaml").content
    parts = (
        repr(source.description),
        code_version(),
        config.earliest.isoformat(),
        json.dumps(comments, sort_keys=True, default=str),
        repr(schema.POSITIVE_RATING),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _choose(
    config: DataConfig,
    previous: PublishedVersion | None,
    inputs: str,
    catalogue: str,
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
    if previous.manifest["catalogue"] != catalogue:
        return Strategy.INCREMENTAL, "no new interaction, but the catalogue changed"
    return Strategy.NOTHING_NEW, "no new interaction"


def _difference(keys: NDArray[np.uint64], previous: PublishedVersion | None) -> tuple[int, int]:
    """Numbers of new and of vanished keys."""
    if previous is None:
        return len(keys), 0
    known = _row_keys(previous)
    common = int(_among(keys, known).sum())
    return len(keys) - common, len(known) - common


def _among(wanted: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of `wanted` are in the ascending `known`; fast if `wanted` ascends or `known` is short."""
    if not len(known):
        return np.zeros(len(wanted), dtype=np.bool_)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found: NDArray[np.bool_] = known[at] == wanted
    return found


def _row_keys(version: PublishedVersion) -> NDArray[np.uint64]:
    keys: NDArray[np.uint64] = np.load(version.path / ROW_KEYS_FILE, allow_pickle=False)
    return keys


def _version_id(as_of: datetime, now: datetime) -> str:
    """Names sort by the end of the view, then by age."""
    view = as_of.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{view}-{int(now.timestamp() * 1000):011x}{uuid4().hex[:4]}"
